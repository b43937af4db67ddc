"""CLAP score: whether a sound is what its caption says."""

from uniaudio_jax.metrics.judges import Judges, Model, named_model
from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores, at_rate, waveforms_of
from uniaudio_jax.metrics.transformers_folder import INSTALL, open_folder
from uniaudio_jax.metrics.vectors import cosine
from uniaudio_jax.packages import load_package

RATE_HZ = 48000
"""Of every CLAP model of transformers; its feature extractor refuses another."""


def clap_score(sample: Sample, model: Model) -> Scores:
    """Cosine of the embeddings of the estimate and the text by the given CLAP, -1 to 1, higher is better.

    0 for a silent or empty estimate; undefined where there is no text.
    """
    wav = at_rate(waveforms_of(sample)[1], sample.sample_rate_hz, model.rate_hz)
    if sample.text is None:
        return {"clap_score": NO_SCORE}
    if not wav.any():
        return {"clap_score": Score(0.0, 1.0)}
    torch = load_package("torch", "metric clap_score", INSTALL)
    prepare, network = open_folder(str(model.path.parent), "ClapProcessor", "ClapModel", "clap_score")
    inputs = prepare(text=[sample.text], audio=[wav], sampling_rate=model.rate_hz, return_tensors="pt")
    with torch.inference_mode():
        result = network(**inputs)
    return {"clap_score": Score(cosine(result.text_embeds[0].numpy(), result.audio_embeds[0].numpy()), 1.0)}


def clap_model(judges: Judges) -> Model | None:
    return named_model(judges, "clap", "model.safetensors", RATE_HZ)


CLAP_SCORE = MetricKind(
    measure=clap_score,
    scales={"clap_score": Scale("higher", -1, 1)},
    packages=("transformers", "torch"),
    extra="judges",
    model=clap_model,
    judge="clap",
)
