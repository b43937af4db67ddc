"""Sound clips by rule: what is heard, how slow or high or far it is, and a caption that says so.

Held-out sounds are other draws of the same kinds: their random numbers never come in training, whatever the seed.
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data_pipelines.corpora import SAMPLE_RATE_HZ, Split
from data_pipelines.synthetic import effects, noises
from data_pipelines.synthetic.effects import Draw, Event, Texture, event_count, far_away, place_events
from data_pipelines.synthetic.levels import loudness

SOUND_SECONDS = (2.0, 5.0)
NEAR_RMS, FAR_RMS = (0.07, 0.12), (0.03, 0.045)
FAR_SHARE, NEAR_NAMED_SHARE = 0.35, 0.5
NEAR = (" close by", " nearby", " right in front", " at close range")
FAR = (" in the distance", " far away", " from afar")
NUMBERS = ("", "a single", "two", "three", "four", "five", "six")
CAPTIONS = (
    "{Sound}{place}.",
    "The sound of {sound}{place}.",
    "{Sound} can be heard{place}.",
    "You can hear {sound}{place}.",
    "A recording of {sound}{place}.",
)


@dataclass(frozen=True)
class Range:
    """Values from `least` to `most`, and the words of a caption for them; none for what is usual."""

    words: tuple[str, ...]
    least: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of sound.

    names: noun phrases for it; where one has "(s)", a caption says how often it comes.
    """

    label: str
    names: tuple[str, ...]
    texture: Texture
    hertz: tuple[Range, ...] = (Range((), 0, 0),)
    per_second: tuple[Range, ...] = (Range((), 1, 1),)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A clip at 16 kHz, its labels, and a caption of it."""

    samples: Float[np.ndarray, " S"]
    labels: tuple[str, ...]
    caption: str


def _graded(least: float, most: float, low: tuple[str, ...], high: tuple[str, ...]) -> tuple[Range, ...]:
    """The lower, middle and upper part of a range, with gaps between, so that the words are told apart by ear."""
    ratio = most / least
    return (
        Range(low, least, least * ratio**0.25),
        Range((), least * ratio**0.4, least * ratio**0.6),
        Range(high, least * ratio**0.75, most),
    )


def _events(event: Event, jitter: float = 0.0) -> Texture:
    return functools.partial(place_events, event=event, jitter=jitter)


_pace = functools.partial(_graded, low=("slow", "unhurried", "leisurely"), high=("fast", "quick", "rapid"))
_pitch = functools.partial(_graded, low=("low", "deep", "low-pitched"), high=("high", "high-pitched"))
_tone = functools.partial(_graded, low=("low", "low-pitched"), high=("high", "high-pitched", "shrill"))
_weight = functools.partial(_graded, low=("heavy", "firm"), high=("light", "soft"))
_any = functools.partial(_graded, low=(), high=())

KINDS = (
    Kind(
        label="white noise",
        names=("white noise", "hiss", "steady hissing"),
        texture=lambda rng, draw: noises.coloured(rng, draw.samples, 0),
    ),
    Kind(
        label="pink noise",
        names=("pink noise", "soft rushing noise"),
        texture=lambda rng, draw: noises.coloured(rng, draw.samples, 1),
    ),
    Kind(
        label="brown noise",
        names=("brown noise", "rumbling noise", "a dull rumble"),
        texture=lambda rng, draw: noises.coloured(rng, draw.samples, 2),
    ),
    Kind(
        label="hum",
        names=("a mains hum", "a humming motor", "electric humming"),
        hertz=_pitch(45, 120),
        texture=lambda rng, draw: noises.hum(rng, draw.samples, draw.hertz),
    ),
    Kind(
        label="wind",
        names=("wind", "blowing wind", "wind outdoors"),
        per_second=_graded(0.5, 3, ("gentle", "calm"), ("gusty", "stormy")),
        texture=lambda rng, draw: noises.wind(rng, draw.samples, draw.per_second),
    ),
    Kind(
        label="rain",
        names=("rain", "rain on a roof", "rain outdoors"),
        per_second=_graded(25, 400, ("light", "gentle"), ("heavy", "pouring")),
        texture=lambda rng, draw: noises.rain(rng, draw.samples, draw.per_second),
    ),
    Kind(
        label="babble",
        names=("a crowd talking", "many voices at once", "people talking in a room"),
        texture=lambda rng, draw: noises.babble(rng, draw.samples, draw.split),
    ),
    Kind(
        label="beeps",
        names=("beeps", "electronic beeping", "a beeping machine"),
        hertz=_tone(500, 2800),
        per_second=_pace(1.2, 6),
        texture=_events(effects.beep),
    ),
    Kind(
        label="siren",
        names=("a siren", "a wailing siren", "an emergency siren"),
        hertz=_tone(400, 1800),
        per_second=_pace(0.3, 3.5),
        texture=effects.siren,
    ),
    Kind(
        label="strikes",
        names=("struck metal", "blows on metal", "clanging metal"),
        hertz=_pitch(200, 2500),
        per_second=_pace(0.8, 4),
        texture=_events(effects.strike, 0.5),
    ),
    Kind(
        label="footsteps",
        names=("footsteps", "steps on a floor", "the footsteps of somebody"),
        hertz=_weight(70, 220),
        per_second=_pace(1.1, 3.3),
        texture=_events(effects.footstep, 0.08),
    ),
    Kind(
        label="clock ticking",
        names=("a ticking clock", "clock ticking", "the ticking of a clock"),
        hertz=_pitch(900, 3800),
        per_second=_pace(1, 5),
        texture=_events(effects.tick),
    ),
    Kind(
        label="engine",
        names=("a running engine", "an idling engine", "a motor running"),
        hertz=_pitch(60, 200),
        per_second=_pace(12, 70),
        texture=effects.engine,
    ),
    Kind(
        label="telephone ring",
        names=("ring(s) of a telephone", "telephone ring(s)"),
        hertz=_tone(500, 1400),
        per_second=_any(0.6, 1),
        texture=_events(effects.telephone_ring),
    ),
    Kind(
        label="bell",
        names=("stroke(s) of a bell", "chime(s) of a church bell"),
        hertz=_pitch(180, 1300),
        per_second=_pace(0.5, 2),
        texture=_events(effects.bell),
    ),
    Kind(
        label="bird chirps",
        names=("bird chirps", "a chirping bird", "birdsong"),
        hertz=_tone(2200, 5000),
        per_second=_pace(1, 4),
        texture=_events(effects.chirp, 0.6),
    ),
    Kind(
        label="waves",
        names=("ocean waves", "waves on a beach", "surf"),
        per_second=_pace(0.25, 0.8),
        texture=effects.waves,
    ),
    Kind(
        label="thunder",
        names=("thunder", "a clap of thunder", "rolling thunder"),
        per_second=_any(0.6, 2.5),
        texture=effects.thunder,
    ),
    Kind(
        label="typing",
        names=("typing", "typing on a keyboard", "keyboard clicks"),
        hertz=_any(700, 1100),
        per_second=_pace(2.5, 11),
        texture=_events(effects.key_press, 0.7),
    ),
    Kind(
        label="dripping water",
        names=("dripping water", "drops of water", "a dripping tap"),
        hertz=_pitch(500, 1900),
        per_second=_pace(0.8, 6),
        texture=_events(effects.drip, 0.3),
    ),
    Kind(
        label="knocking",
        names=("knock(s) on a door", "knock(s) on wood"),
        hertz=_pitch(120, 420),
        per_second=_pace(1, 5),
        texture=_events(effects.knock, 0.05),
    ),
    Kind(
        label="horn",
        names=("blast(s) of a car horn", "honk(s) of a car"),
        hertz=_pitch(200, 560),
        per_second=_pace(0.7, 2),
        texture=_events(effects.horn),
    ),
    Kind(
        label="dog barking",
        names=("bark(s) of a dog", "dog bark(s)"),
        hertz=_pitch(180, 620),
        per_second=_pace(0.8, 3),
        texture=_events(effects.bark, 0.2),
    ),
    Kind(
        label="clapping",
        names=("clapping", "hand claps", "clapping hands"),
        hertz=_any(800, 1300),
        per_second=_pace(1.2, 6),
        texture=_events(effects.clap, 0.1),
    ),
    Kind(
        label="saw",
        names=("sawing", "the strokes of a saw", "sawing through wood"),
        hertz=_pitch(700, 1900),
        per_second=_pace(1, 4),
        texture=_events(effects.saw_stroke),
    ),
    Kind(
        label="crickets",
        names=("crickets", "chirping crickets", "crickets at night"),
        hertz=_tone(3200, 5800),
        per_second=_pace(2, 8),
        texture=_events(effects.cricket),
    ),
    Kind(
        label="hammering",
        names=("hammering", "hammer blows", "the blows of a hammer"),
        hertz=_pitch(90, 320),
        per_second=_pace(0.9, 4),
        texture=_events(effects.hammer_blow, 0.15),
    ),
    Kind(
        label="frog",
        names=("a croaking frog", "the croaking of a frog"),
        hertz=_pitch(300, 1100),
        per_second=_pace(0.8, 3),
        texture=_events(effects.croak, 0.2),
    ),
    Kind(
        label="fire crackling",
        names=("a crackling fire", "a wood fire", "a burning log"),
        hertz=_any(1500, 3000),
        per_second=_graded(8, 60, ("small", "quiet"), ("big", "lively")),
        texture=effects.fire,
    ),
    Kind(
        label="helicopter",
        names=("helicopter blades", "the blades of a helicopter"),
        hertz=_any(500, 1100),
        per_second=_pace(7, 20),
        texture=effects.helicopter,
    ),
    Kind(
        label="stream",
        names=("a babbling stream", "a stream", "a brook"),
        hertz=_pitch(400, 1200),
        per_second=_graded(25, 90, ("small", "gentle"), ("strong", "rushing")),
        texture=_events(effects.drip, 3.0),
    ),
    Kind(
        label="drill",
        names=("a drill", "an electric drill", "drilling"),
        hertz=_pitch(70, 320),
        per_second=_any(0.4, 1.2),
        texture=effects.drill,
    ),
)


def sound_clip(rng: np.random.Generator, kind: Kind, split: Split = "train") -> Sound:
    """A sound of 2 to 5 s of one of the `KINDS`; `split` is that of the sentences in babble."""
    pitch, pace = (ranges[rng.integers(len(ranges))] for ranges in (kind.hertz, kind.per_second))
    hertz, per_second = (float(rng.uniform(drawn.least, drawn.most)) for drawn in (pitch, pace))
    samples = round(rng.uniform(*SOUND_SECONDS) * SAMPLE_RATE_HZ)
    draw = Draw(samples=samples, hertz=hertz, per_second=per_second, split=split)
    far = bool(rng.random() < FAR_SHARE)
    audio = kind.texture(rng, draw)
    audio = loudness(far_away(rng, audio) if far else audio, rng.uniform(*(FAR_RMS if far else NEAR_RMS)))
    name = _pick(rng, kind.names)
    count = event_count(draw) if "(s)" in name else 0
    said = (pitch,) if count == 1 else (pace, pitch)  # one event has no pace
    qualities = [_pick(rng, drawn.words) for drawn in said if drawn.words]
    place = _pick(rng, FAR) if far else _pick(rng, NEAR) if rng.random() < NEAR_NAMED_SHARE else ""
    phrase = noun_phrase(name, qualities, count)
    caption = _pick(rng, CAPTIONS).format(sound=phrase, Sound=phrase[0].upper() + phrase[1:], place=place)
    return Sound(samples=audio, labels=(kind.label,), caption=caption)


def noun_phrase(name: str, qualities: list[str], count: int = 0) -> str:
    """`name` with adjectives after its article, and a number: "a slow, deep siren", "three fast knocks on a door"."""
    first, _, rest = name.replace("(s)", "" if count == 1 else "s").partition(" ")
    article, noun = (first, rest) if first in ("a", "an", "the") else ("", f"{first} {rest}".strip())
    words = f"{', '.join(qualities)} {noun}".strip()
    if article in ("a", "an"):
        article = "an" if words[0] in "aeiou" else "a"
    number = NUMBERS[count] if count < len(NUMBERS) else ""
    return f"{number or article} {words}".strip()


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]
