"""Confidence intervals by the bootstrap: what a metric would be over other clips of the same kind.

The clips are drawn anew with replacement DRAWS times (Efron and Tibshirani 1993, chapter 13); an interval goes from the
2.5th to the 97.5th percentile of what the metric is over them. Of two systems the same clips are drawn for both.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from uniaudio_jax.metrics.sample import NO_SCORE, Score

DRAWS = 2000
LEVEL = 0.95
"""Share of the drawn values that lie in an interval."""


class Interval(NamedTuple):
    """A value and the ends of its interval; both are None where fewer than two clips have a score."""

    value: float
    low: float | None
    high: float | None


def interval_of(scores: Sequence[Score]) -> Interval | None:
    """The metric over all clips with its interval, or None where it is undefined on every clip."""
    scores = [score for score in scores if score != NO_SCORE]
    return _interval(np.array(scores)[None]) if scores else None


def interval_of_difference(ours: Sequence[Score], theirs: Sequence[Score]) -> Interval | None:
    """The first system's metric less the second's, over the clips, in one order, on which both are defined."""
    pairs = [pair for pair in zip(ours, theirs, strict=True) if NO_SCORE not in pair]
    return _interval(np.array(pairs).transpose(1, 0, 2)) if pairs else None


def _interval(scores: np.ndarray) -> Interval | None:
    """Of one system's scores [1, n, 2], or of the difference of two systems' [2, n, 2]; a score is a total and a
    weight."""
    value = _difference(scores.sum(axis=1))
    if not np.isfinite(value):  # all references are empty
        return None
    clips = scores.shape[1]
    if clips < 2:
        return Interval(float(value), None, None)
    drawn = np.random.default_rng(0).integers(clips, size=(DRAWS, clips))
    values = _difference(scores[:, drawn].sum(axis=2))
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values[np.isfinite(values)], (tail, 100 - tail))
    return Interval(float(value), float(low), float(high))


def _difference(sums: np.ndarray) -> np.ndarray:
    """Totals over weights [systems, ..., 2] of the first system, less those of the second if there is one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        means = sums[..., 0] / sums[..., 1]
    return means[0] - means[1] if len(means) == 2 else means[0]
