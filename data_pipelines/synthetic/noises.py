"""Procedural noises, each a function of its random numbers, at any rate in hertz."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from data_pipelines.corpora import SAMPLE_RATE_HZ, Split
from data_pipelines.synthetic.levels import loudness
from data_pipelines.synthetic.sentences import sentence
from data_pipelines.synthetic.texts import read_data
from data_pipelines.synthetic.voices import speech_clip

NOISE_RMS = 0.05
BABBLE_VOICES: list[str] = read_data("voices")["babble"]
HUM_HERTZ, GUSTS_PER_SECOND, DROPS_PER_SECOND = (45.0, 120.0), (0.7, 1.3), (30.0, 200.0)
BEEP_HERTZ, BEEP_SECONDS, BEEP_FADE_SECONDS = (400.0, 2500.0), (0.06, 0.3), 0.005
DROP_SECONDS, DROP_DECAY_SECONDS, DROP_HERTZ = 0.01, (0.0005, 0.0025), (1280.0, 4800.0)


def noise_clip(
    rng: np.random.Generator, seconds: float, kind: str, split: Split = "train", rate: int = SAMPLE_RATE_HZ
) -> Float[np.ndarray, " S"]:
    """A noise of one of the `NOISES`; `split` is that of the sentences in babble."""
    if kind not in NOISES:
        raise ValueError(f"noise_clip: got kind {kind!r}, wanted one of {', '.join(NOISES)}")
    return loudness(NOISES[kind](rng, max(1, round(seconds * rate)), split, rate), NOISE_RMS)


def coloured(
    rng: np.random.Generator, samples: int, exponent: float, rate: int = SAMPLE_RATE_HZ
) -> Float[np.ndarray, " S"]:
    """Noise whose power falls as frequency to the power of `exponent`, above 20 Hz."""
    hertz = np.fft.rfftfreq(samples, 1 / rate)
    spectrum = np.fft.rfft(rng.standard_normal(samples)) * np.maximum(hertz, 20) ** (-exponent / 2)
    spectrum[hertz < 20] = 0
    return np.fft.irfft(spectrum, samples)


def hum(rng: np.random.Generator, samples: int, hertz: float, rate: int = SAMPLE_RATE_HZ) -> Float[np.ndarray, " S"]:
    """A mains or motor hum: harmonics of `hertz` over some pink noise."""
    seconds, harmonics = np.arange(samples) / rate, np.arange(1, 13)
    strengths, phases = rng.uniform(0.1, 1, 12) / harmonics, rng.uniform(0, 2 * np.pi, 12)
    tones = np.sin(2 * np.pi * hertz * harmonics * seconds[:, None] + phases) @ strengths
    return tones + 0.1 * loudness(coloured(rng, samples, 1, rate), 1.0)


def wind(
    rng: np.random.Generator, samples: int, gusts_per_second: float, rate: int = SAMPLE_RATE_HZ
) -> Float[np.ndarray, " S"]:
    """Low noise that swells and falls."""
    knots = rng.uniform(0.1, 1, 3 + int(gusts_per_second * samples / rate))
    swell = np.interp(np.linspace(0, len(knots) - 1, samples), np.arange(len(knots)), knots)
    return coloured(rng, samples, 1.5, rate) * swell


def rain(
    rng: np.random.Generator, samples: int, drops_per_second: float, rate: int = SAMPLE_RATE_HZ
) -> Float[np.ndarray, " S"]:
    """Crackle of drops, each a short ringing click, over faint white noise."""
    drops = np.where(rng.random(samples) < drops_per_second / rate, rng.standard_normal(samples), 0)
    seconds = np.arange(round(DROP_SECONDS * rate)) / rate
    decay_seconds, hertz = rng.uniform(*DROP_DECAY_SECONDS), rng.uniform(*DROP_HERTZ)
    click = np.exp(-seconds / decay_seconds) * np.cos(2 * np.pi * hertz * seconds)
    return np.convolve(drops, click)[:samples] + 0.003 * rng.standard_normal(samples)


def beeps(
    rng: np.random.Generator, samples: int, hertz: tuple[float, float], beep_seconds: float, rate: int = SAMPLE_RATE_HZ
) -> Float[np.ndarray, " S"]:
    """Beeps of one to three pitches within `hertz`, as of an alarm, over faint white noise."""
    noise = 0.01 * rng.standard_normal(samples)
    pitches, length = rng.uniform(*hertz, rng.integers(1, 4)), int(beep_seconds * rate)
    gap, start = int(length * rng.uniform(0.3, 2)), int(rng.integers(0, length))
    for number, first in enumerate(range(start, samples, length + gap)):
        axis = np.arange(min(length, samples - first))
        tone = np.sin(2 * np.pi * pitches[number % len(pitches)] * axis / rate)
        fade = np.minimum(axis, len(axis) - axis) / (BEEP_FADE_SECONDS * rate)
        noise[first : first + len(axis)] += tone * np.minimum(1, fade)
    return noise


def babble(rng: np.random.Generator, samples: int, split: Split, rate: int = SAMPLE_RATE_HZ) -> Float[np.ndarray, " S"]:
    """Three to five people talking at once, none of them a speaker of the corpus."""
    crowd = np.zeros(samples)
    for voice in rng.permutation(BABBLE_VOICES)[: rng.integers(3, 6)]:
        talk = np.concatenate([speech_clip(str(voice), sentence(rng, split), rate=rate) for _ in range(2)])
        crowd += rng.uniform(0.5, 1) * np.resize(np.roll(talk, rng.integers(len(talk))), samples)
    return crowd


NOISES: dict[str, Callable[[np.random.Generator, int, Split, int], np.ndarray]] = {
    "white": lambda rng, samples, split, rate: rng.standard_normal(samples),
    "pink": lambda rng, samples, split, rate: coloured(rng, samples, 1, rate),
    "brown": lambda rng, samples, split, rate: coloured(rng, samples, 2, rate),
    "hum": lambda rng, samples, split, rate: hum(rng, samples, rng.uniform(*HUM_HERTZ), rate),
    "wind": lambda rng, samples, split, rate: wind(rng, samples, rng.uniform(*GUSTS_PER_SECOND), rate),
    "rain": lambda rng, samples, split, rate: rain(rng, samples, rng.uniform(*DROPS_PER_SECOND), rate),
    "beeps": lambda rng, samples, split, rate: beeps(rng, samples, BEEP_HERTZ, rng.uniform(*BEEP_SECONDS), rate),
    "babble": babble,
}
