"""Whether the estimate sounds like the voice that it should have."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from uniaudio_jax.metrics.judges import Judges, Model, named_model, packaged_model
from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores, at_rate, waveforms_of
from uniaudio_jax.metrics.transformers_folder import INSTALL, open_folder
from uniaudio_jax.metrics.vectors import cosine
from uniaudio_jax.packages import load_package, stand_in
from uniaudio_jax.tasks import DRAWN

LOUDNESS = 10 ** (-30 / 20)
"""Root mean square to which Resemblyzer makes quieter speech louder."""


def speaker_similarity(sample: Sample, model: Model) -> Scores:
    """Cosine of the voices by Resemblyzer, as `similarity`; about 0.9 for one voice, 0.6 for two.

    Unlike the package's own preparation, silences are left in: that needs a voice detector which must be compiled.
    """
    return {"speaker_similarity": similarity(sample, model, resemblyzer_vector)}


def xvector_similarity(sample: Sample, model: Model) -> Scores:
    """Cosine of the voices by the given WavLM with an x-vector head, as `similarity`."""
    return {"xvector_similarity": similarity(sample, model, xvector)}


def similarity(sample: Sample, model: Model, embed: Callable[[np.ndarray, Model], np.ndarray]) -> Score:
    """Cosine of the embeddings of the estimate and the speaker prompt; of the reference in a task without a prompt.

    0 for a silent or empty estimate; undefined where what it should sound like is silent or empty.
    """
    reference, estimate = waveforms_of(sample)
    wanted = sample.conditions.get(DRAWN, reference)
    voices = [at_rate(wav, sample.sample_rate_hz, model.rate_hz) for wav in (wanted, estimate)]
    if not voices[0].any():
        return NO_SCORE
    if not voices[1].any():
        return Score(0.0, 1.0)
    return Score(cosine(embed(voices[0], model), embed(voices[1], model)), 1.0)


def resemblyzer_vector(wav: Float[np.ndarray, " S"], model: Model) -> Float[np.ndarray, " 256"]:
    """Resemblyzer's embedding; in one thread, as PyTorch's LSTM is 200 times slower beside other libraries' threads."""
    gain = max(1.0, LOUDNESS / float(np.sqrt(np.mean(wav**2))))
    with threadpool_limits(1, "openmp"):
        return _resemblyzer().embed_utterance(gain * wav)


@functools.cache
def _resemblyzer() -> Any:
    with stand_in("webrtcvad"):
        return load_package("resemblyzer", "metric speaker_similarity", INSTALL).VoiceEncoder("cpu", verbose=False)


def xvector(wav: Float[np.ndarray, " S"], model: Model) -> Float[np.ndarray, " D"]:
    """The embedding of a WavLMForXVector, of a waveform of mean 0 and variance 1 where the model's folder says so."""
    torch = load_package("torch", "metric xvector_similarity", INSTALL)
    folder, metric = str(model.path.parent), "xvector_similarity"
    prepare, network = open_folder(folder, "Wav2Vec2FeatureExtractor", "WavLMForXVector", metric)
    inputs = prepare(wav, sampling_rate=model.rate_hz, return_tensors="pt")
    with torch.inference_mode():
        return network(**inputs).embeddings[0].numpy()


def resemblyzer_model(judges: Judges) -> Model | None:
    return packaged_model("resemblyzer", "pretrained.pt")


def xvector_model(judges: Judges) -> Model | None:
    return named_model(judges, "xvector", "model.safetensors")


SPEAKER_SIMILARITY = MetricKind(
    measure=speaker_similarity,
    scales={"speaker_similarity": Scale("higher", 0, 1)},
    packages=("resemblyzer", "torch"),
    extra="judges",
    model=resemblyzer_model,
)
XVECTOR_SIMILARITY = MetricKind(
    measure=xvector_similarity,
    scales={"xvector_similarity": Scale("higher", -1, 1)},
    packages=("transformers", "torch"),
    extra="judges",
    model=xvector_model,
    judge="xvector",
)
