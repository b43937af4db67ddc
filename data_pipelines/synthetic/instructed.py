"""Speech in a stated manner: who speaks, how fast, how high and how loud, and an instruction that says so."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data_pipelines.corpora import Split
from data_pipelines.synthetic.levels import loudness
from data_pipelines.synthetic.sentences import sentence
from data_pipelines.synthetic.voices import fits, speech_clip

SPEAKERS = {
    "en-us+m3": ("a man",),
    "en-us+f4": ("a woman",),
    "en-us+grandpa": ("an old man", "an elderly man"),
    "en-gb-x-rp+steph3": ("a British woman", "an Englishwoman"),
    "en-us+rob": ("a man", "a young man"),
    "en-us+Annie": ("a girl", "a young woman"),
    "en-gb-x-rp+m2": ("a British man", "an Englishman"),
    "en-us+grandma": ("an old woman", "an elderly woman"),
    "en-us+Denis": ("a man", "a grown man"),
    "en-us+steph2": ("a woman", "a lady"),
}
"""espeak voices, and words for who is heard."""


@dataclass(frozen=True)
class Manner:
    """One way to speak. least, most: of its setting. adverbs and adjectives: words for it, none for what is usual."""

    least: float
    most: float
    adverbs: tuple[str, ...] = ()
    adjectives: tuple[str, ...] = ()


RATES = (
    Manner(105, 130, ("slowly", "at a slow pace", "without any hurry"), ("slow", "unhurried")),
    Manner(160, 185),
    Manner(215, 250, ("quickly", "fast", "at a rapid pace", "in a hurry"), ("fast", "hurried")),
)
"""Words per minute."""
PITCHES = (
    Manner(12, 22, ("in a low voice", "in a deep voice", "at a low pitch"), ("deep", "low-pitched")),
    Manner(45, 55),
    Manner(76, 90, ("in a high voice", "at a high pitch", "in a shrill voice"), ("high-pitched", "shrill")),
)
"""espeak's pitch, 50 for the voice's own."""
LEVELS = (
    Manner(0.012, 0.02, ("quietly", "softly", "in a hushed way"), ("quiet", "faint")),
    Manner(0.05, 0.06),
    Manner(0.14, 0.18, ("loudly", "at full volume", "with a raised voice"), ("loud", "booming")),
)
"""Root mean square."""
PRESSED = 4.0
"""A loud voice is limited by tanh of this much, so that its peaks leave it room to be loud."""
USUAL_ADVERBS = ("at a normal pace and level", "in a normal voice", "plainly")
USUAL_ADJECTIVES = ("ordinary", "plain")
BY_ADVERBS = (
    "{Who} speaks {how}.",
    "{Who} says this {how}.",
    "Speak {how}, as {who} would.",
    "Read it {how}, like {who}.",
    "It is said {how} by {who}.",
    "{Who} is talking {how}.",
)
BY_ADJECTIVES = (
    "The voice of {who}, {how}.",
    "{How} speech of {who}.",
    "Say it like {who}: {how}.",
    "{Who} speaks; it sounds {how}.",
    "I want {who} to be heard, {how}.",
)


@dataclass(frozen=True, kw_only=True)
class Instructed:
    """A clip at 16 kHz, its words, and the instruction that it follows."""

    samples: Float[np.ndarray, " S"]
    text: str
    instruction: str


def instructed_clip(rng: np.random.Generator, speaker: str, split: Split = "train") -> Instructed:
    """A sentence of `split` by one of the `SPEAKERS` in a drawn manner, 1.5 to 5 s long."""
    manners = [options[rng.integers(len(options))] for options in (RATES, LEVELS, PITCHES)]
    rate, level, pitch = (float(rng.uniform(manner.least, manner.most)) for manner in manners)
    while True:
        text = sentence(rng, split)
        samples = speech_clip(speaker, text, level, words_per_minute=round(rate), pitch=round(pitch))
        if fits(samples):
            pressed = np.tanh(samples * (PRESSED / np.abs(samples).max())) if level >= LEVELS[-1].least else samples
            order = instruction(rng, speaker, manners)
            return Instructed(samples=loudness(pressed, level), text=text, instruction=order)


def instruction(rng: np.random.Generator, speaker: str, manners: list[Manner]) -> str:
    """A sentence that says who speaks and all that is not usual in the manners (of rate, level and pitch)."""
    by_adverbs = bool(rng.random() < 0.5)
    if by_adverbs:
        words = [manner.adverbs for manner in manners if manner.adverbs] or [USUAL_ADVERBS]
    else:
        words = [manner.adjectives for manner in manners if manner.adjectives] or [USUAL_ADJECTIVES]
    said = [_pick(rng, options) for options in words]
    how = " and ".join(filter(None, (", ".join(said[:-1]), said[-1])))
    who = _pick(rng, SPEAKERS[speaker])
    form = _pick(rng, BY_ADVERBS if by_adverbs else BY_ADJECTIVES)
    return form.format(who=who, how=how, Who=who[0].upper() + who[1:], How=how[0].upper() + how[1:])


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]
