"""What the conditions of an example hold at the same time as a frame that is to be predicted.

Phones with durations, semantic units, notes and audio to clean have one frame for each frame of the target. Attention
can find that frame, and has to learn how: the distance differs with the length of every stream. Here it is looked up.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from uniaudio_jax.vocab import END_MARKS, SPECIAL_IDS, START_MARKS

ALIGNED_KINDS = ("phone", "semantic", "sing_midi", "audio")
"""Kinds of streams that tell what sounds at each time; a speaker prompt tells of another time."""
NOTHING = -1
"""Stands for the ids of a frame where a stream holds nothing at that time."""


def aligned_frames(tokens: Int[Array, "B T Q"], positions: Int[Array, "B T"]) -> Int[Array, "B T K Q"]:
    """For each frame, the frame of each of the K `ALIGNED_KINDS` that lies as far behind its mark as this one does.

    A frame belongs to the stream whose mark came last before it. Of each kind the last stream that began before that
    one in the same example counts; where there is none, or it is shorter, the ids are NOTHING. What is found for a
    frame depends on the frames before it alone.
    """
    first, places = tokens[..., 0], jnp.arange(tokens.shape[1])[None]
    start = places - positions
    own = _last(jnp.isin(first, jnp.array(START_MARKS)), exclusive=True)
    last_end = _last(jnp.isin(first, jnp.array(END_MARKS)))
    found = []
    for kind in ALIGNED_KINDS:
        begun = _at(_last(first == SPECIAL_IDS[f"<{kind}_start>"], exclusive=True), own)
        source = begun + places - own
        is_there = (own >= start) & (begun >= start) & (source < own) & (_at(last_end, source) < begun)
        frames = jnp.take_along_axis(tokens, jnp.maximum(source, 0)[..., None], axis=1)
        found.append(jnp.where(is_there[..., None], frames, NOTHING))
    return jnp.stack(found, axis=2)


def _last(is_one: Bool[Array, "B T"], exclusive: bool = False) -> Int[Array, "B T"]:
    """The place of the last one up to each place, or before it; -1 where there is none."""
    last = jax.lax.cummax(jnp.where(is_one, jnp.arange(is_one.shape[1])[None], -1), axis=1)
    return jnp.pad(last, ((0, 0), (1, 0)), constant_values=-1)[:, :-1] if exclusive else last


def _at(values: Int[Array, "B T"], places: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """The values at places, of which negative ones stand for the first."""
    return jnp.take_along_axis(values, jnp.maximum(places, 0), axis=1)
