"""The global stack: one vector for each frame, out of all frames before it (arXiv 2310.00704 section 2.3)."""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from uniaudio_jax.config import ModelConfig
from uniaudio_jax.model.attention import Cache, linear
from uniaudio_jax.model.block import Block, Norm, fill_blocks, make_blocks, run_blocks
from uniaudio_jax.model.embed import frame_vectors, place_text, shift_frames, shift_slots
from uniaudio_jax.model.kernels import packed_attention
from uniaudio_jax.sequence import Batch


class GlobalStack(nnx.Module):
    """Frames [B, T, Q] to vectors [B, T, D]: vector t knows the frames before t, and predicts frame t."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        width, std = config.global_stack.width, config.global_stack.init_std
        normal = nnx.initializers.normal(std)
        table = normal(rngs.params(), (config.vocabulary, config.token_width))
        self.embedding = nnx.Param(table, axes=("vocab", "embed"))
        places = normal(rngs.params(), (config.context_frames, width))
        self.positions = nnx.Param(places, axes=("positions", "embed"))
        self.text = linear(config.text_width, width, ("text", "embed"), std, rngs)
        self.blocks = make_blocks(config.global_stack, rngs)
        self.norm = Norm(width, rngs=rngs)

    def __call__(self, batch: Batch, remat: bool = False) -> Float[Array, "B T D"]:
        attend = partial(packed_attention, segments=batch.segments)
        return self.norm(run_blocks(self.blocks, self.inputs(batch), attend, remat))

    def inputs(self, batch: Batch) -> Float[Array, "B T D"]:
        """The vector of the frame before each frame, text vectors in their places, plus the learned position."""
        table = self.embedding[...]
        frames = frame_vectors(shift_frames(batch.tokens, batch.positions), table)
        mapped = self.text(batch.text_vectors.astype(table.dtype))
        frames = place_text(frames, mapped, shift_slots(batch.text_slots, batch.positions))
        return frames + self.positions[...][batch.positions]

    def fill(self, batch: Batch) -> tuple[Float[Array, "B T D"], list[Cache]]:
        """The vectors of a whole prefix, and the cache of each layer that it leaves."""
        attend = partial(packed_attention, segments=batch.segments)
        x, caches = fill_blocks(self.blocks, self.inputs(batch), attend)
        return self.norm(x), caches

    def step(self, blocks: list[Block], frame: Int[Array, "B Q"], caches: list[Cache], position: Int[Array, " B"]):
        """The vector [B, D] for the frame at `position`, given the frame before it, and the grown caches.

        blocks: the layers as a list, made once for many steps by `unstack`; in a scan over layers each step would
        copy every cache.
        """
        x = jnp.expand_dims(frame_vectors(frame, self.embedding[...]) + self.positions[...][position], 1)
        grown = []
        for block, cache in zip(blocks, caches, strict=True):
            x, cache = block.step(x, cache, position)
            grown.append(cache)
        return self.norm(x)[:, 0], grown
