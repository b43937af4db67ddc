"""Mixers: conditions derived from the clips of any corpus.

A mixer makes one field of a `Clip` and stands in a file of its own. To add one, write a function

    def add_echo(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
        return replace(clip, echo_audio=...)

and name its field in the registry below: `"echo_audio": add_echo`. A mixer works at the clip's own sample rate.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from data_pipelines.corpora import Clip, hash_of
from data_pipelines.mixers.edit import edit_audio
from data_pipelines.mixers.mask import mask_span
from data_pipelines.mixers.noise import add_noise
from data_pipelines.mixers.options import MixerOptions
from data_pipelines.mixers.pair import pair_utterance
from data_pipelines.mixers.pool import Pool
from data_pipelines.mixers.room import reverberate
from data_pipelines.mixers.signals import audible
from data_pipelines.mixers.talker import add_talker

__all__ = ["DERIVED", "Mixer", "MixerOptions", "Pool", "derive"]

Mixer = Callable[[Clip, np.random.Generator, Pool, MixerOptions], Clip]


def copy_content(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` with content_audio: a copy of its own audio, whose words a conversion shall keep."""
    return replace(clip, content_audio=audible(clip))


DERIVED: dict[str, Mixer] = {
    "source_audio": edit_audio,
    "noisy_audio": add_noise,
    "mixture_audio": add_talker,
    "reverberant_audio": reverberate,
    "masked_seconds": mask_span,
    "paired_audio": pair_utterance,
    "content_audio": copy_content,
}
"""Field of a clip → the mixer that makes it. They work in this order; an edit comes first, for it replaces `audio`."""


def derive(clip: Clip, wanted: Iterable[str], pool: Pool, options: MixerOptions, seed: int = 0) -> Clip:
    """`clip` with those of the `wanted` fields that it lacks and a mixer makes.

    The random numbers of a field depend on the seed, the clip's id and the field's name alone, so the order of clips
    and of `wanted` does not matter. Names in `wanted` that no mixer makes are ignored. Raises ValueError, with the
    clip's id, where a mixer has nothing to mix.
    """
    wanted = set(wanted)
    for name, mixer in DERIVED.items():
        if name in wanted and getattr(clip, name) is None:
            clip = mixer(clip, np.random.default_rng(hash_of(f"{seed} {clip.id} {name}")), pool, options)
    return clip
