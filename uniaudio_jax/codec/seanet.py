"""SEANet encoder and decoder with an LSTM between (arXiv 2210.13438), as in the public UniAudio codec and EnCodec.

Samples become one vector per `config.hop_samples`, and back. The layers, their order and their padding are those of
`SEANetEncoder` and `SEANetDecoder` of the PyPI package `encodec`, so that published weights load (see `weights.py`).
Inside, arrays are [B, T, D].

Encoder and decoder are cut at their LSTM in three: `before` and `after` look a bounded number of frames to each side
(`margins`), and the LSTM carries a state, so that a recording of any length can be worked through piece by piece
(see `streaming.py`).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from uniaudio_jax.codec.config import SeanetConfig
from uniaudio_jax.codec.conv import Conv, TransposedConv

LstmState = tuple[tuple[Float[Array, "B D"], Float[Array, "B D"]], ...]
"""(hidden, cell) of every layer."""


def elu(x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """ELU by exp, which XLA computes several times faster on a CPU than the expm1 of `jax.nn.elu`."""
    return jnp.where(x > 0, x, jnp.exp(jnp.minimum(x, 0)) - 1)


def _sigmoid(x: Array) -> Array:
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


class LstmLayer(nnx.Module):
    """One LSTM layer; gates stand in PyTorch's order: input, forget, cell, output."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        shape = (2, width, 4 * width)
        weights = jax.random.uniform(rngs.params(), shape, minval=-(width**-0.5), maxval=width**-0.5)
        self.weight_ih, self.weight_hh = nnx.Param(weights[0]), nnx.Param(weights[1])
        self.bias_ih, self.bias_hh = nnx.Param(jnp.zeros(4 * width)), nnx.Param(jnp.zeros(4 * width))

    def __call__(self, x: Float[Array, "B T D"], state: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        recurrent = self.weight_hh[...]
        # What the inputs add to the gates does not depend on the state: one matrix product for all frames.
        driven = x @ self.weight_ih[...] + (self.bias_ih[...] + self.bias_hh[...])

        def step(state, frame):
            hidden, cell = state
            enter, forget, candidate, leave = jnp.split(frame + hidden @ recurrent, 4, axis=-1)
            cell = _sigmoid(forget) * cell + _sigmoid(enter) * jnp.tanh(candidate)
            hidden = _sigmoid(leave) * jnp.tanh(cell)
            return (hidden, cell), hidden

        state, hidden = jax.lax.scan(step, state, driven.swapaxes(0, 1))
        return hidden.swapaxes(0, 1), state


class Lstm(nnx.Module):
    """LSTM layers with a skip connection around all of them."""

    def __init__(self, width: int, layers: int, *, rngs: nnx.Rngs):
        self.layers = nnx.List([LstmLayer(width, rngs=rngs) for _ in range(layers)])

    def rest(self, x: Float[Array, "B T D"]) -> LstmState:
        """The state before the first frame."""
        return tuple((jnp.zeros_like(x[:, 0]), jnp.zeros_like(x[:, 0])) for _ in self.layers)

    def advance(self, x: Float[Array, "B T D"], state: LstmState) -> tuple[Float[Array, "B T D"], LstmState]:
        """The outputs for the next frames, and the state after them."""
        y, states = x, []
        for layer, before in zip(self.layers, state, strict=True):
            y, after = layer(y, before)
            states.append(after)
        return (x + y if states else x), tuple(states)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.advance(x, self.rest(x))[0]


class ResidualUnit(nnx.Module):
    """A narrow and a wide convolution beside a linear shortcut."""

    def __init__(self, config: SeanetConfig, width: int, *, rngs: nnx.Rngs):
        hidden, kind = width // config.compress, {"norm": config.norm, "causal": config.causal}
        self.narrow = Conv(width, hidden, config.residual_kernel, **kind, rngs=rngs)
        self.wide = Conv(hidden, width, 1, **kind, rngs=rngs)
        self.shortcut = Conv(width, width, 1, **kind, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.shortcut(x) + self.wide(elu(self.narrow(elu(x))))


class DownStage(nnx.Module):
    """A residual unit, then `ratio` times fewer frames of twice the width."""

    def __init__(self, config: SeanetConfig, width: int, ratio: int, *, rngs: nnx.Rngs):
        self.unit = ResidualUnit(config, width, rngs=rngs)
        self.down = Conv(width, 2 * width, 2 * ratio, ratio, norm=config.norm, causal=config.causal, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B U E"]:
        return self.down(elu(self.unit(x)))


class UpStage(nnx.Module):
    """`ratio` times more frames of half the width, then a residual unit."""

    def __init__(self, config: SeanetConfig, width: int, ratio: int, *, rngs: nnx.Rngs):
        self.up = TransposedConv(width, width // 2, 2 * ratio, ratio, norm=config.norm, causal=config.causal, rngs=rngs)
        self.unit = ResidualUnit(config, width // 2, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B U E"]:
        return self.unit(self.up(elu(x)))


class Encoder(nnx.Module):
    """Samples to vectors, in stages of falling frame rate; the smallest ratio comes first."""

    def __init__(self, config: SeanetConfig, width: int, *, rngs: nnx.Rngs):
        kind = {"norm": config.norm, "causal": config.causal}
        widths = [config.filters * 2**stage for stage in range(len(config.ratios) + 1)]
        self.first = Conv(config.channels, widths[0], config.kernel, **kind, rngs=rngs)
        stages = zip(widths, reversed(config.ratios), strict=False)
        self.stages = nnx.List([DownStage(config, stage_width, ratio, rngs=rngs) for stage_width, ratio in stages])
        self.lstm = Lstm(widths[-1], config.lstm_layers, rngs=rngs)
        self.last = Conv(widths[-1], width, config.kernel, **kind, rngs=rngs)

    def before(self, x: Float[Array, "B S C"]) -> Float[Array, "B T D"]:
        """All up to the LSTM."""
        x = self.first(x)
        for stage in self.stages:
            x = stage(x)
        return x

    def after(self, x: Float[Array, "B T D"]) -> Float[Array, "B T width"]:
        """All after the LSTM."""
        return self.last(elu(x))


class Decoder(nnx.Module):
    """Vectors to samples: the encoder's mirror."""

    def __init__(self, config: SeanetConfig, width: int, *, rngs: nnx.Rngs):
        kind = {"norm": config.norm, "causal": config.causal}
        widths = [config.filters * 2**stage for stage in range(len(config.ratios), -1, -1)]
        self.first = Conv(width, widths[0], config.kernel, **kind, rngs=rngs)
        self.lstm = Lstm(widths[0], config.lstm_layers, rngs=rngs)
        stages = zip(widths, config.ratios, strict=False)
        self.stages = nnx.List([UpStage(config, stage_width, ratio, rngs=rngs) for stage_width, ratio in stages])
        self.last = Conv(widths[-1], config.channels, config.kernel, **kind, rngs=rngs)

    def before(self, x: Float[Array, "B T width"]) -> Float[Array, "B T D"]:
        """All up to the LSTM."""
        return self.first(x)

    def after(self, x: Float[Array, "B T D"]) -> Float[Array, "B S C"]:
        """All after the LSTM."""
        for stage in self.stages:
            x = stage(x)
        return self.last(elu(x))


class Margins(NamedTuple):
    """Whole frames on each side that an output frame depends on, by part of the network."""

    encoder_before: tuple[int, int]
    encoder_after: tuple[int, int]
    decoder_before: tuple[int, int]
    decoder_after: tuple[int, int]


def margins(config: SeanetConfig) -> Margins:
    """How far each part looks to the left and to the right, in frames of the codec, rounded up."""

    def sides(kernel: int, stride: int = 1) -> tuple[int, int]:
        total = kernel - stride
        return (total, 0) if config.causal else (total - total // 2, total // 2)

    ends = sides(config.kernel)
    encoder, decoder = [], []
    for side in (0, 1):
        samples, step = ends[side], 1
        for ratio in reversed(config.ratios):
            samples += (sides(config.residual_kernel)[side] + sides(2 * ratio, ratio)[side]) * step
            step *= ratio
        encoder.append(math.ceil(samples / config.hop_samples))
        frames, rate = 0.0, 1
        for ratio in config.ratios:
            reach = 0 if config.causal and side else 1  # hops of an input that reach into its neighbour
            frames += reach / rate + sides(config.residual_kernel)[side] / (rate * ratio)
            rate *= ratio
        decoder.append(math.ceil(frames + ends[side] / rate))
    return Margins((encoder[0], encoder[1]), ends, ends, (decoder[0], decoder[1]))


class Seanet(nnx.Module):
    """Waveform to vectors of `width` at the frame rate, and back.

    Rows of one batch must have equal length: padding a row would change its last frames (LSTM and mirror padding).
    """

    def __init__(self, config: SeanetConfig, width: int, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = Encoder(config, width, rngs=rngs)
        self.decoder = Decoder(config, width, rngs=rngs)

    def encode(self, wav: Float[Array, "B S *C"]) -> Float[Array, "B T width"]:
        """One vector per hop, T = ceil(S / hop); S is at least 1. Mono is [B, S], more channels are [B, S, C]."""
        wanted = 2 if self.config.channels == 1 else 3
        if wav.ndim != wanted or wav.shape[1] < 1 or wav.shape[2:] not in ((), (self.config.channels,)):
            shape = "[rows, samples]" if wanted == 2 else f"[rows, samples, {self.config.channels}]"
            raise ValueError(f"Seanet.encode: got shape {wav.shape}, wanted {shape} with at least one sample")
        x = self.encoder.before(wav if wanted == 3 else wav[:, :, None])
        return self.encoder.after(self.encoder.lstm(x))

    def decode(self, vectors: Float[Array, "B T width"]) -> Float[Array, "B S *C"]:
        """S = T * hop samples; T is at least 1."""
        if vectors.ndim != 3 or vectors.shape[1] < 1:
            raise ValueError(
                f"Seanet.decode: got shape {vectors.shape}, wanted [rows, frames, width] with at least one frame"
            )
        wav = self.decoder.after(self.decoder.lstm(self.decoder.before(vectors)))
        return wav[:, :, 0] if self.config.channels == 1 else wav
