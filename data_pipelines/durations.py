"""How long each phone of a spoken sentence lasts: told by espeak, or found beside espeak's own speech.

A neural voice does not tell when its phones begin. espeak does, so the same words spoken by espeak are stretched onto
the recording by dynamic time warping, and the starts of the phones go with them.
"""

from collections.abc import Sequence

import librosa
import numpy as np
import soxr
from jaxtyping import Float

from data_pipelines import espeak
from data_pipelines.corpora import SAMPLE_RATE_HZ
from uniaudio_jax.metrics.alignment import warping_path

HOP_SECONDS, WINDOW_SECONDS = 0.01, 0.025
CEPSTRA = 13
PAUSE = "sil"

Durations = tuple[tuple[str, float], ...]
"""Phones in IPA, pauses as "sil", and their seconds: the field `phones` of a clip."""


def lengths_of(phones: Sequence[tuple[str, float]], seconds: float) -> Durations:
    """The lengths of phones of which the starts are known, in audio of so many seconds; what comes before is a pause.

    Starts beyond the end are moved there, so that the lengths sum to `seconds`.
    """
    starts = np.clip([0.0, *(start for _, start in phones), seconds], 0, seconds)
    names = [PAUSE, *(name or PAUSE for name, _ in phones)]
    lengths = np.diff(starts)
    return tuple((name, float(length)) for name, length in zip(names, lengths, strict=True) if length > 0)


def paced_phones(text: str, voice: str, words_per_minute: int) -> Durations:
    """The phones of `text` as an espeak voice speaks them at this pace, 80 to 450.

    Raises ValueError for a pace out of range, an unknown voice and a text that espeak does not speak.
    """
    speech = espeak.speak_with_phones(text, voice, words_per_minute=words_per_minute)
    return lengths_of(speech.phones, len(speech.samples) / speech.sample_rate_hz)


def aligned_phones(text: str, voice: str, wav: Float[np.ndarray, " S"], rate: int = SAMPLE_RATE_HZ) -> Durations:
    """The phones of `text` as `wav` speaks it; `voice` is the espeak voice whose speech is laid over it.

    Raises ValueError for a text that espeak does not speak, and for audio that is shorter than one window.
    """
    if len(wav) < WINDOW_SECONDS * rate:
        raise ValueError(f"aligned_phones: got {len(wav)} samples of {text!r}, wanted {WINDOW_SECONDS} s or more")
    guide = espeak.speak_with_phones(text, voice)
    guide_wav = soxr.resample(guide.samples, guide.sample_rate_hz, rate)
    frames, others, _ = warping_path(_features(guide_wav, rate), _features(wav, rate), "euclidean")
    times = np.interp([start / HOP_SECONDS for _, start in guide.phones], *_mean_path(frames, others)) * HOP_SECONDS
    return lengths_of([(name, time) for (name, _), time in zip(guide.phones, times, strict=True)], len(wav) / rate)


def _mean_path(frames: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each frame of the guide once, and the mean of the frames that lie beside it."""
    distinct, which = np.unique(frames, return_inverse=True)
    return distinct, np.bincount(which, others) / np.bincount(which)


def _features(wav: Float[np.ndarray, " S"], rate: int) -> Float[np.ndarray, "T F"]:
    """Cepstra and their slopes, each with mean 0 and deviation 1 over the utterance, so that voices compare."""
    cepstra = librosa.feature.mfcc(
        y=np.asarray(wav, np.float32),
        sr=rate,
        n_mfcc=CEPSTRA,
        hop_length=round(HOP_SECONDS * rate),
        n_fft=1 << (round(WINDOW_SECONDS * rate) - 1).bit_length(),
        win_length=round(WINDOW_SECONDS * rate),
    )
    both = np.concatenate([cepstra, librosa.feature.delta(cepstra, mode="nearest")])
    return ((both - both.mean(1, keepdims=True)) / (both.std(1, keepdims=True) + 1e-6)).T
