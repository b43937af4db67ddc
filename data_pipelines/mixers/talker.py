"""Another talker over a clip."""

import numpy as np

from data_pipelines.corpora import Clip
from data_pipelines.mixers.options import MixerOptions
from data_pipelines.mixers.pool import Pool
from data_pipelines.mixers.signals import audible, fit_length, mix


def add_talker(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` with mixture_audio: its audio and another speaker's, cut or repeated, at a ratio within talker_db.

    Raises ValueError for a silent clip, and where the split has no other speaker.
    """
    samples = len(audible(clip))
    talker = fit_length(audible(pool.other_speaker(clip, rng)), samples, rng)
    return mix(clip, "mixture_audio", talker, rng.uniform(*options.talker_db))
