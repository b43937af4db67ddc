"""The local stack: the Q tokens of one frame, one after the other, out of the frame's global vector."""

from collections.abc import Sequence

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from uniaudio_jax.config import ModelConfig, Remat
from uniaudio_jax.model.attention import Cache, choose_attend, linear
from uniaudio_jax.model.block import Block, Norm, make_blocks, run_blocks, step_blocks
from uniaudio_jax.model.embed import shift_tokens


class LocalStack(nnx.Module):
    """Global vectors [F, D] and tokens [F, Q] to logits [F, Q, V]; each frame is a row of its own."""

    def __init__(self, config: ModelConfig, platform: str | None = None, *, rngs: nnx.Rngs):
        width, std = config.local_stack.width, config.local_stack.init_std
        self.codebooks = config.codebooks
        self.attend = choose_attend(config.local_stack.attention, "local", config.positions, platform)
        table = nnx.initializers.normal(std)(rngs.params(), (config.vocabulary_size, width))
        self.embedding = nnx.Param(table, axes=("vocab", "embed"))
        self.positions = self.attend.positions.table((config.codebooks, width), ("levels", "embed"), std, rngs)
        self.link = linear(config.token_width, width, ("token", "embed"), std, rngs)
        self.blocks = make_blocks(config.local_stack, rngs)
        self.norm = Norm(width, rngs=rngs)
        self.head = linear(width, config.vocabulary_size, ("embed", "vocab"), std, rngs, use_bias=False)

    def __call__(
        self, vectors: Float[Array, "F D"], tokens: Int[Array, "F Q"], remat: Remat = "none"
    ) -> Float[Array, "F Q V"]:
        """Logits of every token of the frames, each given the tokens before it in its frame; see `run_blocks` for
        `remat`."""
        levels = jnp.arange(self.codebooks)
        x = self.embedding[...][shift_tokens(tokens)] + self.linked(vectors)
        x = self.attend.positions.add(x, levels, self.positions)
        return self.head(self.norm(run_blocks(self.blocks, x, self.attend.rows(levels), remat)))

    def linked(self, vectors: Float[Array, "F D"]) -> Float[Array, "F Q D"]:
        """Each level's share of the global vector, D / Q wide, mapped to the local width (`g2l_linear`)."""
        return self.link(rearrange(vectors, "F (Q E) -> F Q E", Q=self.codebooks))

    def step(
        self,
        blocks: list[Block],
        token: Int[Array, " F"],
        linked: Float[Array, "F D"],
        caches: Sequence[Cache | None],
        level: int,
    ) -> tuple[Float[Array, "F D"], list[Cache]]:
        """The vector that the head maps to the logits of `level`, given the token before it, and the new caches."""
        x = self.embedding[...][token] + linked
        x = jnp.expand_dims(self.attend.positions.add(x, jnp.array(level), self.positions), 1)
        x, new = step_blocks(blocks, x, self.attend.grow(level), caches)
        return self.norm(x)[:, 0], new
