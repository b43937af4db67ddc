"""Sound clips by rule: what is heard, how slow or high or far it is, and a caption that says so.

Held-out sounds are other draws of the same kinds: their random numbers never come in training, whatever the seed.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data_pipelines.corpora import SAMPLE_RATE_HZ, Split, effects, noises
from data_pipelines.corpora.effects import Event, event_count, far_away, lay_out
from data_pipelines.corpora.levels import loudness

SOUND_SECONDS = (2.0, 5.0)
NEAR_RMS, FAR_RMS = (0.07, 0.12), (0.03, 0.045)
FAR_SHARE, PLACE_SHARE = 0.35, 0.5
MOST_COUNTED = 6
COUNTS = ("", "once", "twice", "three times", "four times", "five times", "six times")
PLACES = {
    False: ("close by", "nearby", "right in front", "at close range"),
    True: ("in the distance", "far away", "from afar", "a long way off"),
}
CAPTIONS = (
    "{Sound}{count}{place}.",
    "The sound of {sound}{count}{place}.",
    "{Sound} can be heard{count}{place}.",
    "You can hear {sound}{count}{place}.",
    "A recording of {sound}{count}{place}.",
    "This is {sound}{count}{place}.",
)

Texture = Callable[[np.random.Generator, int, float, float], np.ndarray]
"""Samples of a sound: random numbers, number of samples, how high it is in hertz, its events per second."""


@dataclass(frozen=True)
class Range:
    """Values from `least` to `most`, and the words of a caption for them; none for what is usual."""

    words: tuple[str, ...]
    least: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of sound. names: noun phrases for it; counted: a caption says how often it comes."""

    label: str
    names: tuple[str, ...]
    texture: Texture
    hertz: tuple[Range, ...] = (Range((), 0, 0),)
    per_second: tuple[Range, ...] = (Range((), 1, 1),)
    counted: bool = False


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A clip at 16 kHz, its labels, and a caption of it."""

    samples: Float[np.ndarray, "S"]
    labels: tuple[str, ...]
    caption: str


def _graded(least: float, most: float, low: tuple[str, ...], high: tuple[str, ...]) -> tuple[Range, ...]:
    """The lower, middle and upper part of a range, with gaps between, so that the words are told apart by ear."""
    ratio = most / least
    return (Range(low, least, least * ratio**0.25), Range((), least * ratio**0.4, least * ratio**0.6),
            Range(high, least * ratio**0.75, most))  # fmt: skip


SLOW, FAST = ("slow", "unhurried", "leisurely"), ("fast", "quick", "rapid")
LOW, HIGH = ("low", "deep", "low-pitched"), ("high", "high-pitched", "shrill")
LIGHT, HEAVY = ("light", "gentle", "soft"), ("heavy", "dense", "strong")
_pace = functools.partial(_graded, low=SLOW, high=FAST)
_pitch = functools.partial(_graded, low=LOW, high=HIGH)
_force = functools.partial(_graded, low=LIGHT, high=HEAVY)


def _events(event: Event, jitter: float = 0.0) -> Texture:
    return functools.partial(lay_out, event=event, jitter=jitter)


KINDS = (
    Kind(label="white noise", names=("white noise", "hiss", "steady hissing"),
         texture=lambda rng, samples, hertz, per_second: rng.standard_normal(samples)),
    Kind(label="pink noise", names=("pink noise", "soft rushing noise"),
         texture=lambda rng, samples, hertz, per_second: noises.coloured(rng, samples, 1)),
    Kind(label="brown noise", names=("brown noise", "rumbling noise", "a dull rumble"),
         texture=lambda rng, samples, hertz, per_second: noises.coloured(rng, samples, 2)),
    Kind(label="hum", names=("a mains hum", "a humming motor", "electric humming"), hertz=_pitch(45, 120),
         texture=lambda rng, samples, hertz, per_second: noises.hum(rng, samples, hertz)),
    Kind(label="wind", names=("wind", "blowing wind", "wind outdoors"), per_second=_pace(0.5, 3, ("slow", "calm"),
         ("gusty", "stormy")),
         texture=lambda rng, samples, hertz, per_second: noises.wind(rng, samples, per_second)),
    Kind(label="rain", names=("rain", "falling rain", "rain on a roof"), per_second=_force(25, 400),
         texture=lambda rng, samples, hertz, per_second: noises.rain(rng, samples, per_second)),
    Kind(label="babble", names=("a crowd talking", "many voices at once", "people talking in a room"),
         texture=lambda rng, samples, hertz, per_second: np.zeros(samples)),
    Kind(label="beeps", names=("beeps", "electronic beeping", "a beeping machine"), hertz=_pitch(500, 2800),
         per_second=_pace(1.2, 6), texture=_events(effects.beep)),
    Kind(label="siren", names=("a siren", "a wailing siren", "an emergency siren"), hertz=_pitch(400, 1800),
         per_second=_pace(0.3, 3.5), texture=effects.siren),
    Kind(label="strikes", names=("struck metal", "blows on metal", "clanging metal"), hertz=_pitch(200, 2500),
         per_second=_pace(0.8, 4), texture=_events(effects.strike, 0.5)),
    Kind(label="footsteps", names=("footsteps", "someone's footsteps", "steps on a floor"), hertz=_force(220, 70),
         per_second=_pace(1.1, 3.3), texture=_events(effects.footstep, 0.08)),
    Kind(label="clock ticking", names=("a ticking clock", "clock ticking", "the ticking of a clock"),
         hertz=_pitch(900, 3800), per_second=_pace(1, 5), texture=_events(effects.tick)),
    Kind(label="engine", names=("a running engine", "an engine", "a motor running"), hertz=_pitch(60, 200),
         per_second=_pace(12, 70), texture=effects.engine),
    Kind(label="telephone ring", names=("a ringing telephone", "a telephone"), hertz=_pitch(500, 1400),
         per_second=_pace(0.55, 1), texture=_events(effects.telephone_ring), counted=True),
    Kind(label="bell", names=("a ringing bell", "a bell", "a church bell"), hertz=_pitch(180, 1300),
         per_second=_pace(0.5, 2), texture=_events(effects.bell), counted=True),
    Kind(label="bird chirps", names=("bird chirps", "a chirping bird", "birdsong"), hertz=_pitch(2200, 5000),
         per_second=_pace(1, 4), texture=_events(effects.chirp, 0.6)),
    Kind(label="waves", names=("ocean waves", "waves on a beach", "surf"), per_second=_pace(0.25, 0.8),
         texture=effects.waves),
    Kind(label="thunder", names=("thunder", "a clap of thunder", "rolling thunder"), per_second=_pace(0.6, 2.5, (), ()),
         texture=effects.thunder),
    Kind(label="typing", names=("typing", "typing on a keyboard", "keyboard clicks"), hertz=_pitch(700, 1100, (), ()),
         per_second=_pace(2.5, 11), texture=_events(effects.key_press, 0.7)),
    Kind(label="dripping water", names=("dripping water", "drops of water", "a dripping tap"), hertz=_pitch(500, 1900),
         per_second=_pace(0.8, 6), texture=_events(effects.drip, 0.3)),
    Kind(label="knocking", names=("a knock on a door", "knocking on wood"), hertz=_pitch(120, 420),
         per_second=_pace(1.2, 5), texture=_events(effects.knock, 0.05), counted=True),
    Kind(label="horn", names=("a car horn", "a honking horn"), hertz=_pitch(200, 560), per_second=_pace(0.8, 2),
         texture=_events(effects.horn), counted=True),
    Kind(label="dog barking", names=("a barking dog", "a dog"), hertz=_pitch(180, 620), per_second=_pace(0.9, 3),
         texture=_events(effects.bark, 0.2), counted=True),
    Kind(label="clapping", names=("clapping", "hand claps", "clapping hands"), hertz=_pitch(800, 1300, (), ()),
         per_second=_pace(1.2, 6), texture=_events(effects.clap, 0.1)),
    Kind(label="saw", names=("sawing", "a hand saw", "sawing through wood"), hertz=_pitch(700, 1900),
         per_second=_pace(1, 4), texture=_events(effects.saw_stroke)),
    Kind(label="crickets", names=("crickets", "a chirping cricket", "crickets at night"), hertz=_pitch(3200, 5800),
         per_second=_pace(2, 8), texture=_events(effects.cricket)),
    Kind(label="hammering", names=("hammering", "a hammer", "hammer blows"), hertz=_pitch(90, 320),
         per_second=_pace(0.9, 4), texture=_events(effects.hammer_blow, 0.15)),
    Kind(label="frog", names=("a croaking frog", "a frog"), hertz=_pitch(300, 1100), per_second=_pace(0.8, 3),
         texture=_events(effects.croak, 0.2)),
    Kind(label="fire crackling", names=("a crackling fire", "a wood fire", "burning wood"),
         hertz=_pitch(1500, 3000, (), ()), per_second=_force(8, 60), texture=effects.fire),
    Kind(label="helicopter", names=("a helicopter", "the blades of a helicopter"), hertz=_pitch(60, 120, (), ()),
         per_second=_pace(7, 20), texture=effects.helicopter),
    Kind(label="stream", names=("a babbling stream", "running water", "a brook"), hertz=_pitch(400, 1200),
         per_second=_force(25, 90), texture=_events(effects.drip, 3.0)),
    Kind(label="drill", names=("a drill", "an electric drill", "drilling"), hertz=_pitch(70, 320),
         per_second=_pace(0.4, 1.2, (), ()), texture=effects.drill),
)  # fmt: skip


def sound_clip(rng: np.random.Generator, kind: Kind, split: Split = "train") -> Sound:
    """A sound of 2 to 5 s of one of the `KINDS`; `split` is that of the sentences in babble."""
    samples = round(rng.uniform(*SOUND_SECONDS) * SAMPLE_RATE_HZ)
    pitch, pace = (ranges[rng.integers(len(ranges))] for ranges in (kind.hertz, kind.per_second))
    per_second = float(rng.uniform(pace.least, pace.most))
    if kind.label == "babble":
        audio = noises.babble(rng, samples, split)
    else:
        audio = kind.texture(rng, samples, float(rng.uniform(pitch.least, pitch.most)), per_second)
    far = bool(rng.random() < FAR_SHARE)
    audio = loudness(far_away(rng, audio) if far else audio, rng.uniform(*(FAR_RMS if far else NEAR_RMS)))
    count = event_count(samples, per_second) if kind.counted else 0
    return Sound(samples=audio, labels=(kind.label,), caption=_caption(rng, kind, (pace, pitch), count, far))
