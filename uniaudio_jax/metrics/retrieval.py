"""Retrieval: whether an estimate sounds most like its own reference, among those of all clips."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from uniaudio_jax.audio.spectra import log_mel_frames
from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import Sample, free_waveforms

LEAST_SPREAD = 1e-3
"""Added to the spread of a number among the references, which may all have the same."""


def retrieval_at_1(samples: Sequence[Sample]) -> float | None:
    """The share of estimates whose own reference is the nearest of all; chance is one over the number of clips.

    Clips are compared by the mean and the spread of each band of their log-mel spectra, each of these numbers in units
    of its spread among the references. An empty estimate is silence. Undefined for fewer than two clips, and where a
    reference is empty.
    """
    pairs = [(*free_waveforms(sample), sample.sample_rate_hz) for sample in samples]
    if len(pairs) < 2 or not all(len(reference) for reference, _, _ in pairs):
        return None
    references = np.stack([_statistics(reference, rate_hz) for reference, _, rate_hz in pairs])
    estimates = np.stack([_statistics(estimate, rate_hz) for _, estimate, rate_hz in pairs])
    spread = references.std(axis=0) + LEAST_SPREAD
    distances = np.square((estimates[:, None] - references) / spread).sum(axis=-1)
    return float(np.mean(distances.argmin(axis=1) == np.arange(len(pairs))))


def _statistics(wav: Float[np.ndarray, " S"], sample_rate_hz: int) -> Float[np.ndarray, " 160"]:
    frames = log_mel_frames(wav, sample_rate_hz)
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0)])


RETRIEVAL = MetricKind(measure=retrieval_at_1, scales={"retrieval_at_1": Scale("higher", 0, 1)}, of_set=True)
