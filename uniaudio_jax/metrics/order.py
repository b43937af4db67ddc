"""Order: whether of two clips the faster one, and the higher one, is also generated faster and higher."""

import itertools
from collections.abc import Callable, Sequence

import librosa
import numpy as np

from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.pitch import cents
from uniaudio_jax.metrics.sample import Sample, waveforms_of

CLEAR_RATE = np.log(1.2)
"""The least that two clips differ in rate, as a logarithm, to have an order: a fifth."""
CLEAR_CENTS = 200.0
"""The least that they differ in pitch, two semitones."""
QUIET_DB = 40.0
"""Below the loudest frame, at which a clip's begin and end count as silence."""


def rate_order(samples: Sequence[Sample]) -> float | None:
    """The share of pairs whose faster clip is the faster one among the estimates too; chance is a half.

    The rate is the letters of the text over the seconds without silence at both ends. Pairs count whose references
    differ by a fifth; undefined where there are none. An estimate without sound is neither faster nor slower.
    """
    texts = [sample.text or "" for sample in samples]
    rates = [
        [_log_rate(text, wav, sample.sample_rate_hz) for wav in waveforms_of(sample)]
        for text, sample in zip(texts, samples, strict=True)
    ]
    return _ordered(rates, CLEAR_RATE)


def pitch_order(samples: Sequence[Sample]) -> float | None:
    """The share of pairs whose higher clip, by the median pitch, is the higher one among the estimates too; chance is a
    half.

    Pairs count whose references differ by two semitones; undefined where there are none. An estimate without a pitch is
    neither higher nor lower.
    """
    return _ordered([[_middle(cents(wav, s.sample_rate_hz)) for wav in waveforms_of(s)] for s in samples], CLEAR_CENTS)


def _ordered(values: Sequence[Sequence[float]], clear: float) -> float | None:
    """Of pairs of (reference, estimate) whose references clearly differ, the share with estimates in the same order."""
    pairs = [
        (second[0] - first[0]) * (second[1] - first[1]) > 0
        for first, second in itertools.combinations(values, 2)
        if abs(second[0] - first[0]) >= clear
    ]
    return float(np.mean(pairs)) if pairs else None


def _log_rate(text: str, wav: np.ndarray, sample_rate_hz: int) -> float:
    """The logarithm of letters per second; NaN where either is missing."""
    letters = sum(map(str.isalpha, text))
    if not letters or not wav.any():
        return float("nan")
    start, stop = librosa.effects.trim(wav, top_db=QUIET_DB)[1]
    return float(np.log(letters * sample_rate_hz / (stop - start)))


def _middle(curve: np.ndarray) -> float:
    voiced = curve[~np.isnan(curve)]
    return float(np.median(voiced)) if len(voiced) else float("nan")


def _kind(measure: Callable[[Sequence[Sample]], float | None], packages: tuple[str, ...] = ()) -> MetricKind:
    scales = {measure.__name__: Scale("higher", 0, 1)}
    return MetricKind(measure=measure, scales=scales, packages=packages, extra="quickstart", of_set=True)


RATE_ORDER = _kind(rate_order)
PITCH_ORDER = _kind(pitch_order, ("pyworld",))
