"""What goes into the two stacks: frame vectors, text vectors, shifts."""

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from uniaudio_jax.sequence import HIDDEN
from uniaudio_jax.vocab import GLOBAL_START, LOCAL_START


def concatenated(tokens: Int[Array, "*any Q"], table: Float[Array, "V E"]) -> Float[Array, "*any Q*E"]:
    """The Q token vectors of each frame, one after the other."""
    return rearrange(table[tokens], "... Q E -> ... (Q E)")


def summed(tokens: Int[Array, "*any Q"], table: Float[Array, "V D"]) -> Float[Array, "*any D"]:
    """The sum of the Q token vectors of each frame."""
    return table[tokens].sum(axis=-2)


FRAME_VECTORS = {"concatenated": concatenated, "summed": summed}
"""How the vector of a frame is made of its tokens, by the names in the config."""


def place_text(
    frames: Float[Array, "B T D"], mapped: Float[Array, "B M D"], slots: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    """`frames`, each the one before its place, replaced by row `slots` of the mapped text vectors, by nothing where the
    slot is HIDDEN, by another frame where it is below, and kept where it is -1."""
    chosen = jnp.take_along_axis(mapped, jnp.maximum(slots, 0)[..., None], axis=1)
    after = jnp.clip(HIDDEN - slots, 0, slots.shape[1] - 1)  # where frame s of the row is the one before
    other = jnp.take_along_axis(frames, after[..., None], axis=1)
    kinds = [slots[..., None] >= 0, slots[..., None] == HIDDEN, slots[..., None] < HIDDEN]
    return jnp.select(kinds, [chosen, jnp.zeros_like(frames), other], frames)


def shift_frames(tokens: Int[Array, "B T Q"], positions: Int[Array, "B T"]) -> Int[Array, "B T Q"]:
    """The frame before each frame; at position 0 of an example, `<mega_global>`."""
    before = jnp.roll(tokens, 1, axis=1)
    return jnp.where(positions[..., None] == 0, GLOBAL_START, before)


def shift_slots(slots: Int[Array, "B T"], positions: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """The text slot of the frame before each frame; at position 0 of an example, none."""
    return jnp.where(positions == 0, -1, jnp.roll(slots, 1, axis=1))


def shift_tokens(tokens: Int[Array, "F Q"]) -> Int[Array, "F Q"]:
    """The token before each token of a frame; before the first, `<mega_local>`."""
    return jnp.roll(tokens, 1, axis=1).at[:, 0].set(LOCAL_START)
