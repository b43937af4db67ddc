"""What the conditions of an example hold at the time of a frame that is to be predicted, and a little later.

Phones with durations, semantic units, notes and audio to clean have one frame for each frame of the target. Attention
can find that frame, and has to learn how: the distance differs with the length of every stream. Here it is looked up.
Frames ahead of it tell how the sound goes on: how long a phone still lasts, and into which one it turns.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from uniaudio_jax.vocab import END_MARKS, SPECIAL_IDS, START_MARKS

ALIGNED_KINDS = ("phone", "semantic", "sing_midi", "audio")
"""Kinds of streams that tell what sounds at each time; a speaker prompt tells of another time."""
NOTHING = -1
"""Stands for the place, and for the ids, where a stream holds nothing at that time."""


def aligned_places(
    tokens: Int[Array, "B T Q"], positions: Int[Array, "B T"], ahead: tuple[int, ...]
) -> Int[Array, "B T A K"]:
    """For each frame, the places in its row that lie as far behind the mark of each of the K `ALIGNED_KINDS` as this
    frame behind its own, and each of the A `ahead` further.

    A frame belongs to the stream whose mark came last before it. Of each kind the last stream that began before that
    one in the same example counts; where there is none, or it is shorter, the place is NOTHING. What is found for a
    frame depends on the frames before it alone.
    """
    first, places = tokens[..., 0], jnp.arange(tokens.shape[1])[None]
    start = places - positions
    own = _last(jnp.isin(first, jnp.array(START_MARKS)), exclusive=True)
    last_end = _last(jnp.isin(first, jnp.array(END_MARKS)))
    marks = [SPECIAL_IDS[f"<{kind}_start>"] for kind in ALIGNED_KINDS]
    begun = jnp.stack([_at(_last(first == mark, exclusive=True), own) for mark in marks], axis=-1)[:, :, None]
    own, start = (of_frame[:, :, None, None] for of_frame in (own, start))
    place = begun + places[:, :, None, None] - own + jnp.array(ahead, jnp.int32)[:, None]
    ended = _at(last_end, place.reshape(len(first), -1)).reshape(place.shape)
    is_there = (own >= start) & (begun >= start) & (place < own) & (ended < begun)
    return jnp.where(is_there, place, NOTHING)


def aligned_frames(
    tokens: Int[Array, "B T Q"], positions: Int[Array, "B T"], ahead: tuple[int, ...]
) -> Int[Array, "B T A K Q"]:
    """The frames at the `aligned_places`, whose ids are NOTHING where there are none."""
    places = aligned_places(tokens, positions, ahead)[..., None]
    return jnp.where(places != NOTHING, frames_at(tokens, places[..., 0]), NOTHING)


def frames_at(frames: Shaped[Array, "B T D"], places: Int[Array, "B T A K"]) -> Shaped[Array, "B T A K D"]:
    """What the frames of each row hold at places; NOTHING stands for the first."""
    chosen = jnp.take_along_axis(frames, jnp.maximum(places, 0).reshape(len(frames), -1, 1), axis=1)
    return chosen.reshape(*places.shape, frames.shape[-1])


def frames_ahead(
    frames: Float[Array, "B T D"], first: Int[Array, "B T"], ahead: tuple[int, ...]
) -> tuple[Float[Array, "B T A D"], Bool[Array, "B T A"]]:
    """The frame so many places ahead of each, and whether it lies in the same stream. first: the first id of each."""
    ends = jnp.cumsum(jnp.isin(first, jnp.array(END_MARKS)), axis=1)
    more = ((0, 0), (0, max(ahead)))
    padded, ends_later = jnp.pad(frames, (*more, (0, 0))), jnp.pad(ends, more, constant_values=NOTHING)
    length = frames.shape[1]
    found = [padded[:, place : place + length] for place in ahead]
    same = [ends_later[:, place : place + length] == ends for place in ahead]
    return jnp.stack(found, axis=2), jnp.stack(same, axis=2)


def _last(is_one: Bool[Array, "B T"], exclusive: bool = False) -> Int[Array, "B T"]:
    """The place of the last one up to each place, or before it; -1 where there is none."""
    last = jax.lax.cummax(jnp.where(is_one, jnp.arange(is_one.shape[1])[None], -1), axis=1)
    return jnp.pad(last, ((0, 0), (1, 0)), constant_values=-1)[:, :-1] if exclusive else last


def _at(values: Int[Array, "B T"], places: Int[Array, "B N"]) -> Int[Array, "B N"]:
    """The values at places, of which negative ones stand for the first, and those beyond the end for the last."""
    return jnp.take_along_axis(values, jnp.clip(places, 0, values.shape[1] - 1), axis=1)
