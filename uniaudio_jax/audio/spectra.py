"""Spectra of waveforms: windows, magnitudes, mel filters, and the distance of two log-mel spectra."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.lib.stride_tricks import sliding_window_view

OVERLAP = 4  # windows that cover one sample
LOG_FLOOR = 1e-5
WINDOW, HOP = 1024, 256
"""Samples of the windows of `log_mel_frames`, and from one to the next."""


def hann(window_samples: int) -> Float[np.ndarray, " window"]:
    """The periodic Hann window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_samples) / window_samples)).astype(np.float32)


@functools.cache
def mel_filters(sample_rate_hz: int, window_samples: int, bands: int) -> Float[np.ndarray, "bins bands"]:
    """Triangles equally spaced on the mel scale (2595 log10(1 + f/700)), each of height 1.

    A triangle narrower than a bin is widened to one bin, so that no band is empty.
    """
    bins = np.arange(window_samples // 2 + 1) * sample_rate_hz / window_samples
    top = 2595 * np.log10(1 + sample_rate_hz / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    width = sample_rate_hz / window_samples
    centre = edges[1:-1]
    lower = np.maximum(centre - edges[:-2], width)
    upper = np.maximum(edges[2:] - centre, width)
    distance = bins[:, None] - centre[None]
    return np.maximum(0, 1 - np.where(distance < 0, -distance / lower, distance / upper)).astype(np.float32)


def frames_of(wav: Float[Array, "B S"], window_samples: int, hop_samples: int) -> Float[Array, "B T window"]:
    """Centred windows, one per hop (the last hop may be short), with zeros beyond both ends.

    Frame t is centred on the middle of samples [t*hop, (t+1)*hop). The window is a multiple of the hop.
    """
    rows, samples = wav.shape
    count = -(-samples // hop_samples)
    left = (window_samples - hop_samples) // 2
    parts = window_samples // hop_samples
    total = (count + parts - 1) * hop_samples
    padded = jnp.pad(wav, ((0, 0), (left, total - left - samples)))
    hops = padded.reshape(rows, count + parts - 1, hop_samples)
    return jnp.concatenate([hops[:, part : part + count] for part in range(parts)], axis=-1)


def magnitudes(wav: Float[Array, "B S"], window_samples: int, hop_samples: int) -> Float[Array, "B T bins"]:
    """Magnitudes of the Hann-windowed short-time Fourier transform, scaled so that a full-scale sine is about 1."""
    spectrum = jnp.fft.rfft(frames_of(wav, window_samples, hop_samples) * (hann(window_samples) * 4 / window_samples))
    return jnp.sqrt(jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2 + 1e-12)


def log_mel(
    wav: Float[Array, "B S"], *, sample_rate_hz: int, window_samples: int, hop_samples: int, bands: int
) -> Float[Array, "B T bands"]:
    """Natural logarithm of the mel magnitudes, with a floor of 1e-5."""
    filters = mel_filters(sample_rate_hz, window_samples, bands)
    return jnp.log(magnitudes(wav, window_samples, hop_samples) @ filters + LOG_FLOOR)


def log_mel_frames(wav: Float[np.ndarray, " S"], sample_rate_hz: int) -> Float[np.ndarray, "T 80"]:
    """As `log_mel` of one waveform, by numpy, with 80 bands, windows of 1024 samples and a hop of 256."""
    count, margin = -(-len(wav) // HOP), (WINDOW - HOP) // 2
    padded = np.pad(np.asarray(wav, np.float32), (margin, (count + OVERLAP - 1) * HOP - margin - len(wav)))
    windows = sliding_window_view(padded, WINDOW)[::HOP] * (hann(WINDOW) * 4 / WINDOW)
    return np.log(np.abs(np.fft.rfft(windows)) @ mel_filters(sample_rate_hz, WINDOW, 80) + LOG_FLOOR)


def mel_distance(target: Float[np.ndarray, " S"], output: Float[np.ndarray, " S"], sample_rate_hz: int) -> float:
    """Mean absolute difference of the `log_mel_frames` of two waveforms."""
    return float(np.mean(np.abs(log_mel_frames(target, sample_rate_hz) - log_mel_frames(output, sample_rate_hz))))
