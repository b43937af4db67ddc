"""Distance of mel spectra."""

from uniaudio_jax.audio import spectra
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores, waveforms


def mel_distance(sample: Sample) -> Scores:
    """Mean absolute difference of the natural logarithms of 80 mel magnitudes (window 1024, hop 256); lower is better.

    Silence has a value: magnitudes have a floor of 1e-5, where a full-scale sine is about 1. Undefined where the
    reference is empty.
    """
    reference, estimate = waveforms(sample)
    if not len(reference):
        return {"mel_distance": NO_SCORE}
    return {"mel_distance": Score(spectra.mel_distance(reference, estimate, sample.sample_rate_hz), 1.0)}
