"""The encoder and decoder of a codec's config, of whichever layout, around a pure dict of parameters."""

import functools
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from uniaudio_jax.codec.config import CodecConfig, FrameRateConfig
from uniaudio_jax.codec.frame_rate import FrameRate
from uniaudio_jax.codec.seanet import Seanet


def build_module(config: CodecConfig, rngs: nnx.Rngs) -> FrameRate | Seanet:
    """The untrained encoder and decoder of a config."""
    if isinstance(config.layout, FrameRateConfig):
        return FrameRate(config.layout, config.quantizer.width, sample_rate_hz=config.sample_rate_hz, rngs=rngs)
    return Seanet(config.layout, config.quantizer.width, rngs=rngs)


@functools.cache
def skeleton(config: CodecConfig) -> tuple[Any, Any]:
    """(graph, abstract state) of a config's module."""
    return nnx.split(nnx.eval_shape(lambda: build_module(config, nnx.Rngs(0))))


def with_params(config: CodecConfig, params: dict) -> FrameRate | Seanet:
    """The module of a config around a pure dict of arrays; works inside jit."""
    graph, abstract = skeleton(config)
    state = jax.tree.map(lambda leaf: leaf, abstract)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)


def encode_vectors(
    module: FrameRate | Seanet, wav: Float[Array, "B S *C"], frames: Int[Array, " B"]
) -> Float[Array, "B T width"]:
    """Vectors of either layout; only the frame-rate one, whose rows may be padded, looks at each row's `frames`."""
    return module.encode(wav) if isinstance(module, Seanet) else module.encode(wav, frames)


def decode_vectors(
    module: FrameRate | Seanet, vectors: Float[Array, "B T width"], frames: Int[Array, " B"]
) -> Float[Array, "B S *C"]:
    """Waveforms of either layout; `frames` as in `encode_vectors`."""
    return module.decode(vectors) if isinstance(module, Seanet) else module.decode(vectors, frames)
