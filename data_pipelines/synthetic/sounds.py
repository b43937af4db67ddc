"""Sound clips by rule, and captions that say what is heard and how slow, high or far away it is.

Held-out sounds are of the same kinds, drawn with random numbers that training never sees, whatever the seed.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from data_pipelines.corpora import SAMPLE_RATE_HZ, Split
from data_pipelines.synthetic import effects, noises
from data_pipelines.synthetic.effects import Draw, Texture, event_count, far_away, place_events
from data_pipelines.synthetic.levels import loudness
from data_pipelines.synthetic.texts import filled, pick, read_data

SOUND_SECONDS = (2.0, 5.0)
NEAR_RMS, FAR_RMS = (0.07, 0.12), (0.03, 0.045)
FAR_SHARE, NEAR_NAMED_SHARE = 0.35, 0.5
WORDS = read_data("sounds")
NEAR: list[str] = WORDS["near"]
FAR: list[str] = WORDS["far"]
NUMBERS: list[str] = WORDS["numbers"]


@dataclass(frozen=True)
class Range:
    """Values from `least` to `most`, and a caption's adjectives for them, which the usual values do without."""

    words: Sequence[str]
    least: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of sound."""

    label: str
    names: Sequence[str]
    """Noun phrases for it; with one that has "(s)", the caption counts the events."""
    texture: Texture
    hertz: tuple[Range, ...] = (Range((), 0, 0),)
    per_second: tuple[Range, ...] = (Range((), 1, 1),)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A clip at 16 kHz, its labels, and a caption of it."""

    samples: Float[np.ndarray, " S"]
    labels: tuple[str, ...]
    caption: str


def _ranges(least: float, most: float, words: str) -> tuple[Range, ...]:
    """The lower, middle and upper part of a range, with gaps between, so that the words are told apart by ear."""
    ratio, adjectives = most / least, WORDS["words"][words]
    return (
        Range(adjectives["low"], least, least * ratio**0.25),
        Range((), least * ratio**0.4, least * ratio**0.6),
        Range(adjectives["high"], least * ratio**0.75, most),
    )


NOISE_TEXTURES: dict[str, Texture] = {
    "white": lambda rng, draw: noises.coloured(rng, draw.samples, 0),
    "pink": lambda rng, draw: noises.coloured(rng, draw.samples, 1),
    "brown": lambda rng, draw: noises.coloured(rng, draw.samples, 2),
    "hum": lambda rng, draw: noises.hum(rng, draw.samples, draw.hertz),
    "wind": lambda rng, draw: noises.wind(rng, draw.samples, draw.per_second),
    "rain": lambda rng, draw: noises.rain(rng, draw.samples, draw.per_second),
    "babble": lambda rng, draw: noises.babble(rng, draw.samples, draw.split),
}


def _kind(row: dict[str, Any]) -> Kind:
    """A kind of sound as data/sounds.json lists it.

    It has a texture, one of those above or a function of effects.py, or an event, also a function of effects.py, which
    comes again and again. hertz and per_second are the lowest and the highest value, and the name of their adjectives.
    """
    if "event" in row:
        event = getattr(effects, row["event"])
        texture = functools.partial(place_events, event=event, jitter=row.get("jitter", 0.0))
    else:
        texture = NOISE_TEXTURES.get(row["texture"]) or getattr(effects, row["texture"])
    ranges = {name: _ranges(*row[name]) for name in ("hertz", "per_second") if name in row}
    return Kind(label=row["label"], names=row["names"], texture=texture, **ranges)


KINDS = tuple(_kind(row) for row in WORDS["kinds"])


def sound_clip(rng: np.random.Generator, kind: Kind, split: Split = "train") -> Sound:
    """A sound of 2 to 5 s of one of the `KINDS`; `split` is that of the sentences in babble."""
    pitch, pace = pick(rng, kind.hertz), pick(rng, kind.per_second)
    hertz, per_second = (float(rng.uniform(drawn.least, drawn.most)) for drawn in (pitch, pace))
    samples = round(rng.uniform(*SOUND_SECONDS) * SAMPLE_RATE_HZ)
    draw = Draw(samples=samples, hertz=hertz, per_second=per_second, split=split)
    far = bool(rng.random() < FAR_SHARE)
    audio = kind.texture(rng, draw)
    audio = loudness(far_away(rng, audio) if far else audio, rng.uniform(*(FAR_RMS if far else NEAR_RMS)))
    name = pick(rng, kind.names)
    count = event_count(draw) if "(s)" in name else 0
    named = (pitch,) if count == 1 else (pace, pitch)  # a single event has no pace
    qualities = [pick(rng, drawn.words) for drawn in named if drawn.words]
    place = pick(rng, FAR) if far else pick(rng, NEAR) if rng.random() < NEAR_NAMED_SHARE else ""
    caption = filled(pick(rng, WORDS["captions"]), sound=noun_phrase(name, qualities, count), place=place)
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
