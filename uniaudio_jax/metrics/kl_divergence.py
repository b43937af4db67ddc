"""Divergence of the classes that a classifier hears in two sounds."""

import numpy as np
from jaxtyping import Float

from uniaudio_jax.metrics.judges import Judges, Model, named_model
from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.onnx_judge import judged
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores, free_waveforms

FLOOR = 1e-6


def kl_divergence(sample: Sample, model: Model) -> Scores:
    """KL divergence in nats from the classes of the reference to those of the estimate, lower is better.

    The chances of the given classifier, with a floor of 1e-6. An empty estimate is silence as long as the reference;
    undefined where that is empty.
    """
    reference, estimate = free_waveforms(sample)
    if not len(reference):
        return {"kl_divergence": NO_SCORE}
    wanted, heard = (chances(wav, sample.sample_rate_hz, model) for wav in (reference, estimate))
    return {"kl_divergence": Score(float(np.sum(wanted * np.log(wanted / heard))), 1.0)}


def chances(wav: Float[np.ndarray, " S"], rate_hz: int, model: Model) -> Float[np.ndarray, " K"]:
    """Chances of each class, averaged over the rows that the model gives. Raises ValueError for what are no chances."""
    rows = judged(wav, rate_hz, model)
    if (rows < 0).any() or not np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        raise ValueError(
            f"--judges.audio-classifier {model.path}: got outputs from {rows.min():.3g} to {rows.max():.3g} that sum "
            f"to {rows[0].sum():.3g}, wanted chances that sum to 1; export the model with a softmax at its end"
        )
    mean = np.maximum(rows.mean(axis=0, dtype=np.float64), FLOOR)
    return mean / mean.sum()


def classifier(judges: Judges) -> Model | None:
    return named_model(judges, "audio_classifier", rate_hz=judges.audio_classifier_rate_hz)


KL_DIVERGENCE = MetricKind(
    measure=kl_divergence,
    scales={"kl_divergence": Scale("lower", 0)},
    packages=("onnxruntime",),
    extra="metrics",
    model=classifier,
    judge="audio_classifier",
)
