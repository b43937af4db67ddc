"""Procedural noises at 16 kHz, each a function of its random numbers."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from data_pipelines.corpora import SAMPLE_RATE_HZ, Split
from data_pipelines.synthetic.levels import loudness
from data_pipelines.synthetic.sentences import sentence
from data_pipelines.synthetic.voices import speech_clip

NOISE_RMS = 0.05
BABBLE_VOICES = ("en-us+m7", "en-us+aunty", "en-gb-x-rp+f4", "en-us+michel", "en-gb-x-rp+m4", "en-us+Andrea")
HUM_HERTZ, GUSTS_PER_SECOND, DROPS_PER_SECOND = (45.0, 120.0), (0.7, 1.3), (30.0, 200.0)
BEEP_HERTZ, BEEP_SECONDS = (400.0, 2500.0), (0.06, 0.3)


def noise_clip(rng: np.random.Generator, seconds: float, kind: str, split: Split = "train") -> Float[np.ndarray, " S"]:
    """A noise of one of the `NOISES` at 16 kHz; `split` is that of the sentences in babble."""
    if kind not in NOISES:
        raise ValueError(f"noise_clip: got kind {kind!r}, wanted one of {', '.join(NOISES)}")
    return loudness(NOISES[kind](rng, max(1, round(seconds * SAMPLE_RATE_HZ)), split), NOISE_RMS)


def coloured(rng: np.random.Generator, samples: int, exponent: float) -> Float[np.ndarray, " S"]:
    """Noise whose power falls as frequency to the power of `exponent`, above 20 Hz."""
    hertz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(rng.standard_normal(samples)) * np.maximum(hertz, 20) ** (-exponent / 2)
    spectrum[hertz < 20] = 0
    return np.fft.irfft(spectrum, samples)


def hum(rng: np.random.Generator, samples: int, hertz: float) -> Float[np.ndarray, " S"]:
    """A mains or motor hum: harmonics of `hertz` over some pink noise."""
    seconds, harmonics = np.arange(samples) / SAMPLE_RATE_HZ, np.arange(1, 13)
    strengths, phases = rng.uniform(0.1, 1, 12) / harmonics, rng.uniform(0, 2 * np.pi, 12)
    tones = np.sin(2 * np.pi * hertz * harmonics * seconds[:, None] + phases) @ strengths
    return tones + 0.1 * loudness(coloured(rng, samples, 1), 1.0)


def wind(rng: np.random.Generator, samples: int, gusts_per_second: float) -> Float[np.ndarray, " S"]:
    """Low noise that swells and falls."""
    knots = rng.uniform(0.1, 1, 3 + int(gusts_per_second * samples / SAMPLE_RATE_HZ))
    swell = np.interp(np.linspace(0, len(knots) - 1, samples), np.arange(len(knots)), knots)
    return coloured(rng, samples, 1.5) * swell


def rain(rng: np.random.Generator, samples: int, drops_per_second: float) -> Float[np.ndarray, " S"]:
    """Crackle of drops, each a short ringing click, over faint white noise."""
    drops = np.where(rng.random(samples) < drops_per_second / SAMPLE_RATE_HZ, rng.standard_normal(samples), 0)
    time_axis = np.arange(SAMPLE_RATE_HZ // 100)
    click = np.exp(-time_axis / rng.uniform(8, 40)) * np.cos(2 * np.pi * rng.uniform(0.08, 0.3) * time_axis)
    return np.convolve(drops, click)[:samples] + 0.003 * rng.standard_normal(samples)


def beeps(
    rng: np.random.Generator, samples: int, hertz: tuple[float, float], beep_seconds: float
) -> Float[np.ndarray, " S"]:
    """Beeps of one to three pitches within `hertz`, as of an alarm, over faint white noise."""
    out = 0.01 * rng.standard_normal(samples)
    pitches, length = rng.uniform(*hertz, rng.integers(1, 4)), int(beep_seconds * SAMPLE_RATE_HZ)
    gap, start = int(length * rng.uniform(0.3, 2)), int(rng.integers(0, length))
    for number, first in enumerate(range(start, samples, length + gap)):
        count = min(length, samples - first)
        tone = np.sin(2 * np.pi * pitches[number % len(pitches)] * np.arange(count) / SAMPLE_RATE_HZ)
        out[first : first + count] += tone * np.minimum(1, np.minimum(np.arange(count), count - np.arange(count)) / 80)
    return out


def babble(rng: np.random.Generator, samples: int, split: Split) -> Float[np.ndarray, " S"]:
    """Three to five people talking at once, none of them a speaker of the corpus."""
    out = np.zeros(samples)
    for voice in rng.permutation(BABBLE_VOICES)[: rng.integers(3, 6)]:
        talk = np.concatenate([speech_clip(str(voice), sentence(rng, split)) for _ in range(2)])
        out += rng.uniform(0.5, 1) * np.resize(np.roll(talk, rng.integers(len(talk))), samples)
    return out


NOISES: dict[str, Callable[[np.random.Generator, int, Split], np.ndarray]] = {
    "white": lambda rng, samples, split: rng.standard_normal(samples),
    "pink": lambda rng, samples, split: coloured(rng, samples, 1),
    "brown": lambda rng, samples, split: coloured(rng, samples, 2),
    "hum": lambda rng, samples, split: hum(rng, samples, rng.uniform(*HUM_HERTZ)),
    "wind": lambda rng, samples, split: wind(rng, samples, rng.uniform(*GUSTS_PER_SECOND)),
    "rain": lambda rng, samples, split: rain(rng, samples, rng.uniform(*DROPS_PER_SECOND)),
    "beeps": lambda rng, samples, split: beeps(rng, samples, BEEP_HERTZ, rng.uniform(*BEEP_SECONDS)),
    "babble": babble,
}
