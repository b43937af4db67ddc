"""Distances of mel spectra, frame by frame and over aligned frames."""

import numpy as np

from uniaudio_jax.audio.spectra import log_mel_frames, mel_distance
from uniaudio_jax.metrics.alignment import warping_path
from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores, free_waveforms, waveforms


def same_time_mel_distance(sample: Sample) -> Scores:
    """Mean absolute difference of the natural logarithms of 80 mel magnitudes (window 1024, hop 256); lower is better.

    Silence has a value: magnitudes have a floor of 1e-5, where a full-scale sine is about 1. Undefined where the
    reference is empty.
    """
    reference, estimate = waveforms(sample)
    if not len(reference):
        return {"mel_distance": NO_SCORE}
    return {"mel_distance": Score(mel_distance(reference, estimate, sample.sample_rate_hz), 1.0)}


def aligned_mel_distance(sample: Sample) -> Scores:
    """The mel distance at any pace: over the pairs of frames of the `warping_path` on which it is least.

    0 for the reference at another speed of the same sounds. An empty estimate is silence as long as the reference;
    undefined where that is empty.
    """
    reference, estimate = free_waveforms(sample)
    if not len(reference):
        return {"aligned_mel_distance": NO_SCORE}
    mels, others = (log_mel_frames(wav, sample.sample_rate_hz) for wav in (reference, estimate))
    _, _, distances = warping_path(mels, others, "cityblock")
    return {"aligned_mel_distance": Score(float(np.mean(distances)) / mels.shape[1], 1.0)}


MEL_DISTANCE = MetricKind(measure=same_time_mel_distance, scales={"mel_distance": Scale("lower", 0)})
ALIGNED_MEL_DISTANCE = MetricKind(measure=aligned_mel_distance, scales={"aligned_mel_distance": Scale("lower", 0)})
