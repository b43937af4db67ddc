"""The local stack: the Q tokens of one frame, one after the other, out of the frame's global vector."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from uniaudio_jax.config import ModelConfig
from uniaudio_jax.model.attention import Cache, linear
from uniaudio_jax.model.block import Block, Norm, make_blocks, run_blocks
from uniaudio_jax.model.embed import shift_tokens
from uniaudio_jax.model.kernels import frame_attention


class LocalStack(nnx.Module):
    """Global vectors [F, D] and tokens [F, Q] to logits [F, Q, V]; each frame is a row of its own."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        width, std = config.local_stack.width, config.local_stack.init_std
        normal = nnx.initializers.normal(std)
        self.codebooks = config.codebooks
        self.embedding = nnx.Param(normal(rngs.params(), (config.vocabulary, width)), axes=("vocab", "embed"))
        self.positions = nnx.Param(normal(rngs.params(), (config.codebooks, width)), axes=("levels", "embed"))
        self.link = linear(config.token_width, width, ("token", "embed"), std, rngs)
        self.blocks = make_blocks(config.local_stack, rngs)
        self.norm = Norm(width, rngs=rngs)
        self.head = linear(width, config.vocabulary, ("embed", "vocab"), std, rngs, use_bias=False)

    def __call__(
        self, vectors: Float[Array, "F D"], tokens: Int[Array, "F Q"], remat: bool = False
    ) -> Float[Array, "F Q V"]:
        """Logits of every token of the frames, each given the tokens before it in its frame."""
        x = self.embedding[...][shift_tokens(tokens)] + self.linked(vectors) + self.positions[...]
        return self.head(self.norm(run_blocks(self.blocks, x, frame_attention, remat)))

    def linked(self, vectors: Float[Array, "F D"]) -> Float[Array, "F Q D"]:
        """Each level's share of the global vector, D / Q wide, mapped to the local width (`g2l_linear`)."""
        return self.link(vectors.reshape(len(vectors), self.codebooks, -1))

    def step(
        self,
        blocks: list[Block],
        token: Int[Array, " F"],
        linked: Float[Array, "F D"],
        caches: list[Cache | None],
        level: int,
    ) -> tuple[Float[Array, "F D"], list[Cache | None]]:
        """What the head makes the logits of `level` from, given the token before it, and the grown caches."""
        x = jnp.expand_dims(self.embedding[...][token] + linked + self.positions[...][level], 1)
        grown: list[Cache | None] = []
        for block, cache in zip(blocks, caches, strict=True):
            x, cache = block.grow(x, cache)
            grown.append(cache)
        return self.norm(x)[:, 0], grown
