"""Sounds of things, machines and animals by formula, at SAMPLE_RATE_HZ.

An event is a single sound, such as a knock, at a pitch in hertz; a texture goes on for a whole clip.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data_pipelines.corpora import SAMPLE_RATE_HZ, Split
from data_pipelines.synthetic.noises import coloured

FIRST_EVENT_SECONDS, LEAST_EVENT_SECONDS = 0.05, 0.15
FADE_SAMPLES = SAMPLE_RATE_HZ // 200
ECHO_SECONDS, FAR_HERTZ = 0.4, 1500.0
BELL_PARTIALS = (
    (0.5, 0.6, 0.7),
    (1, 1, 1),
    (1.19, 0.7, 1.2),
    (1.5, 0.4, 1.6),
    (2, 0.8, 1.8),
    (2.67, 0.4, 2.6),
    (3.01, 0.3, 3.2),
)
"""Of a cast bell: frequency over that of its strike note, strength, rate of decay over that of its strike note."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The random values of a texture."""

    samples: int
    hertz: float
    """How high it sounds."""
    per_second: float
    """Events, turns or swells a second."""
    split: Split
    """The split of the sentences in it."""

    @property
    def seconds(self) -> np.ndarray:
        """The time of each sample."""
        return np.arange(self.samples) / SAMPLE_RATE_HZ


Event = Callable[[np.random.Generator, float], np.ndarray]
Texture = Callable[[np.random.Generator, Draw], np.ndarray]


def event_count(draw: Draw) -> int:
    """How many events `place_events` puts into a clip, at least one."""
    seconds = draw.samples / SAMPLE_RATE_HZ - FIRST_EVENT_SECONDS - LEAST_EVENT_SECONDS
    return 1 + max(0, int(seconds * draw.per_second))


def place_events(rng: np.random.Generator, draw: Draw, event: Event, jitter: float = 0.0) -> Float[np.ndarray, " S"]:
    """Events at a steady pace; `jitter` is how late each may be, in parts of their distance."""
    out = np.zeros(draw.samples)
    for number in range(event_count(draw)):
        start = int((FIRST_EVENT_SECONDS + (number + jitter * rng.random()) / draw.per_second) * SAMPLE_RATE_HZ)
        sound = rng.uniform(0.8, 1) * event(rng, draw.hertz)
        sound[-FADE_SAMPLES:] *= np.linspace(1, 0, FADE_SAMPLES)
        sound = sound[: max(0, draw.samples - start)]
        out[start : start + len(sound)] += sound
    return out


def far_away(rng: np.random.Generator, samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
    """`samples` as heard from a distance: duller, and with echoes as loud as the sound itself."""
    count = _count(ECHO_SECONDS)
    echo = rng.standard_normal(count) * np.exp(-np.linspace(0, 6, count))
    echo *= 1 / np.sqrt(np.sum(echo**2))
    echo[0] += 1
    size = len(samples) + len(echo)
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(samples, size) * np.fft.rfft(echo, size) / (1 + (hertz / FAR_HERTZ) ** 2)
    return np.fft.irfft(spectrum, size)[: len(samples)]


def _count(seconds: float) -> int:
    """How many samples last `seconds`."""
    return round(seconds * SAMPLE_RATE_HZ)


def _axis(seconds: float) -> np.ndarray:
    """The time of each sample of `seconds`."""
    return np.arange(_count(seconds)) / SAMPLE_RATE_HZ


def _ramps(axis: np.ndarray, seconds: float, ramp_seconds: float) -> np.ndarray:
    """1, with a ramp up at the start and a ramp down at the end of `seconds`."""
    return np.minimum(1, np.minimum(axis, seconds - axis) / ramp_seconds)


def _ringing(hertz: float, seconds: float, decay_seconds: float) -> np.ndarray:
    """A sine that dies away by e in `decay_seconds`."""
    axis = _axis(seconds)
    return np.sin(2 * np.pi * hertz * axis) * np.exp(-axis / decay_seconds)


def _burst(
    rng: np.random.Generator, seconds: float, decay_seconds: float, least_hertz: float, most_hertz: float
) -> np.ndarray:
    """Noise between two frequencies that dies away."""
    axis = _axis(seconds)
    spectrum, hertz = np.fft.rfft(rng.standard_normal(len(axis))), np.fft.rfftfreq(len(axis), 1 / SAMPLE_RATE_HZ)
    spectrum[(hertz < least_hertz) | (hertz > most_hertz)] = 0
    noise = np.fft.irfft(spectrum, len(axis))
    return noise / max(1e-9, np.abs(noise).max()) * np.exp(-axis / decay_seconds)


def _glide(hertz: np.ndarray) -> np.ndarray:
    """A sine of a frequency for each sample."""
    return np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE_HZ)


def _swelling(count: int) -> np.ndarray:
    """A rise from 0 to 1 and back over `count` samples."""
    return np.sin(np.linspace(0, np.pi, count)) ** 2


def footstep(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """Heel and sole: a thump, and a scuff 60 ms later."""
    heel = _ringing(hertz * rng.uniform(0.9, 1.1), 0.2, 0.03)
    heel += 0.5 * _burst(rng, 0.2, 0.02, 2 * hertz, 20 * hertz)
    sole = np.pad(0.5 * _burst(rng, 0.14, 0.03, hertz, 12 * hertz), (_count(0.06), 0))
    return heel + sole


def tick(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """A click of the wheel of a clock."""
    return _ringing(hertz * rng.choice((1, 0.85)), 0.04, 0.004) + 0.3 * _ringing(2.3 * hertz, 0.04, 0.002)


def telephone_ring(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """One ring of 0.8 s: two bells, hit 20 times a second."""
    axis = _axis(0.8)
    bells = np.sin(2 * np.pi * hertz * axis) + 0.7 * np.sin(2 * np.pi * 1.26 * hertz * axis)
    return bells * np.exp(-((axis * 20) % 1) * 2) * np.minimum(1, (0.8 - axis) / 0.05)


def bell(rng: np.random.Generator, hertz: float) -> np.ndarray:
    partials = [strength * _ringing(ratio * hertz, 3.0, 0.9 / faster) for ratio, strength, faster in BELL_PARTIALS]
    return np.sum(partials, axis=0)


def chirp(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """One to three quick notes, each sliding up or down."""
    notes = []
    for _ in range(rng.integers(1, 4)):
        count = int(rng.uniform(0.04, 0.1) * SAMPLE_RATE_HZ)
        first, last = hertz * rng.uniform(0.8, 1.25, 2)
        notes += [_glide(np.geomspace(first, last, count)) * _swelling(count), np.zeros(_count(0.025))]
    return np.concatenate(notes)


def drip(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """A drop that falls into water: a bubble whose pitch rises as it dies away."""
    axis, start = _axis(0.12), hertz * rng.uniform(0.85, 1.15)
    return _glide(start * (1 + 6 * axis)) * np.exp(-axis / 0.025) * np.minimum(1, axis / 0.002)


def knock(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """Knuckles on wood."""
    wood = _ringing(hertz, 0.15, 0.025) + 0.6 * _ringing(2.4 * hertz, 0.15, 0.015)
    return wood + 0.4 * _burst(rng, 0.15, 0.005, 300, 5000)


def horn(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """0.35 s of two notes a third apart, with many harmonics."""
    axis = _axis(0.35)
    tones = sum(
        np.sin(2 * np.pi * number * ratio * hertz * axis) / number for number in range(1, 9) for ratio in (1, 1.26)
    )
    return tones * _ramps(axis, 0.35, 0.02)


def bark(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """A rough voice that falls in pitch, with a mouth that opens and closes."""
    count = int(rng.uniform(0.15, 0.22) * SAMPLE_RATE_HZ)
    pitch = hertz * np.linspace(1.15, 0.7, count) * (1 + 0.08 * coloured(rng, count, 1) / 0.5)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ
    voice = sum(np.sin(number * phase) * np.exp(-(((number * hertz - 1100) / 900) ** 2)) for number in range(1, 12))
    return (voice + 0.3 * rng.standard_normal(count)) * _swelling(count) ** 0.5


def clap(rng: np.random.Generator, hertz: float) -> np.ndarray:
    return _burst(rng, 0.12, 0.012, hertz * 0.6, hertz * 3)


def saw_stroke(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """Teeth over wood for 0.2 s: a rasp of 60 teeth a second."""
    rasp = _burst(rng, 0.2, 10.0, hertz, 4 * hertz)
    return rasp * _swelling(len(rasp)) * (1 + np.sin(2 * np.pi * 60 * _axis(0.2)))


def cricket(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """Three pulses of one note."""
    pulse = np.sin(2 * np.pi * hertz * _axis(0.018)) * _swelling(_count(0.018))
    return np.tile(np.pad(pulse, (0, _count(0.012))), 3)


def key_press(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """A key down, and up again more softly."""
    down = _burst(rng, 0.09, 0.006, hertz, 6 * hertz) + 0.4 * _ringing(hertz / 4, 0.09, 0.01)
    soft = 0.3 * _burst(rng, 0.04, 0.004, 1.5 * hertz, 7 * hertz)
    up = np.pad(soft, (int(rng.uniform(0.0375, 0.05) * SAMPLE_RATE_HZ), 0))
    down[: len(up)] += up[: len(down)]
    return down


def strike(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """A struck piece of metal: two partials of a free bar, and some noise, dying away."""
    hertz, decay = hertz * rng.uniform(0.7, 1.4), rng.uniform(0.03, 0.2)
    metal = _ringing(hertz, 0.7, decay) + 0.5 * _ringing(2.76 * hertz, 0.7, decay)
    return metal + rng.random() * _burst(rng, 0.7, decay / 3, 100, 7000)


def hammer_blow(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """A hammer on a nail in wood: a dull thump and a short metal sound."""
    return _ringing(hertz, 0.2, 0.03) + 0.5 * _ringing(9.7 * hertz, 0.2, 0.02) + _burst(rng, 0.2, 0.006, 500, 6000)


def croak(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """A note of 0.3 s in 60 pulses a second."""
    axis = _axis(0.3)
    return np.sin(2 * np.pi * hertz * axis) * np.exp(-((axis * 60) % 1) * 4) * _swelling(len(axis))


def beep(rng: np.random.Generator, hertz: float) -> np.ndarray:
    axis = _axis(0.1)
    return np.sin(2 * np.pi * hertz * axis) * _ramps(axis, 0.1, 0.005)


def siren(rng: np.random.Generator, draw: Draw) -> Float[np.ndarray, " S"]:
    """A tone that swings by half around its pitch."""
    return _glide(draw.hertz * (1 + 0.5 * np.sin(2 * np.pi * (draw.per_second * draw.seconds + rng.random()))))


def engine(rng: np.random.Generator, draw: Draw) -> Float[np.ndarray, " S"]:
    """Strokes of four unequal cylinders, which shake a body."""
    stroke, within = np.divmod(draw.seconds * draw.per_second, 1)
    strength = rng.uniform(0.6, 1, 4)[stroke.astype(int) % 4]
    body = np.sin(2 * np.pi * draw.hertz * draw.seconds)
    return strength * np.exp(-3 * within) * (body + 0.7 * _noise(rng, draw, 1.0))


def waves(rng: np.random.Generator, draw: Draw) -> Float[np.ndarray, " S"]:
    """Surf: noise that swells quickly and runs out slowly."""
    phase = (draw.per_second * draw.seconds + rng.random()) % 1
    swell = np.minimum(phase / 0.3, (1 - phase) / 0.7) ** 1.5
    return (0.05 + swell) * _noise(rng, draw, 1.5) + 0.25 * swell**2 * _noise(rng, draw, 0.0)


def thunder(rng: np.random.Generator, draw: Draw) -> Float[np.ndarray, " S"]:
    """A crack, and a rumble that comes again and dies away."""
    again = 1 + 0.7 * np.sin(2 * np.pi * draw.per_second * draw.seconds + rng.uniform(0, 6))
    rumble, crack = _noise(rng, draw, 2.0), _noise(rng, draw, 0.0)
    return np.exp(-draw.seconds / 1.2) * again * rumble + 0.8 * np.exp(-draw.seconds / 0.08) * crack


def fire(rng: np.random.Generator, draw: Draw) -> Float[np.ndarray, " S"]:
    """Pops of wood over a faint roar."""
    pops = np.zeros(draw.samples)
    for start in rng.integers(draw.samples, size=event_count(draw)):
        pop = rng.exponential(0.4) * _burst(rng, 0.02, 0.003, 0.5 * draw.hertz, 2 * draw.hertz)
        pops[start : start + len(pop)] += pop[: draw.samples - start]
    return pops + 0.04 * _noise(rng, draw, 1.5)


def helicopter(rng: np.random.Generator, draw: Draw) -> Float[np.ndarray, " S"]:
    """Blades that chop the air, over the whine of a turbine."""
    chop = np.exp(-4 * ((draw.seconds * draw.per_second) % 1))
    return chop * _noise(rng, draw, 1.5) + 0.1 * np.sin(2 * np.pi * draw.hertz * draw.seconds)


def drill(rng: np.random.Generator, draw: Draw) -> Float[np.ndarray, " S"]:
    """A buzzing motor that is pressed and let go."""
    load = 1 - 0.15 * np.sin(2 * np.pi * draw.per_second * draw.seconds + rng.uniform(0, 6))
    turn = np.cumsum(draw.hertz * load) / SAMPLE_RATE_HZ % 1
    return turn - 0.5 + 0.3 * turn * _noise(rng, draw, 0.0)


def _noise(rng: np.random.Generator, draw: Draw, exponent: float) -> np.ndarray:
    noise = coloured(rng, draw.samples, exponent)
    return noise / noise.std()
