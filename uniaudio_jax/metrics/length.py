"""Length of the estimate against that of the reference."""

from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores


def length_ratio(sample: Sample) -> Scores:
    """Length of the estimate over that of the reference; 1 is as long. Undefined where the reference is empty."""
    if not len(sample.reference):
        return {"length_ratio": NO_SCORE}
    return {"length_ratio": Score(len(sample.estimate) / len(sample.reference), 1.0)}


def duration_error_seconds(sample: Sample) -> Scores:
    """Seconds by which the estimate is longer or shorter than the reference; either may be empty."""
    seconds = abs(len(sample.estimate) - len(sample.reference)) / sample.sample_rate_hz
    return {"duration_error_seconds": Score(seconds, 1.0)}


LENGTH_RATIO = MetricKind(measure=length_ratio, scales={"length_ratio": Scale("nearer to 1", 0)})
DURATION_ERROR = MetricKind(measure=duration_error_seconds, scales={"duration_error_seconds": Scale("lower", 0)})
