"""Perceptual evaluation of speech quality."""

from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores, at_rate, waveforms
from uniaudio_jax.packages import load_package

RATE_HZ = 16000
WORST = 1.04
"""The value at the lowest raw score, -0.5, by equation 1 of P.862.2."""


def pesq(sample: Sample) -> Scores:
    """Wideband PESQ: about 1 (1.04 for silence) to 4.64, higher is better (ITU-T P.862.2, by the package pesq).

    Rates other than 16 kHz are resampled. Undefined where no utterance is found in the reference, or it is shorter
    than 0.25 s.
    """
    package = load_package("pesq", "metric pesq", "bash launch/install.sh metrics")
    reference, estimate = waveforms(sample)
    if not reference.any():
        return {"pesq": NO_SCORE}
    if not estimate.any():
        return {"pesq": Score(WORST, 1.0)}
    reference, estimate = (at_rate(wav, sample.sample_rate_hz, RATE_HZ) for wav in (reference, estimate))
    try:
        return {"pesq": Score(float(package.pesq(RATE_HZ, reference, estimate, "wb")), 1.0)}
    except package.PesqError:
        return {"pesq": NO_SCORE}


PESQ = MetricKind(
    measure=pesq, scales={"pesq": Scale("higher", 0.999, 4.64)}, packages=("pesq",), extra="metrics", rate_hz=RATE_HZ
)
