"""The local stack: the Q tokens of one frame, one after the other, out of the frame's global vector."""

from collections.abc import Sequence

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from uniaudio_jax.config import ModelConfig, Remat
from uniaudio_jax.model.attention import Cache, choose_attend, linear
from uniaudio_jax.model.block import Block, make_blocks, run_blocks, step_blocks
from uniaudio_jax.model.embed import shift_tokens
from uniaudio_jax.model.heads import make_head
from uniaudio_jax.model.heads.head import Scored
from uniaudio_jax.model.norms import make_norm


class LocalStack(nnx.Module):
    """Global vectors [F, D] and tokens [F, Q] to the logits of each token; each frame is a row of its own."""

    def __init__(self, config: ModelConfig, platform: str | None = None, *, rngs: nnx.Rngs):
        width, std = config.local_stack.width, config.local_stack.init_std
        self.codebooks = config.codebooks
        self.attend = choose_attend(config.local_stack.attention, "local", "learned", platform)
        self.has_shares = config.layout.frame_vectors == "concatenated"
        table = nnx.initializers.normal(std)(rngs.params(), (config.vocabulary_size, width))
        self.embedding = nnx.Param(table, axes=("vocab", "embed"))
        self.positions = self.attend.positions.table((config.codebooks, width), ("levels", "embed"), std, rngs)
        self.link = linear(config.token_width, width, ("token", "embed"), std, rngs)
        self.blocks = make_blocks(config.local_stack, config.layout, rngs)
        self.norm = make_norm(config.layout.norm, width)
        self.head = make_head(config, rngs)

    def __call__(self, vectors: Float[Array, "F D"], tokens: Int[Array, "F Q"], remat: Remat = "none") -> list[Scored]:
        """What the loss of the frames' tokens is computed from; see `run_blocks` for `remat`."""
        return self.head.score(self._run(vectors, tokens, remat), tokens)

    def logits(self, vectors: Float[Array, "F D"], tokens: Int[Array, "F Q"]) -> Float[Array, "F Q V"]:
        """Logits of every token of the frames, each given the tokens before it in its frame."""
        return self.head.logits(self._run(vectors, tokens, "none"), tokens)

    def _run(self, vectors: Float[Array, "F D"], tokens: Int[Array, "F Q"], remat: Remat) -> Float[Array, "F Q D"]:
        levels = jnp.arange(self.codebooks)
        x = self.embedding[...][shift_tokens(tokens)] + self.linked(vectors)
        x = self.attend.positions.add(x, levels, self.positions)
        return self.norm(run_blocks(self.blocks, x, self.attend.rows(levels), remat))

    def linked(self, vectors: Float[Array, "F D"]) -> Float[Array, "F levels D"]:
        """What each level sees of the global vector, mapped to the local width (`g2l_linear`): its share, D / Q wide,
        or all of it."""
        shares = self.codebooks if self.has_shares else 1
        return self.link(rearrange(vectors, "F (Q E) -> F Q E", Q=shares))

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
