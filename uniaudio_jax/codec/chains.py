"""The stages of a SEANet codec for streams: convolutions in windows, the LSTM with its state, the quantiser's codes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uniaudio_jax.codec import rvq
from uniaudio_jax.codec.config import CodecConfig, SeanetConfig
from uniaudio_jax.codec.module import with_params
from uniaudio_jax.codec.seanet import Seanet, margins
from uniaudio_jax.codec.streaming import Chain, Recurrent, Windowed


def _seanet(config: CodecConfig, params: dict) -> Seanet:
    module = with_params(config, params)
    assert isinstance(module, Seanet)
    return module


@functools.partial(jax.jit, static_argnums=0)
def _encoder_before(config: CodecConfig, params: dict, wav: jax.Array) -> jax.Array:
    return _seanet(config, params).encoder.before(wav)


@functools.partial(jax.jit, static_argnums=0)
def _encoder_after(config: CodecConfig, params: dict, codebooks: jax.Array, x: jax.Array) -> jax.Array:
    return rvq.encode(_seanet(config, params).encoder.after(x), codebooks).astype(jnp.int16)


@functools.partial(jax.jit, static_argnums=0)
def _decoder_before(config: CodecConfig, params: dict, codebooks: jax.Array, codes: jax.Array) -> jax.Array:
    return _seanet(config, params).decoder.before(rvq.decode(codes, codebooks))


@functools.partial(jax.jit, static_argnums=0)
def _decoder_after(config: CodecConfig, params: dict, x: jax.Array) -> jax.Array:
    return _seanet(config, params).decoder.after(x)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _lstm(config: CodecConfig, side: str, params: dict, x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
    lstm = (_seanet(config, params).encoder if side == "encoder" else _seanet(config, params).decoder).lstm
    return lstm.advance(x, lstm.rest(x) if state is None else state)


def _recurrent(config: CodecConfig, side: str, params: dict) -> Recurrent:
    def run(x: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        y, state = _lstm(config, side, params, x[None], state)
        return np.asarray(y)[0], state

    return Recurrent(run)


def _windowed(run: Any, sides: tuple[int, int], enter: int = 1, leave: int = 1) -> Windowed:
    # At the start the mirror shows frames of the right side to the left one, so both must be there.
    left, right = sides
    return Windowed(
        lambda x: np.asarray(run(x[None]))[0], left=left, right=right, start=left + right + 1, enter=enter, leave=leave
    )


def encoder_chain(config: CodecConfig, params: dict, codebooks: jax.Array) -> Chain:
    """Samples [S] (or [S, C]) to int16 codes [T, K] of these codebooks."""
    assert isinstance(config.layout, SeanetConfig)
    sides, mono = margins(config.layout), config.layout.channels == 1

    def before(wav: np.ndarray) -> jax.Array:
        return _encoder_before(config, params, wav[..., None] if mono else wav)

    return Chain(
        [
            _windowed(before, sides.encoder_before, enter=config.hop_samples),
            _recurrent(config, "encoder", params),
            _windowed(functools.partial(_encoder_after, config, params, codebooks), sides.encoder_after),
        ]
    )


def decoder_chain(config: CodecConfig, params: dict, codebooks: jax.Array) -> Chain:
    """Codes [T, k] of the first k codebooks to samples [S] (or [S, C])."""
    assert isinstance(config.layout, SeanetConfig)
    sides, mono = margins(config.layout), config.layout.channels == 1

    def after(x: np.ndarray) -> jax.Array:
        wav = _decoder_after(config, params, x)
        return wav[..., 0] if mono else wav

    return Chain(
        [
            _windowed(functools.partial(_decoder_before, config, params, codebooks), sides.decoder_before),
            _recurrent(config, "decoder", params),
            _windowed(after, sides.decoder_after, leave=config.hop_samples),
        ]
    )
