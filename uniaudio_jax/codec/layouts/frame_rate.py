"""The frame-rate layout: every layer runs once a frame (in the manner of Vocos, arXiv 2306.00814).

Encoder: log-mel frames, ConvNeXt blocks, a linear map to the quantiser's width. Decoder: a linear map, ConvNeXt
blocks, a magnitude and a phase for each frequency, inverse short-time Fourier transform.

A row's frames beyond its own count are zeroed before every depthwise convolution and before the overlap-add, so a
padded batch gives what each row gives alone.
"""

import functools
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from uniaudio_jax.audio.spectra import LOG_FLOOR, frames_of, hann, mel_filters
from uniaudio_jax.codec.layouts.base import Layout
from uniaudio_jax.errors import require

LARGEST_LOG_MAGNITUDE = 5.0


@dataclass(frozen=True, kw_only=True)
class FrameRateConfig(Layout):
    """All layers at the frame rate, in the manner of Vocos (arXiv 2306.00814)."""

    kind: ClassVar[str] = "frame_rate"
    pads_rows: ClassVar[bool] = True

    hop_samples: int = 320
    """Samples of a frame."""
    window_samples: int = 1280
    """Samples of a spectrum's window, on both sides; a multiple of the hop."""
    mel_bands: int = 80
    """Bands of the log-mel frames that the encoder sees."""
    width: int = 256
    """Width of the blocks."""
    hidden: int = 768
    """Width between a block's two linear layers."""
    encoder_blocks: int = 4
    """ConvNeXt blocks of the encoder."""
    decoder_blocks: int = 6
    """ConvNeXt blocks of the decoder."""
    kernel: int = 7
    """Frames of a depthwise convolution."""

    def __post_init__(self):
        require(
            "FrameRateConfig.window_samples",
            self.window_samples % self.hop_samples == 0,
            f"window {self.window_samples}, hop {self.hop_samples}",
            "a window that is a multiple of the hop",
        )

    @property
    def margin_frames(self) -> int:
        blocks = max(self.encoder_blocks, self.decoder_blocks)
        return blocks * (self.kernel // 2) + self.window_samples // self.hop_samples

    def build(self, width: int, *, sample_rate_hz: int, rngs: nnx.Rngs) -> "FrameRate":
        return FrameRate(self, width, sample_rate_hz=sample_rate_hz, rngs=rngs)


def _mask(frames: Int[Array, " B"] | None, rows: int, count: int) -> Bool[Array, "B T 1"]:
    """Which frames of each row count."""
    if frames is None:
        return jnp.ones((rows, count, 1), bool)
    return (jnp.arange(count)[None] < frames[:, None])[..., None]


class DepthwiseConv(nnx.Module):
    """A convolution along time, one filter per channel, as a sum of shifted products.

    XLA's gradient of a grouped convolution is slow on a CPU; this form is as fast as any elsewhere.
    """

    def __init__(self, width: int, kernel: int, *, rngs: nnx.Rngs):
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (kernel, width)) * kernel**-0.5)
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        kernel, frames = self.weight.shape[0], x.shape[1]
        left = (kernel - 1) // 2
        padded = jnp.pad(x, ((0, 0), (left, kernel - 1 - left), (0, 0)))
        return sum(padded[:, i : i + frames] * self.weight[i] for i in range(kernel)) + self.bias[...]


class ConvNextBlock(nnx.Module):
    """Depthwise convolution, layer norm and a two-layer MLP around a scaled residual (arXiv 2201.03545)."""

    def __init__(self, width: int, hidden: int, kernel: int, scale: float, *, rngs: nnx.Rngs):
        self.depthwise = DepthwiseConv(width, kernel, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, hidden, rngs=rngs)
        self.down = nnx.Linear(hidden, width, rngs=rngs)
        self.scale = nnx.Param(jnp.full(width, scale))

    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T 1"]) -> Float[Array, "B T D"]:
        hidden = jax.nn.gelu(self.up(self.norm(self.depthwise(x * mask))))
        return x + self.down(hidden) * self.scale[...]


class Encoder(nnx.Module):
    """Log-mel frames to vectors of the quantiser's width."""

    def __init__(self, config: FrameRateConfig, width: int, *, rngs: nnx.Rngs):
        blocks = config.encoder_blocks
        self.embed = nnx.Linear(config.mel_bands, config.width, rngs=rngs)
        self.norm_in = nnx.LayerNorm(config.width, rngs=rngs)
        self.blocks = nnx.List(
            [ConvNextBlock(config.width, config.hidden, config.kernel, 1 / blocks, rngs=rngs) for _ in range(blocks)]
        )
        self.norm_out = nnx.LayerNorm(config.width, rngs=rngs)
        self.project = nnx.Linear(config.width, width, rngs=rngs)

    def __call__(self, mel: Float[Array, "B T bands"], mask: Bool[Array, "B T 1"]) -> Float[Array, "B T width"]:
        x = self.norm_in(self.embed(mel))
        for block in self.blocks:
            x = block(x, mask)
        return self.project(self.norm_out(x)) * mask


class Decoder(nnx.Module):
    """Vectors to the magnitude and phase of each frame's spectrum."""

    def __init__(self, config: FrameRateConfig, width: int, *, rngs: nnx.Rngs):
        blocks = config.decoder_blocks
        self.embed = nnx.Linear(width, config.width, rngs=rngs)
        self.norm_in = nnx.LayerNorm(config.width, rngs=rngs)
        self.blocks = nnx.List(
            [ConvNextBlock(config.width, config.hidden, config.kernel, 1 / blocks, rngs=rngs) for _ in range(blocks)]
        )
        self.norm_out = nnx.LayerNorm(config.width, rngs=rngs)
        self.head = nnx.Linear(config.width, config.window_samples + 2, rngs=rngs)

    def __call__(
        self, vectors: Float[Array, "B T width"], mask: Bool[Array, "B T 1"]
    ) -> tuple[Float[Array, "B T bins"], Float[Array, "B T bins"]]:
        x = self.norm_in(self.embed(vectors))
        for block in self.blocks:
            x = block(x, mask)
        log_magnitude, phase = jnp.split(self.head(self.norm_out(x)), 2, axis=-1)
        return jnp.exp(jnp.minimum(log_magnitude, LARGEST_LOG_MAGNITUDE)), phase


class FrameRate(nnx.Module):
    """Waveform to vectors and back; quantisation happens between the two."""

    def __init__(self, config: FrameRateConfig, width: int, *, sample_rate_hz: int, rngs: nnx.Rngs):
        self.config = config
        self.sample_rate_hz = sample_rate_hz
        self.encoder = Encoder(config, width, rngs=rngs)
        self.decoder = Decoder(config, width, rngs=rngs)

    def encode(self, wav: Float[Array, "B S"], frames: Int[Array, " B"] | None = None) -> Float[Array, "B T width"]:
        """One vector per hop, T = ceil(S / hop). Samples beyond a row's own length must be zero."""
        window = self.config.window_samples
        windows = frames_of(wav, window, self.config.hop_samples) * (hann(window) * 4 / window)
        power = jnp.abs(jnp.fft.rfft(windows))
        mel = jnp.log(power @ mel_filters(self.sample_rate_hz, window, self.config.mel_bands) + LOG_FLOOR)
        return self.encoder(mel / 4 + 1.5, _mask(frames, *mel.shape[:2]))

    def decode(self, vectors: Float[Array, "B T width"], frames: Int[Array, " B"] | None = None) -> Float[Array, "B S"]:
        """The waveform of each frame's hop; frames beyond a row's own count come out as zeros."""
        mask = _mask(frames, *vectors.shape[:2])
        magnitude, phase = self.decoder(vectors, mask)
        spectrum = magnitude * jax.lax.complex(jnp.cos(phase), jnp.sin(phase))
        window = hann(self.config.window_samples)
        windows = jnp.fft.irfft(spectrum) * window * mask
        hop = self.config.hop_samples
        return overlap_add(windows, hop) / envelope(mask, window, hop) * jnp.repeat(mask[..., 0], hop, axis=1)


def overlap_add(windows: Float[Array, "B T window"], hop_samples: int) -> Float[Array, "B S"]:
    """Sum of the windows, a hop apart, cut to the T hops that they are centred on."""
    rows, count, window = windows.shape
    parts = window // hop_samples
    left = (window - hop_samples) // 2
    hops = windows.reshape(rows, count, parts, hop_samples)
    moved = [jnp.pad(hops[:, :, part], ((0, 0), (part, parts - 1 - part), (0, 0))) for part in range(parts)]
    total = functools.reduce(jnp.add, moved)
    return total.reshape(rows, -1)[:, left : left + count * hop_samples]


def envelope(mask: Bool[Array, "B T 1"], window: Float[np.ndarray, " window"], hop_samples: int) -> Float[Array, "B S"]:
    """Sum of the squared windows of the frames that exist; 1 where there is none."""
    total = overlap_add(mask * jnp.asarray(window) ** 2, hop_samples)
    return jnp.where(total > 1e-3, total, 1.0)
