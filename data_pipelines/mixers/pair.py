"""Two utterances, by one speaker or by two."""

from dataclasses import replace

import numpy as np

from data_pipelines.corpora import Clip
from data_pipelines.mixers.options import MixerOptions
from data_pipelines.mixers.pool import Pool
from data_pipelines.mixers.signals import audible


def pair_utterance(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` with paired_audio and same_speaker: half of the clips are paired with another clip of their speaker.

    Raises ValueError for a speaker with a single utterance, and where the split has no other speaker.
    """
    same = bool(rng.integers(2))
    # A speaker with a single utterance is refused whichever way the coin falls: leaving it out keeps the halves.
    partner = pool.same_speaker(clip, rng)
    if not same:
        partner = pool.other_speaker(clip, rng)
    return replace(clip, paired_audio=audible(partner), same_speaker=same)
