"""Mel cepstral distortion."""

import numpy as np
import scipy.fft
from jaxtyping import Float

from uniaudio_jax.audio.spectra import log_mel_frames
from uniaudio_jax.metrics.alignment import warping_path
from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores, free_waveforms

COEFFICIENTS = 13


def mel_cepstral_distortion_db(sample: Sample) -> Scores:
    """MCD in dB over coefficients 1 to 13, lower is better (Kubichek 1993), at any pace.

    10 / ln 10 * sqrt(2 * sum of squared differences), averaged over the pairs of frames of the `warping_path`. The
    cepstra are of our 80 mel magnitudes, not of WORLD's or SPTK's envelopes: compare with others' numbers in order
    only. Without coefficient 0 a gain changes nothing. An empty estimate is silence as long as the reference; undefined
    where that is empty.
    """
    reference, estimate = free_waveforms(sample)
    if not len(reference):
        return {"mel_cepstral_distortion_db": NO_SCORE}
    ours, theirs = (mel_cepstra(log_mel_frames(wav, sample.sample_rate_hz)) for wav in (reference, estimate))
    _, _, distances = warping_path(ours, theirs, "euclidean")
    decibels = float(10 / np.log(10) * np.sqrt(2) * np.mean(distances))
    return {"mel_cepstral_distortion_db": Score(decibels, 1.0)}


def mel_cepstra(log_mels: Float[np.ndarray, "T M"]) -> Float[np.ndarray, "T 13"]:
    """Coefficients 1 to 13 of log spectra, so that log S = c0 + the sum of ck cos(k w)."""
    return np.asarray(scipy.fft.dct(log_mels, axis=1))[:, 1 : COEFFICIENTS + 1] / log_mels.shape[1]


MEL_CEPSTRAL_DISTORTION = MetricKind(
    measure=mel_cepstral_distortion_db, scales={"mel_cepstral_distortion_db": Scale("lower", 0)}
)
