"""SEANet encoder and decoder with an LSTM between (arXiv 2210.13438), as in the public UniAudio codec and EnCodec.

The layers, their order and their padding are those of `SEANetEncoder` and `SEANetDecoder` of the PyPI package
`encodec`, so that published weights load (`seanet_torch.py` has their names). Inside, arrays are [B, T, D].

Encoder and decoder are cut at their LSTM: `before` and `after` see a bounded number of frames on each side (`margins`),
and the LSTM carries a state, so a recording of any length can be coded piece by piece (see `streaming.py`).
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from uniaudio_jax.codec.layouts.base import Apply, Layout
from uniaudio_jax.codec.layouts.conv import Conv, ConvNorm, TransposedConv, fold
from uniaudio_jax.codec.layouts.streaming import Recurrent, Stage, Windowed
from uniaudio_jax.codec.layouts.tensors import Tensor
from uniaudio_jax.errors import require


@dataclass(frozen=True, kw_only=True)
class SeanetConfig(Layout):
    """Convolutional encoder and decoder with an LSTM (arXiv 2210.13438); its defaults are those of UniAudio."""

    kind: ClassVar[str] = "seanet"

    filters: int = 32
    """Width at the sample rate; it doubles at each stage."""
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    """Upsampling of each stage of the decoder; the encoder has them in the other order."""
    residual_kernel: int = 3
    """Kernel of the residual units."""
    kernel: int = 7
    """Kernel of the first and last convolutions."""
    lstm_layers: int = 2
    """Layers of each LSTM."""
    compress: int = 2
    """Width of a stage over the width inside its residual unit."""
    channels: int = 1
    """Channels of the waveform."""
    causal: bool = False
    """No sample depends on a later one, but for the mirror at the very start."""
    norm: ConvNorm = "weight_norm"
    """Norm of the convolutions: of the kernel, of the output over all frames, or folded into the kernel."""

    def __post_init__(self):
        widths = (self.filters, self.compress, self.lstm_layers, self.channels)
        sizes = (*widths, *self.ratios, self.residual_kernel, self.kernel)
        require(
            "SeanetConfig.norm",
            self.norm != "time_group_norm" or not self.causal,
            "time_group_norm and causal",
            "causal=False, as that norm looks at all frames",
        )
        require("SeanetConfig", bool(self.ratios) and min(sizes) >= 1, str(self), "positive sizes, at least one ratio")
        require(
            "SeanetConfig.filters",
            self.filters % self.compress == 0,
            f"filters={self.filters}, compress={self.compress}",
            "a multiple of compress",
        )

    @property
    def hop_samples(self) -> int:
        return math.prod(self.ratios)

    @property
    def streams(self) -> bool:
        return self.norm != "time_group_norm"

    def build(self, width: int, *, sample_rate_hz: int, rngs: nnx.Rngs) -> "Seanet":
        return Seanet(self, width, rngs=rngs)

    def for_inference(self, params: dict) -> tuple["SeanetConfig", dict]:
        """The layout with its weight norm multiplied in once and for all."""
        if self.norm != "weight_norm":
            return self, params
        return dataclasses.replace(self, norm="folded"), fold(params)

    def encoder_stages(self, apply: Apply) -> list[Stage]:
        sides = margins(self)
        return [
            _windowed(apply, _encode_before, sides.encoder_before, enter=self.hop_samples),
            _recurrent(apply, _encode_lstm),
            _windowed(apply, _encode_after, sides.encoder_after),
        ]

    def decoder_stages(self, apply: Apply) -> list[Stage]:
        sides = margins(self)
        return [
            _windowed(apply, _decode_before, sides.decoder_before),
            _recurrent(apply, _decode_lstm),
            _windowed(apply, _decode_after, sides.decoder_after, leave=self.hop_samples),
        ]

    def torch_tensors(self, width: int) -> tuple[Tensor, ...]:
        from uniaudio_jax.codec.layouts.seanet_torch import seanet_tensors  # which imports this file

        return seanet_tensors(self, width)


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
        # The inputs' part of the gates does not depend on the state: one matrix product for all frames.
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

    def advance(self, x: Float[Array, "B T D"], state: LstmState | None) -> tuple[Float[Array, "B T D"], LstmState]:
        """The outputs for the next frames, and the state after them; the state before the first frame is None."""
        y, states = x, []
        if state is None:
            state = ((jnp.zeros_like(x[:, 0]), jnp.zeros_like(x[:, 0])),) * len(self.layers)
        for layer, before in zip(self.layers, state, strict=True):
            y, after = layer(y, before)
            states.append(after)
        return x + y, tuple(states)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.advance(x, None)[0]


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

    def before(self, wav: Float[Array, "B S *C"]) -> Float[Array, "B T D"]:
        """The layers before the LSTM."""
        x = self.first(wav if wav.ndim == 3 else wav[..., None])
        for stage in self.stages:
            x = stage(x)
        return x

    def after(self, x: Float[Array, "B T D"]) -> Float[Array, "B T width"]:
        """The layers after the LSTM."""
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
        """The layers before the LSTM."""
        return self.first(x)

    def after(self, x: Float[Array, "B T D"]) -> Float[Array, "B S *C"]:
        """The layers after the LSTM; mono comes out without an axis for its channel."""
        for stage in self.stages:
            x = stage(x)
        wav = self.last(elu(x))
        return wav[..., 0] if wav.shape[-1] == 1 else wav


class Margins(NamedTuple):
    """Whole frames on each side that an output frame depends on, by part of the network."""

    encoder_before: tuple[int, int]
    encoder_after: tuple[int, int]
    decoder_before: tuple[int, int]
    decoder_after: tuple[int, int]


def margins(config: SeanetConfig) -> Margins:
    """Frames of the codec that each part sees to the left and to the right of a frame, rounded up."""

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
            reach = 0 if config.causal and side else 1  # hops of an output that depend on the next input
            frames += reach / rate + sides(config.residual_kernel)[side] / (rate * ratio)
            rate *= ratio
        decoder.append(math.ceil(frames + ends[side] / rate))
    return Margins((encoder[0], encoder[1]), ends, ends, (decoder[0], decoder[1]))


class Seanet(nnx.Module):
    """Waveform to vectors of `width` at the frame rate, and back.

    Rows of one batch must have equal length: padding a row would change its last frames (LSTM and mirror padding). So
    `frames` says nothing new, and is ignored.
    """

    def __init__(self, config: SeanetConfig, width: int, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = Encoder(config, width, rngs=rngs)
        self.decoder = Decoder(config, width, rngs=rngs)

    def encode(self, wav: Float[Array, "B S *C"], frames: Int[Array, " B"] | None = None) -> Float[Array, "B T width"]:
        """One vector per hop, T = ceil(S / hop); S is at least 1. Mono is [B, S], more channels are [B, S, C]."""
        wanted = 2 if self.config.channels == 1 else 3
        if wav.ndim != wanted or wav.shape[1] < 1 or wav.shape[2:] not in ((), (self.config.channels,)):
            shape = "[rows, samples]" if wanted == 2 else f"[rows, samples, {self.config.channels}]"
            raise ValueError(f"Seanet.encode: got shape {wav.shape}, wanted {shape} with at least one sample")
        return self.encoder.after(self.encoder.lstm(self.encoder.before(wav)))

    def decode(
        self, vectors: Float[Array, "B T width"], frames: Int[Array, " B"] | None = None
    ) -> Float[Array, "B S *C"]:
        """S = T * hop samples; T is at least 1."""
        if vectors.ndim != 3 or vectors.shape[1] < 1:
            raise ValueError(
                f"Seanet.decode: got shape {vectors.shape}, wanted [rows, frames, width] with at least one frame"
            )
        return self.decoder.after(self.decoder.lstm(self.decoder.before(vectors)))


def _encode_before(seanet: Seanet, wav: Array) -> Array:
    return seanet.encoder.before(wav)


def _encode_lstm(seanet: Seanet, x: Array, state: LstmState | None) -> tuple[Array, LstmState]:
    return seanet.encoder.lstm.advance(x, state)


def _encode_after(seanet: Seanet, x: Array) -> Array:
    return seanet.encoder.after(x)


def _decode_before(seanet: Seanet, vectors: Array) -> Array:
    return seanet.decoder.before(vectors)


def _decode_lstm(seanet: Seanet, x: Array, state: LstmState | None) -> tuple[Array, LstmState]:
    return seanet.decoder.lstm.advance(x, state)


def _decode_after(seanet: Seanet, x: Array) -> Array:
    return seanet.decoder.after(x)


def _windowed(
    apply: Apply, part: Callable[..., Array], sides: tuple[int, int], enter: int = 1, leave: int = 1
) -> Windowed:
    # At the start the mirror shows frames of the right side to the left one, so both must be there.
    left, right = sides
    return Windowed(
        lambda x: np.asarray(apply(part, x[None]))[0],
        left=left,
        right=right,
        start=left + right + 1,
        enter=enter,
        leave=leave,
    )


def _recurrent(apply: Apply, part: Callable[..., tuple[Array, LstmState]]) -> Recurrent:
    def run(x: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        y, state = apply(part, x[None], state)
        return np.asarray(y)[0], state

    return Recurrent(run)
