"""Length of the estimate against that of the reference."""

from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores


def length_ratio(sample: Sample) -> Scores:
    """Length of the estimate over that of the reference; 1 is as long. Undefined where the reference is empty."""
    if not len(sample.reference):
        return {"length_ratio": NO_SCORE}
    return {"length_ratio": Score(len(sample.estimate) / len(sample.reference), 1.0)}
