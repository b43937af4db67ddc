"""Levels and lengths: how two signals are brought to one length and to a ratio of levels."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from data_pipelines.corpora import ALIGNED_FIELDS, Clip
from data_pipelines.synthetic.levels import PEAK, rms

SILENT_PEAK = 2.0**-15
"""A clip that stays below one step of 16-bit audio is silent."""


def audible(clip: Clip) -> Float[np.ndarray, " S"]:
    """The audio of `clip`. Raises ValueError where it is missing or silent: silence has no level to mix at."""
    if clip.audio is None or not len(clip.audio):
        raise ValueError(f"clip {clip.id!r}: got no audio, wanted some to mix; leave the clip out of the corpus")
    if np.abs(clip.audio).max() < SILENT_PEAK:
        raise ValueError(
            f"clip {clip.id!r}: got silent audio (no sample reaches {SILENT_PEAK:.6f}), wanted something "
            "to hear; leave the clip out of the corpus"
        )
    return clip.audio


def fit_length(samples: Float[np.ndarray, " S1"], length: int, rng: np.random.Generator) -> Float[np.ndarray, " S"]:
    """`length` samples, cut or repeated from a random start; silent only if all of `samples` is."""
    if len(samples) <= length:
        return np.resize(np.roll(samples, -rng.integers(len(samples))), length)
    start = rng.integers(len(samples) - length + 1)
    if np.abs(samples[start : start + length]).max() < SILENT_PEAK:
        start = min(int(np.abs(samples).argmax()), len(samples) - length)
    return samples[start : start + length]


def mix(clip: Clip, name: str, added: Float[np.ndarray, " S"], ratio_db: float) -> Clip:
    """`clip` with the field `name`: its audio plus `added`, at `ratio_db` of the audio's power over that of `added`.

    All signals of the clip are scaled down together where the sum would clip.
    """
    audio = audible(clip).astype(np.float64)
    added = added * (rms(audio) / rms(added) * 10 ** (-ratio_db / 20))
    gain = safe_gain(audio + added)
    clip = scaled(clip, gain)
    return replace(clip, **{name: audible(clip) + (gain * added).astype(np.float32)})


def safe_gain(samples: Float[np.ndarray, " S"]) -> float:
    """The factor that keeps `samples` from clipping: 1 where they do not clip."""
    peak = float(np.abs(samples).max())
    return PEAK / peak if peak > 1 else 1.0


def scaled(clip: Clip, gain: float) -> Clip:
    """`clip` with its audio and all signals aligned with it multiplied by `gain`, so that their ratios stay."""
    names = [name for name in ("audio", "source_audio", *ALIGNED_FIELDS) if getattr(clip, name) is not None]
    return replace(clip, **{name: (gain * getattr(clip, name)).astype(np.float32) for name in names})
