"""Noise under a clip; and how any two signals are brought to a length, a ratio and a level."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from data_pipelines.corpora import ALIGNED_FIELDS, Clip
from data_pipelines.mixers.pool import SILENT_PEAK, MixerOptions, Pool, audible
from data_pipelines.synthetic.levels import PEAK
from data_pipelines.synthetic.noises import noise_clip

LEAST_NOISE_SECONDS = 1.0  # of fewer samples, no low-pitched noise can be made


def add_noise(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` with noisy_audio: its audio and a noise, at a ratio within snr_db.

    The noise is one of the pool's sounds, or a procedural one where it has none. Both signals are scaled down together
    when they would clip. Raises ValueError for a silent clip.
    """
    samples = len(audible(clip))
    sound = pool.sound(clip, rng)
    if sound is None:
        kind = options.noises[rng.integers(len(options.noises))]
        seconds = max(LEAST_NOISE_SECONDS, samples / clip.sample_rate_hz)
        noise = noise_clip(rng, seconds, kind, clip.split, clip.sample_rate_hz)
    else:
        noise = audible(sound)
    return mix(clip, "noisy_audio", fitted(noise, samples, rng), rng.uniform(*options.snr_db))


def fitted(samples: Float[np.ndarray, " S1"], length: int, rng: np.random.Generator) -> Float[np.ndarray, " S"]:
    """`length` of `samples`, cut or repeated from a random place; never silent unless all of `samples` is."""
    if len(samples) <= length:
        return np.resize(np.roll(samples, -rng.integers(len(samples))), length)
    start = rng.integers(len(samples) - length + 1)
    if np.abs(samples[start : start + length]).max() < SILENT_PEAK:
        start = min(int(np.abs(samples).argmax()), len(samples) - length)
    return samples[start : start + length]


def mix(clip: Clip, name: str, other: Float[np.ndarray, " S"], ratio_db: float) -> Clip:
    """`clip` with the field `name`: its audio plus `other`, which is brought to `ratio_db` below the audio's power."""
    audio = audible(clip).astype(np.float64)
    other = other * (rms(audio) / rms(other) * 10 ** (-ratio_db / 20))
    gain = safe_gain(audio + other)
    clip = scaled(clip, gain)
    return replace(clip, **{name: audible(clip) + (gain * other).astype(np.float32)})


def rms(samples: Float[np.ndarray, " S"]) -> float:
    """The root mean square of `samples`."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def safe_gain(samples: Float[np.ndarray, " S"]) -> float:
    """What `samples` must be scaled by so as not to clip: 1 where they do not."""
    peak = float(np.abs(samples).max())
    return PEAK / peak if peak > 1 else 1.0


def scaled(clip: Clip, gain: float) -> Clip:
    """`clip` with its audio and all signals that lie along it scaled alike, so that their ratios stay."""
    names = [name for name in ("audio", "source_audio", *ALIGNED_FIELDS) if getattr(clip, name) is not None]
    return replace(clip, **{name: (gain * getattr(clip, name)).astype(np.float32) for name in names})
