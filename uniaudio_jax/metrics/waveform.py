"""Measures of a waveform against a reference. Signals of unequal length are cut to the shorter one.

A measure that has no value against a reference (silent, too short) is nan, so that a mean over clips can leave it out.
A silent estimate has the worst value, not nan. An empty, non-finite or many-channelled signal is a ValueError.
"""

import warnings

import numpy as np
import soxr
from jaxtyping import Float

from uniaudio_jax.audio import spectra

SI_SDR_LIMIT_DB = 100.0
PESQ_RATE_HZ = 16000


def stoi(reference: Float[np.ndarray, " S"], estimate: Float[np.ndarray, " S"], rate: int) -> float:
    """Short-time objective intelligibility, 0 to 1 and higher is better (Taal et al. 2011, by pystoi).

    nan when the reference holds less than about 0.4 s of sound, which is one window of the measure. A silent estimate
    gives about 0.
    """
    try:
        import pystoi  # an optional extra
    except ImportError as error:
        raise ValueError(
            "stoi: got no package pystoi, wanted it for this metric; run `pip install uniaudio_jax[quickstart]`"
        ) from error
    reference, estimate = _cut("stoi", reference, estimate)
    if not reference.any():
        return float("nan")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
        try:
            return float(pystoi.stoi(reference, estimate, rate))
        except (RuntimeWarning, ValueError, IndexError):  # the last two: shorter than one frame of the measure
            return float("nan")


def pesq(reference: Float[np.ndarray, " S"], estimate: Float[np.ndarray, " S"], rate: int) -> float:
    """Perceptual evaluation of speech quality, 1 to 4.64 and higher is better (ITU-T P.862.2 wideband, by pesq).

    Rates other than 16 kHz are resampled. nan when the measure finds no utterance in the reference.
    """
    try:
        from pesq import NoUtterancesError, PesqError  # an optional extra
        from pesq import pesq as measure
    except ImportError as error:
        raise ValueError(
            "pesq: got no package pesq, wanted it for this metric; "
            "run `pip install pesq==0.0.4` (it needs a C compiler)"
        ) from error
    reference, estimate = _cut("pesq", reference, estimate)
    if rate != PESQ_RATE_HZ:
        reference, estimate = (soxr.resample(signal, rate, PESQ_RATE_HZ) for signal in (reference, estimate))
    try:
        return float(measure(PESQ_RATE_HZ, reference, estimate, "wb"))
    except (NoUtterancesError, PesqError):
        return float("nan")


def mel_distance(reference: Float[np.ndarray, " S"], estimate: Float[np.ndarray, " S"], rate: int) -> float:
    """Mean absolute difference of the natural logarithms of 80 mel magnitudes (window 1024, hop 256); lower is better.

    Silence has a value: magnitudes have a floor of 1e-5, where a full-scale sine is about 1.
    """
    return spectra.mel_distance(*_cut("mel_distance", reference, estimate), rate)


def si_sdr_db(reference: Float[np.ndarray, " S"], estimate: Float[np.ndarray, " S"]) -> float:
    """Scale-invariant signal to distortion ratio in dB, higher is better (Le Roux et al. 2019, equation 5).

    Means are taken off first. The value is kept within ±100 dB: 100 for the reference itself at any scale, -100 for a
    silent estimate. nan when the reference is silent or constant.
    """
    reference, estimate = _cut("si_sdr_db", reference, estimate)
    if np.ptp(reference) == 0:
        return float("nan")
    if np.ptp(estimate) == 0:
        return -SI_SDR_LIMIT_DB
    reference, estimate = (signal - signal.mean(dtype=np.float64) for signal in (reference, estimate))
    target = np.dot(estimate, reference) / np.dot(reference, reference) * reference
    good, bad = np.dot(target, target), np.square(estimate - target).sum()
    if good == 0:
        return -SI_SDR_LIMIT_DB
    return float(np.clip(10 * np.log10(good / max(bad, good * 1e-20)), -SI_SDR_LIMIT_DB, SI_SDR_LIMIT_DB))


def as_long(signal: Float[np.ndarray, " S"], samples: int) -> Float[np.ndarray, " samples"]:
    """The first `samples` of a signal, with silence after its end: what ended too early is judged as silent there."""
    return np.pad(signal, (0, max(0, samples - len(signal))))[:samples]


def _cut(where: str, reference: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both signals at the length of the shorter one."""
    signals = np.asarray(reference), np.asarray(estimate)
    for name, signal in zip(("reference", "estimate"), signals, strict=True):
        if signal.ndim != 1 or not signal.size or not np.isfinite(signal).all():
            raise ValueError(f"{where}: got a {name} of shape {signal.shape}, wanted finite samples [S], at least one")
    length = min(map(len, signals))
    return signals[0][:length], signals[1][:length]
