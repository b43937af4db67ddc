"""A codec's encoder, decoder and codebooks, compiled: rows of samples to codes and back, and the same for streams."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from uniaudio_jax.codec import rvq
from uniaudio_jax.codec.config import CodecConfig
from uniaudio_jax.codec.layouts.base import CodecModule
from uniaudio_jax.codec.layouts.streaming import Chain, Windowed
from uniaudio_jax.codec.module import with_params


class Network:
    """Runs rows of about the same length together: of equal length where the layout cannot pad rows."""

    def __init__(self, config: CodecConfig, params: dict):
        modules = {name: value for name, value in params.items() if name != "quantizer"}
        self.layout, modules = config.layout.for_inference(modules)
        self.config = dataclasses.replace(config, layout=self.layout)
        self.params = jax.tree.map(jnp.asarray, modules)
        self.codebooks = jnp.asarray(params["quantizer"]["codebooks"], jnp.float32)

    def apply(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """`function(module, *inputs)`, compiled once for each function and shapes of inputs."""
        return _apply(function, self.config, self.params, *inputs)

    def encode(self, wavs: Sequence[Float[np.ndarray, " S *C"]], levels: int) -> list[Int[np.ndarray, "T Q"]]:
        """int16 codes of the first `levels` codebooks, for waveforms that `row_length` gives the same length."""
        batch, frames = self._rows(wavs, self.layout.hop_samples)
        codes = np.asarray(_quantise(self.apply(_encode, batch, frames), self.codebooks, levels))
        return [row[:count].copy() for row, count in zip(codes, frames[: len(wavs)], strict=False)]

    def decode(self, codes: Sequence[Int[np.ndarray, "T Q"]]) -> list[Float[np.ndarray, " S *C"]]:
        """Waveforms of codes that `row_length` gives the same length."""
        batch, frames = self._rows(codes, 1)
        wavs = np.asarray(self.apply(_decode, _dequantise(batch, self.codebooks), frames))
        samples = frames[: len(codes)] * self.layout.hop_samples
        return [row[:count].copy() for row, count in zip(wavs, samples, strict=False)]

    def row_length(self, length: int, per_frame: int) -> int:
        """The length that an item of `length`, `per_frame` entries a frame, has as a row of a batch."""
        return _bucket(-(-length // per_frame)) * per_frame if self.layout.pads_rows else length

    def _rows(self, items: Sequence[np.ndarray], per_frame: int) -> tuple[np.ndarray, np.ndarray]:
        """(items padded to rows of one array, frames of each row); empty rows fill up to a power of two."""
        length, rows = self.row_length(len(items[0]), per_frame), 1 << (len(items) - 1).bit_length()
        batch, frames = np.zeros((rows, length, *items[0].shape[1:]), items[0].dtype), np.zeros(rows, np.int32)
        for row, item in enumerate(items):
            batch[row, : len(item)], frames[row] = item, -(-len(item) // per_frame)
        return batch, frames

    def encoder_chain(self, levels: int) -> Chain:
        """Stages from samples to codes of the first `levels` codebooks."""
        stages = self.layout.encoder_stages(self.apply)
        if stages:
            return Chain([*stages, _pointwise(lambda vectors: _quantise(vectors, self.codebooks, levels))])
        margin, hop = self.layout.margin_frames, self.layout.hop_samples
        return Chain([Windowed(lambda wav: self.encode([wav], levels)[0], left=margin, right=margin, enter=hop)])

    def decoder_chain(self) -> Chain:
        """Stages from codes to samples."""
        stages = self.layout.decoder_stages(self.apply)
        if stages:
            return Chain([_pointwise(lambda codes: _dequantise(codes, self.codebooks)), *stages])
        margin, hop = self.layout.margin_frames, self.layout.hop_samples
        return Chain([Windowed(lambda codes: self.decode([codes])[0], left=margin, right=margin, leave=hop)])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(function: Callable[..., Any], config: CodecConfig, params: dict, *inputs: Any) -> Any:
    return function(with_params(config, params), *inputs)


def _encode(module: CodecModule, wav: Array, frames: Array) -> Array:
    return module.encode(wav, frames)


def _decode(module: CodecModule, vectors: Array, frames: Array) -> Array:
    return module.decode(vectors, frames)


@functools.partial(jax.jit, static_argnames="levels")
def _quantise(vectors: Array, codebooks: Array, levels: int) -> Array:
    return rvq.encode(vectors, codebooks[:levels]).astype(jnp.int16)


_dequantise = jax.jit(rvq.decode)


def _pointwise(run: Callable[[np.ndarray], Any]) -> Windowed:
    return Windowed(run, left=0, right=0)


def _bucket(count: int) -> int:
    """The next of 32, 48, 64, 96, 128, 192, …: a bounded set of compiled shapes, at most a third of padding."""
    size = 32
    while size < count:
        if size + size // 2 >= count:
            return size + size // 2
        size *= 2
    return size
