"""The global stack: one vector for each frame, out of all frames before it (arXiv 2310.00704 section 2.3)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from uniaudio_jax.config import ModelConfig
from uniaudio_jax.model.attention import Cache, linear
from uniaudio_jax.model.block import Norm, fill_blocks, make_blocks, run_blocks, step_blocks
from uniaudio_jax.model.embed import frame_vectors, place_text, shift_frames, shift_slots, visible
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
        return self.norm(run_blocks(self.blocks, self.inputs(batch), visible(batch.segments), remat))

    def inputs(self, batch: Batch) -> Float[Array, "B T D"]:
        """The vector of the frame before each frame, text vectors in their places, plus the learned position."""
        table = self.embedding[...]
        frames = frame_vectors(shift_frames(batch.tokens, batch.positions), table)
        mapped = self.text(batch.text_vectors.astype(table.dtype))
        frames = place_text(frames, mapped, shift_slots(batch.text_slots, batch.positions))
        return frames + self.positions[...][batch.positions]

    def fill(self, batch: Batch) -> tuple[Float[Array, "B T D"], Cache]:
        """The vectors of a whole prefix, and the cache that it leaves."""
        x, cache = fill_blocks(self.blocks, self.inputs(batch), visible(batch.segments))
        return self.norm(x), cache

    def step(self, frame: Int[Array, "B Q"], cache: Cache, position: Int[Array, " B"]):
        """The vector [B, 1, D] for the frame at `position`, given the frame before it, and the grown cache."""
        x = frame_vectors(frame, self.embedding[...]) + self.positions[...][position]
        x, cache = step_blocks(self.blocks, jnp.expand_dims(x, 1), cache, position)
        return self.norm(x), cache
