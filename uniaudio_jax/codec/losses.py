"""Spectra of waveforms and the two reconstruction losses of the codec: log-mel and magnitude, at several scales."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

OVERLAP = 4  # windows that cover one sample
LOG_FLOOR = 1e-5
SCALES = ((128, 10), (256, 20), (512, 40), (1024, 80), (2048, 120))  # (window in samples, mel bands)


def hann(window_samples: int) -> Float[np.ndarray, "window"]:
    """The periodic Hann window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_samples) / window_samples)).astype(np.float32)


@functools.cache
def mel_filters(sample_rate_hz: int, window_samples: int, bands: int) -> Float[np.ndarray, "bins bands"]:
    """Triangles that are equally spaced on the mel scale (2595 log10(1 + f/700)), each of height 1.

    A triangle narrower than a bin is widened to one, so that no band is empty.
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


def spectral_losses(
    wanted: Float[Array, "B S"], got: Float[Array, "B S"], sample_rate_hz: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(log-mel loss, magnitude loss), means over `SCALES`.

    The first is the mean absolute difference of log-mel spectra, which hears quiet parts; the second the absolute
    difference of magnitudes relative to the wanted ones of the same row, which hears the loud ones.
    """
    both = jnp.concatenate([wanted, got])
    mel_loss = magnitude_loss = jnp.zeros(())
    for window, bands in SCALES:
        spectra = magnitudes(both, window, window // OVERLAP)
        mels = jnp.log(spectra @ mel_filters(sample_rate_hz, window, bands) + LOG_FLOOR)
        (wanted_spectra, got_spectra), (wanted_mel, got_mel) = jnp.split(spectra, 2), jnp.split(mels, 2)
        size = jnp.mean(wanted_spectra, axis=(1, 2)) + LOG_FLOOR
        mel_loss += jnp.mean(jnp.abs(wanted_mel - got_mel))
        magnitude_loss += jnp.mean(jnp.mean(jnp.abs(wanted_spectra - got_spectra), axis=(1, 2)) / size)
    return mel_loss / len(SCALES), magnitude_loss / len(SCALES)


def mel_distance(wanted: Float[np.ndarray, "S"], got: Float[np.ndarray, "S"], sample_rate_hz: int) -> float:
    """Mean absolute difference of the 80-band log-mel spectra (natural logarithm, window 1024, hop 256)."""
    pair = np.stack([np.asarray(wanted, np.float32), np.asarray(got, np.float32)])
    windows = np.asarray(frames_of(jnp.asarray(pair), 1024, 256)) * (hann(1024) * 4 / 1024)
    mels = np.log(np.abs(np.fft.rfft(windows)) @ mel_filters(sample_rate_hz, 1024, 80) + LOG_FLOOR)
    return float(np.mean(np.abs(mels[0] - mels[1])))
