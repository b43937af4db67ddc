"""Noise under a clip."""

import numpy as np

from data_pipelines.corpora import Clip
from data_pipelines.mixers.options import MixerOptions
from data_pipelines.mixers.pool import Pool
from data_pipelines.mixers.signals import audible, fit_length, mix
from data_pipelines.synthetic.noises import noise_clip

SHORTEST_NOISE_SECONDS = 1.0  # a shorter noise has no low pitches


def add_noise(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` with noisy_audio: its audio and a noise, at a ratio within snr_db.

    The noise is a sound of the pool, or a procedural one where the pool has no sounds. Raises ValueError for a silent
    clip.
    """
    samples, rate = len(audible(clip)), clip.sample_rate_hz
    sound = pool.sound(clip, rng)
    if sound is None:
        kind = options.noises[rng.integers(len(options.noises))]
        noise = noise_clip(rng, max(SHORTEST_NOISE_SECONDS, samples / rate), kind, clip.split, rate)
    else:
        noise = audible(sound)
    return mix(clip, "noisy_audio", fit_length(noise, samples, rng), rng.uniform(*options.snr_db))
