"""SEANet encoder and decoder with an LSTM between (arXiv 2210.13438), as in the public UniAudio codec.

Sixteen kilohertz samples become one vector per `config.hop_samples`, and back. The layers, their order and their
padding are those of `SEANetEncoder` and `SEANetDecoder` of the PyPI package `encodec`, non-causal, so that published
weights load (see `weights.py`). Inside, arrays are [B, T, D].
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from uniaudio_jax.codec.conv import Conv, TransposedConv
from uniaudio_jax.config import SeanetConfig


class LstmLayer(nnx.Module):
    """One LSTM layer; gates stand in PyTorch's order: input, forget, cell, output."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        shape = (2, width, 4 * width)
        weights = jax.random.uniform(rngs.params(), shape, minval=-(width**-0.5), maxval=width**-0.5)
        self.weight_ih, self.weight_hh = nnx.Param(weights[0]), nnx.Param(weights[1])
        self.bias_ih, self.bias_hh = nnx.Param(jnp.zeros(4 * width)), nnx.Param(jnp.zeros(4 * width))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        recurrent = self.weight_hh[...]
        # What the inputs add to the gates does not depend on the state: one matrix product for all frames.
        driven = x @ self.weight_ih[...] + (self.bias_ih[...] + self.bias_hh[...])

        def step(state, frame):
            hidden, cell = state
            enter, forget, candidate, leave = jnp.split(frame + hidden @ recurrent, 4, axis=-1)
            cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
            hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
            return (hidden, cell), hidden

        rest = jnp.zeros_like(x[:, 0])
        _, hidden = jax.lax.scan(step, (rest, rest), driven.swapaxes(0, 1))
        return hidden.swapaxes(0, 1)


class Lstm(nnx.Module):
    """LSTM layers with a skip connection around all of them."""

    def __init__(self, width: int, layers: int, *, rngs: nnx.Rngs):
        self.layers = nnx.List([LstmLayer(width, rngs=rngs) for _ in range(layers)])

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        y = x
        for layer in self.layers:
            y = layer(y)
        return x + y


class ResidualUnit(nnx.Module):
    """A narrow and a wide convolution beside a linear shortcut."""

    def __init__(self, config: SeanetConfig, width: int, *, rngs: nnx.Rngs):
        hidden = width // config.compress
        self.narrow = Conv(width, hidden, config.residual_kernel, rngs=rngs)
        self.wide = Conv(hidden, width, 1, rngs=rngs)
        self.shortcut = Conv(width, width, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.shortcut(x) + self.wide(jax.nn.elu(self.narrow(jax.nn.elu(x))))


class DownStage(nnx.Module):
    """A residual unit, then `ratio` times fewer frames of twice the width."""

    def __init__(self, config: SeanetConfig, width: int, ratio: int, *, rngs: nnx.Rngs):
        self.unit = ResidualUnit(config, width, rngs=rngs)
        self.down = Conv(width, 2 * width, 2 * ratio, ratio, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B U E"]:
        return self.down(jax.nn.elu(self.unit(x)))


class UpStage(nnx.Module):
    """`ratio` times more frames of half the width, then a residual unit."""

    def __init__(self, config: SeanetConfig, width: int, ratio: int, *, rngs: nnx.Rngs):
        self.up = TransposedConv(width, width // 2, 2 * ratio, ratio, rngs=rngs)
        self.unit = ResidualUnit(config, width // 2, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B U E"]:
        return self.unit(self.up(jax.nn.elu(x)))


class Encoder(nnx.Module):
    """Samples to vectors, in stages of falling frame rate; the smallest ratio comes first."""

    def __init__(self, config: SeanetConfig, width: int, *, rngs: nnx.Rngs):
        widths = [config.filters * 2**stage for stage in range(len(config.ratios) + 1)]
        self.first = Conv(1, widths[0], config.kernel, rngs=rngs)
        stages = zip(widths, reversed(config.ratios), strict=False)
        self.stages = nnx.List([DownStage(config, stage_width, ratio, rngs=rngs) for stage_width, ratio in stages])
        self.lstm = Lstm(widths[-1], config.lstm_layers, rngs=rngs)
        self.last = Conv(widths[-1], width, config.kernel, rngs=rngs)

    def __call__(self, x: Float[Array, "B S 1"]) -> Float[Array, "B T width"]:
        x = self.first(x)
        for stage in self.stages:
            x = stage(x)
        return self.last(jax.nn.elu(self.lstm(x)))


class Decoder(nnx.Module):
    """Vectors to samples: the encoder's mirror."""

    def __init__(self, config: SeanetConfig, width: int, *, rngs: nnx.Rngs):
        widths = [config.filters * 2**stage for stage in range(len(config.ratios), -1, -1)]
        self.first = Conv(width, widths[0], config.kernel, rngs=rngs)
        self.lstm = Lstm(widths[0], config.lstm_layers, rngs=rngs)
        stages = zip(widths, config.ratios, strict=False)
        self.stages = nnx.List([UpStage(config, stage_width, ratio, rngs=rngs) for stage_width, ratio in stages])
        self.last = Conv(widths[-1], 1, config.kernel, rngs=rngs)

    def __call__(self, x: Float[Array, "B T width"]) -> Float[Array, "B S 1"]:
        x = self.lstm(self.first(x))
        for stage in self.stages:
            x = stage(x)
        return self.last(jax.nn.elu(x))


class Seanet(nnx.Module):
    """Waveform to vectors of `width` at the frame rate, and back.

    Rows of one batch must have equal length: padding a row would change its last frames (LSTM and mirror padding).
    """

    def __init__(self, config: SeanetConfig, width: int, *, rngs: nnx.Rngs):
        self.encoder = Encoder(config, width, rngs=rngs)
        self.decoder = Decoder(config, width, rngs=rngs)

    def encode(self, wav: Float[Array, "B S"]) -> Float[Array, "B T width"]:
        """One vector per hop, T = ceil(S / hop); S is at least 1."""
        if wav.ndim != 2 or wav.shape[1] < 1:
            raise ValueError(f"Seanet.encode: got shape {wav.shape}, wanted [rows, samples] with at least one sample")
        return self.encoder(wav[:, :, None])

    def decode(self, vectors: Float[Array, "B T width"]) -> Float[Array, "B S"]:
        """S = T * hop samples; T is at least 1."""
        if vectors.ndim != 3 or vectors.shape[1] < 1:
            raise ValueError(
                f"Seanet.decode: got shape {vectors.shape}, wanted [rows, frames, width] with at least one frame"
            )
        return self.decoder(vectors)[:, :, 0]
