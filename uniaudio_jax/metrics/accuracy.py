"""Share of samples whose ids are all right."""

from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import Sample, Score, Scores


def accuracy(sample: Sample) -> Scores:
    """1 where the estimate has the ids of the reference, in any order, as labels have none; else 0."""
    return {"accuracy": Score(float(sorted(sample.reference.tolist()) == sorted(sample.estimate.tolist())), 1.0)}


ACCURACY = MetricKind(measure=accuracy, scales={"accuracy": Scale("higher", 0, 1)})
