"""The two reconstruction losses of the codec: log-mel and magnitude, at several scales."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from uniaudio_jax.audio.spectra import LOG_FLOOR, OVERLAP, magnitudes, mel_filters

SCALES = ((128, 10), (256, 20), (512, 40), (1024, 80), (2048, 120))  # (window in samples, mel bands)


def spectral_losses(
    target: Float[Array, "B S"], output: Float[Array, "B S"], sample_rate_hz: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(log-mel loss, magnitude loss), means over `SCALES`.

    The first is the mean absolute difference of log-mel spectra, in which quiet parts count like loud ones; the second
    the absolute difference of magnitudes relative to the mean of the target row, in which loud parts count most.
    """
    both = jnp.concatenate([target, output])
    mel_loss = magnitude_loss = jnp.zeros(())
    for window, bands in SCALES:
        spectra = magnitudes(both, window, window // OVERLAP)
        mels = jnp.log(spectra @ mel_filters(sample_rate_hz, window, bands) + LOG_FLOOR)
        (target_spectra, output_spectra), (target_mel, output_mel) = jnp.split(spectra, 2), jnp.split(mels, 2)
        size = jnp.mean(target_spectra, axis=(1, 2)) + LOG_FLOOR
        mel_loss += jnp.mean(jnp.abs(target_mel - output_mel))
        magnitude_loss += jnp.mean(jnp.mean(jnp.abs(target_spectra - output_spectra), axis=(1, 2)) / size)
    return mel_loss / len(SCALES), magnitude_loss / len(SCALES)
