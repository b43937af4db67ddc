"""What every metric takes and gives: a sample, and its scores."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import soxr
from jaxtyping import Float, Num


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An estimate beside its reference: waveforms [S] at `sample_rate_hz`, or ids [n] where a task generates text.

    id: of the clip. text, estimate_text: the words of the reference and of the estimate, where they are known.
    conditions: what the estimate was generated from, audio as waveforms. speaker: the reference's, or the clip's id
    where the corpus names no speaker.
    """

    reference: Num[np.ndarray, " S"]
    estimate: Num[np.ndarray, " E"]
    sample_rate_hz: int
    id: str = ""
    text: str | None = None
    estimate_text: str | None = None
    conditions: Mapping[str, np.ndarray] = field(default_factory=dict)
    speaker: str = ""


class Score(NamedTuple):
    """What one sample adds to a metric, which is the sum of the totals over the sum of the weights.

    A mean over samples has the weight 1 for each; an error rate has errors as totals and reference lengths as weights.
    """

    total: float
    weight: float


Scores = dict[str, Score]
"""The scores of one sample by name."""
NO_SCORE = Score(0.0, 0.0)
"""The score of a sample on which the metric is undefined: it changes no mean."""


def mean_score(scores: Iterable[Score]) -> float | None:
    """The metric over all samples, or None where it is undefined on every one."""
    totals, weights = np.array([*scores, NO_SCORE]).sum(axis=0)
    return float(totals / weights) if weights else None


def waveforms_of(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The reference and the estimate in float32, each at its own length. Raises ValueError for what is no waveform."""
    for name, signal in (("reference", sample.reference), ("estimate", sample.estimate)):
        if signal.ndim != 1 or not np.isfinite(signal).all():
            raise ValueError(f"metrics: got {name} of shape {signal.shape}, wanted finite samples [S]")
    return sample.reference.astype(np.float32), sample.estimate.astype(np.float32)


def waveforms(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The reference and the estimate in float32 at the length of the reference.

    The estimate is cut, or padded with silence, to that length, so that an empty one is judged as silence.
    """
    reference, estimate = waveforms_of(sample)
    samples = len(reference)
    missing = max(0, samples - len(estimate))
    return reference, np.pad(estimate, (0, missing))[:samples]


def free_waveforms(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The reference and the estimate in float32, each at its own length, but for an empty estimate: that is silence as
    long as the reference."""
    reference, estimate = waveforms_of(sample)
    return reference, estimate if len(estimate) else np.zeros_like(reference)


def at_rate(wav: Float[np.ndarray, " S"], rate_hz: int, wanted_hz: int) -> Float[np.ndarray, " W"]:
    """A waveform in float32 at another sample rate."""
    if rate_hz == wanted_hz or not len(wav):
        return wav.astype(np.float32)
    return np.asarray(soxr.resample(wav, rate_hz, wanted_hz), np.float32)
