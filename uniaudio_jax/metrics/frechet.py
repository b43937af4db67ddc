"""Fréchet distances: how far the sounds of a task are, all together, from the references."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from uniaudio_jax.codec.codec import Codec, load_codec
from uniaudio_jax.metrics.judges import Judges, Model, named_model
from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.onnx_judge import judged
from uniaudio_jax.metrics.sample import Sample, at_rate, waveforms_of
from uniaudio_jax.metrics.vectors import frechet_distance

CODEC = "tiny_16k"


def frechet_codec_distance(samples: Sequence[Sample], model: Model) -> float | None:
    """Distance of the frames that the shipped codec tiny_16k makes of the estimates and of the references.

    A frame is the sum of its quantised vectors, 64 wide, 20 ms long. This is not FAD, whose model knows sounds by
    name: only values of this metric compare. See `set_distance`.
    """
    return set_distance(samples, codec_vectors)


def frechet_audio_distance(samples: Sequence[Sample], model: Model) -> float | None:
    """FAD (Kilgour et al. 2019): distance of the embeddings of the given model, each row of its output one of them.

    See `set_distance`.
    """
    return set_distance(samples, lambda wav, rate_hz: judged(wav, rate_hz, model))


def set_distance(
    samples: Sequence[Sample], embed: Callable[[np.ndarray, int], Float[np.ndarray, "N D"]]
) -> float | None:
    """The Fréchet distance of the embeddings of all estimates and of all references, lower is better.

    It is 0 for the references themselves, and too high for few embeddings: compare sets of one size. An empty waveform
    has no embedding. Undefined for fewer than two samples, and for fewer than two embeddings on a side.
    """
    if len(samples) < 2:
        return None
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for sample in samples:
        for side, wav in zip(sides, waveforms_of(sample), strict=True):
            if len(wav):
                side.append(embed(wav, sample.sample_rate_hz))
    if not all(sides):
        return None
    return frechet_distance(*(np.concatenate(side) for side in sides))


def codec_vectors(wav: Float[np.ndarray, " S"], rate_hz: int) -> Float[np.ndarray, "T 64"]:
    """The sum of the quantised vectors of each frame of the shipped codec."""
    codec = _codec()
    codes = codec.encode(at_rate(wav, rate_hz, codec.sample_rate_hz))
    return codec.params["quantizer"]["codebooks"][np.arange(codec.codebooks), codes].sum(axis=1)


@functools.cache
def _codec() -> Codec:
    return load_codec(CODEC)


def codec_model(judges: Judges) -> Model:
    codec = _codec()
    return Model(Path(codec.name), codec.weights_sha256, codec.sample_rate_hz)


def embedding_model(judges: Judges) -> Model | None:
    return named_model(judges, "audio_embedding", rate_hz=judges.audio_embedding_rate_hz)


FRECHET_CODEC_DISTANCE = MetricKind(
    measure=frechet_codec_distance, scales={"frechet_codec_distance": Scale("lower", 0)}, model=codec_model, of_set=True
)
FRECHET_AUDIO_DISTANCE = MetricKind(
    measure=frechet_audio_distance,
    scales={"frechet_audio_distance": Scale("lower", 0)},
    packages=("onnxruntime",),
    extra="metrics",
    model=embedding_model,
    judge="audio_embedding",
    of_set=True,
)
