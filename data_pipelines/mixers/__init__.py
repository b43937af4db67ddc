"""Mixers: conditions derived from any stream of clips. Each makes one field of a `Clip`, in one file."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from data_pipelines.corpora import Clip, hash_of
from data_pipelines.mixers.edit import edit_audio
from data_pipelines.mixers.mask import mask_span
from data_pipelines.mixers.noise import add_noise
from data_pipelines.mixers.pair import pair_utterance
from data_pipelines.mixers.pool import MixerOptions, Pool, audible
from data_pipelines.mixers.room import reverberate
from data_pipelines.mixers.talker import add_talker

__all__ = ["DERIVED", "Mixer", "MixerOptions", "Pool", "derive"]

Mixer = Callable[[Clip, np.random.Generator, Pool, MixerOptions], Clip]


def own_content(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` with its own audio as content_audio: what is said is what shall be said."""
    return replace(clip, content_audio=audible(clip))


DERIVED: dict[str, Mixer] = {
    "source_audio": edit_audio,
    "noisy_audio": add_noise,
    "mixture_audio": add_talker,
    "reverberant_audio": reverberate,
    "masked_seconds": mask_span,
    "paired_audio": pair_utterance,
    "content_audio": own_content,
}
"""Field of a clip → the mixer that makes it, in the order in which they work: an edit first, for it changes `audio`."""


def derive(clip: Clip, wanted: Iterable[str], pool: Pool, options: MixerOptions, seed: int = 0) -> Clip:
    """`clip` with those of the `wanted` fields that it has not got and that can be derived.

    The random numbers of a field depend on seed, the clip's id and the field's name alone, so that neither the order
    of clips nor that of `wanted` matters. Other names in `wanted` are left to the caller. Raises ValueError, with the
    clip's id, where a mixer has nothing to mix.
    """
    wanted = set(wanted)
    for name, mixer in DERIVED.items():
        if name in wanted and getattr(clip, name) is None:
            clip = mixer(clip, np.random.default_rng(hash_of(f"{seed} {clip.id} {name}")), pool, options)
    return clip
