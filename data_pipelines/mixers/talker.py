"""Another talker over a clip."""

import numpy as np

from data_pipelines.corpora import Clip
from data_pipelines.mixers.noise import fitted, mix
from data_pipelines.mixers.pool import MixerOptions, Pool, audible


def add_talker(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` with mixture_audio: its audio and another speaker's, cut or repeated, at a ratio within talker_db.

    Both signals are scaled down together when they would clip. Raises ValueError for a silent clip, and where the
    split has no other speaker.
    """
    samples = len(audible(clip))
    other = fitted(audible(pool.other_speaker(clip, rng)), samples, rng)
    return mix(clip, "mixture_audio", other, rng.uniform(*options.talker_db))
