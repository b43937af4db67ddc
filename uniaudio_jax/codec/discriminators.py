"""Discriminators of waveforms for adversarial training: convolutions over log-mel spectrograms of several resolutions.

As in UniAudio's codec they see mel spectrograms, where EnCodec's see complex ones (arXiv 2310.00704 appendix B); the
losses are those of EnCodec (arXiv 2210.13438 section 3.4): hinge, and relative feature matching.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from uniaudio_jax.audio.spectra import OVERLAP, log_mel
from uniaudio_jax.codec.layouts.conv import convolve

RESOLUTIONS = ((256, 32), (512, 64), (1024, 128))  # (window in samples, mel bands)
LAYERS = 3  # each halves the bands
TIME_TAPS, BAND_TAPS = 3, 4
SLOPE = 0.2


class Scored(NamedTuple):
    """One discriminator's scores of a batch of waveforms (high: real), and its activations after each layer."""

    scores: Float[Array, "B T F"]
    features: tuple[Float[Array, "B T G C"], ...]


class PlaneConv(nnx.Module):
    """A convolution over frames and bands with `stride` over the bands, as sums of matrix products (see `conv.py`)."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, rngs: nnx.Rngs):
        self.stride = stride
        fan_in = TIME_TAPS * BAND_TAPS * inputs
        shape = (BAND_TAPS, TIME_TAPS * inputs, outputs)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape) * (2 / fan_in) ** 0.5)
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Float[Array, "B T F C"]) -> Float[Array, "B T G D"]:
        rows, frames, bands, _ = x.shape
        left, total = (BAND_TAPS - self.stride) // 2, BAND_TAPS - self.stride
        padded = jnp.pad(x, ((0, 0), (1, 1), (left, total - left), (0, 0)))
        near = jnp.concatenate([padded[:, tap : tap + frames] for tap in range(TIME_TAPS)], axis=-1)
        y = convolve(near.reshape(rows * frames, *near.shape[2:]), self.kernel[...], self.stride) + self.bias[...]
        return y.reshape(rows, frames, bands // self.stride, -1)


class Discriminator(nnx.Module):
    """One resolution's discriminator."""

    def __init__(self, window_samples: int, bands: int, sample_rate_hz: int, channels: int, *, rngs: nnx.Rngs):
        self.window_samples, self.bands, self.sample_rate_hz = window_samples, bands, sample_rate_hz
        widths = [1, *[channels] * LAYERS]
        self.layers = nnx.List([PlaneConv(widths[n], widths[n + 1], 2, rngs=rngs) for n in range(LAYERS)])
        self.head = PlaneConv(channels, 1, 1, rngs=rngs)

    def __call__(self, wav: Float[Array, "B S"]) -> Scored:
        mel = log_mel(
            wav,
            sample_rate_hz=self.sample_rate_hz,
            window_samples=self.window_samples,
            hop_samples=self.window_samples // OVERLAP,
            bands=self.bands,
        )
        x, features = (mel / 4 + 1.5)[..., None], []
        for layer in self.layers:
            x = jax.nn.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return Scored(self.head(x)[..., 0], tuple(features))


class Discriminators(nnx.Module):
    """One discriminator for each resolution."""

    def __init__(self, sample_rate_hz: int, channels: int, *, rngs: nnx.Rngs):
        self.discriminators = nnx.List(
            [Discriminator(*sizes, sample_rate_hz, channels, rngs=rngs) for sizes in RESOLUTIONS]
        )

    def __call__(self, wav: Float[Array, "B S"]) -> list[Scored]:
        return [discriminator(wav) for discriminator in self.discriminators]


def discriminator_loss(real: list[Scored], fake: list[Scored]) -> Float[Array, ""]:
    """The discriminators' hinge loss: zero for scores above 1 of real and below -1 of fake audio."""
    terms = [
        jnp.mean(jax.nn.relu(1 - r.scores)) + jnp.mean(jax.nn.relu(1 + f.scores))
        for r, f in zip(real, fake, strict=True)
    ]
    return sum(terms, start=jnp.zeros(())) / len(terms)


def adversarial_loss(fake: list[Scored]) -> Float[Array, ""]:
    """The codec's hinge loss: zero for scores above 1 of its waveforms."""
    return sum((jnp.mean(jax.nn.relu(1 - f.scores)) for f in fake), start=jnp.zeros(())) / len(fake)


def feature_loss(real: list[Scored], fake: list[Scored]) -> Float[Array, ""]:
    """The mean absolute difference of activations, relative to the real ones' size."""
    terms = []
    for r, f in zip(real, fake, strict=True):
        for target, activation in zip(r.features, f.features, strict=True):
            target = jax.lax.stop_gradient(target)
            terms.append(jnp.mean(jnp.abs(target - activation)) / (jnp.mean(jnp.abs(target)) + 1e-6))
    return sum(terms, start=jnp.zeros(())) / len(terms)
