"""The global stack: one vector for each frame, out of all frames before it (arXiv 2310.00704 section 2.3)."""

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from uniaudio_jax.config import ModelConfig, Remat
from uniaudio_jax.model.aligned import NOTHING, aligned_places, frames_ahead, frames_at
from uniaudio_jax.model.attention import Cache, choose_attend, linear
from uniaudio_jax.model.block import Block, fill_blocks, make_blocks, run_blocks, step_blocks
from uniaudio_jax.model.embed import FRAME_VECTORS, place_text, shift_frames, shift_slots
from uniaudio_jax.model.norms import make_norm
from uniaudio_jax.model.placement import ALONE, Placement
from uniaudio_jax.sequence import Batch


class GlobalStack(nnx.Module):
    """Frames [B, T, Q] to vectors [B, T, D]: vector t knows the frames before t, and predicts frame t."""

    def __init__(self, config: ModelConfig, platform: str | None = None, *, rngs: nnx.Rngs):
        width, std = config.global_stack.width, config.global_stack.init_std
        self.attend = choose_attend(config.global_stack.attention, "global", config.layout.positions, platform)
        self.frame_vectors = FRAME_VECTORS[config.layout.frame_vectors]
        table = nnx.initializers.normal(std)(rngs.params(), (config.vocabulary_size, config.token_width))
        self.embedding = nnx.Param(table, axes=("vocab", "embed"))
        shape = (config.context_frames, width)
        self.positions = self.attend.positions.table(shape, ("positions", "embed"), std, rngs)
        self.ahead = config.layout.aligned
        aligned = linear(len(self.ahead) * width, width, ("ahead", "embed"), std, rngs, False) if self.ahead else None
        self.aligned = aligned
        self.text = linear(config.text_width, width, ("text", "embed"), std, rngs)
        self.blocks = make_blocks(config.global_stack, config.layout, rngs)
        self.norm = make_norm(config.layout.norm, width)

    def __call__(self, batch: Batch, remat: Remat = "none", placement: Placement = ALONE) -> Float[Array, "B T D"]:
        """The vectors; see `run_blocks` for `remat`."""
        mix = self.attend.rows(batch.positions, batch.segments, placement)
        x = placement.rows(self.inputs(batch))
        return placement.rows(self.norm(run_blocks(self.blocks, x, mix, remat, placement)))

    def inputs(self, batch: Batch) -> Float[Array, "B T D"]:
        """The vector of the frame before each frame, text vectors in their places, with its position."""
        table = self.embedding[...]
        frames = self.frame_vectors(shift_frames(batch.tokens, batch.positions), table)
        mapped = self.text(batch.text_vectors.astype(table.dtype))
        frames = place_text(frames, mapped, shift_slots(batch.text_slots, batch.positions))
        if self.ahead:
            frames += self.of_aligned(batch)
        return self.attend.positions.add(frames, batch.positions, self.positions)

    def of_aligned(self, batch: Batch) -> Float[Array, "B T D"]:
        """What each frame gets of the frames of conditions at its time and ahead of it.

        It is summed up at the frames of the conditions first, so that one vector is looked up for each kind, not one
        for each kind and each frame ahead.
        """
        vectors, is_there = frames_ahead(
            self.frame_vectors(batch.tokens, self.embedding[...]), batch.tokens[..., 0], self.ahead
        )
        known = self.of_conditions(vectors[..., None, :], is_there[..., None])
        places = aligned_places(batch.tokens, batch.positions, (0,))
        return jnp.where(places[..., None] != NOTHING, frames_at(known, places), 0).sum(axis=(2, 3))

    def of_conditions(
        self, vectors: Float[Array, "*any A K D"], is_there: Bool[Array, "*any A K"]
    ) -> Float[Array, "*any D"]:
        """What a frame gets of the frames of conditions at its time and ahead of it, of those that are there."""
        assert self.aligned is not None
        known = jnp.where(is_there[..., None], vectors, 0).sum(axis=-2)
        return self.aligned(rearrange(known, "... A D -> ... (A D)"))

    def fill(self, batch: Batch) -> tuple[Float[Array, "B T D"], list[Cache]]:
        """The vectors of a whole prefix, and the cache of each layer that it leaves."""
        mix = self.attend.rows(batch.positions, batch.segments)
        x, caches = fill_blocks(self.blocks, self.inputs(batch), mix)
        return self.norm(x), caches

    def step(
        self,
        blocks: list[Block],
        frame: Int[Array, "B Q"],
        caches: list[Cache],
        position: Int[Array, " B"],
        slot: Int[Array, ""],
        aligned: Int[Array, "B A K Q"],
    ) -> tuple[Float[Array, "B D"], list[Cache]]:
        """The vector for the frame at `position`, given the frame before it, and the new caches; see `Attend.step`
        for `slot`. aligned: the frames of conditions at its time and ahead of it, see `aligned_frames`."""
        vectors = self.frame_vectors(frame, self.embedding[...])
        if self.ahead:
            conditions = self.frame_vectors(jnp.maximum(aligned, 0), self.embedding[...])
            vectors += self.of_conditions(conditions, aligned[..., 0] != NOTHING)
        x = jnp.expand_dims(self.attend.positions.add(vectors, position, self.positions), 1)
        x, caches = step_blocks(blocks, x, self.attend.step(position, slot), caches)
        return self.norm(x)[:, 0], caches
