"""Short-time objective intelligibility of speech."""

import warnings

from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores, waveforms
from uniaudio_jax.packages import load_package


def stoi(sample: Sample) -> Scores:
    """STOI: up to 1, higher is better, about 0 for silence (Taal et al. 2011, by pystoi).

    Undefined where the reference holds less than about 0.4 s of sound, which is one window of the metric.
    """
    pystoi = load_package("pystoi", "metric stoi", "bash launch/install.sh quickstart")
    reference, estimate = waveforms(sample)
    if not reference.any():
        return {"stoi": NO_SCORE}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
        try:
            return {"stoi": Score(float(pystoi.stoi(reference, estimate, sample.sample_rate_hz)), 1.0)}
        except (RuntimeWarning, ValueError, IndexError):  # the last two: shorter than one frame of the metric
            return {"stoi": NO_SCORE}


STOI = MetricKind(
    measure=stoi, scales={"stoi": Scale("higher", -1, 1)}, packages=("pystoi",), extra="quickstart", rate_hz=10000
)
