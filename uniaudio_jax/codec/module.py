"""The encoder and decoder of a codec's config, of whichever layout, around a pure dict of parameters."""

import functools
from typing import Any

import jax
from flax import nnx

from uniaudio_jax.codec.config import CodecConfig
from uniaudio_jax.codec.layouts.base import CodecModule


def build_module(config: CodecConfig, rngs: nnx.Rngs) -> CodecModule:
    """The untrained encoder and decoder of a config."""
    return config.layout.build(config.quantizer.width, sample_rate_hz=config.sample_rate_hz, rngs=rngs)


@functools.cache
def skeleton(config: CodecConfig) -> tuple[Any, Any]:
    """(graph, abstract state) of a config's module."""
    return nnx.split(nnx.eval_shape(lambda: build_module(config, nnx.Rngs(0))))


def with_params(config: CodecConfig, params: dict) -> CodecModule:
    """The module of a config around a pure dict of arrays; works inside jit."""
    graph, abstract = skeleton(config)
    state = jax.tree.map(lambda leaf: leaf, abstract)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)
