"""Speech in a stated manner: who speaks, how fast, how high and how loud, and an instruction that says so."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data_pipelines.corpora import Split
from data_pipelines.synthetic.levels import loudness
from data_pipelines.synthetic.sentences import Grammar, sentence
from data_pipelines.synthetic.texts import filled, pick, read_data
from data_pipelines.synthetic.voices import fits, speech_clip


@dataclass(frozen=True)
class Manner:
    """One way to speak: the range of its setting, and the words for it, which the usual way does without."""

    least: float
    most: float
    adverbs: Sequence[str] = ()
    adjectives: Sequence[str] = ()


WORDS = read_data("instructed")
SPEAKERS: dict[str, list[str]] = WORDS["speakers"]
"""espeak voices → words for the person who is heard."""
RATES = tuple(Manner(**row) for row in WORDS["rates"])
"""Slow, usual and fast, in words per minute."""
PITCHES = tuple(Manner(**row) for row in WORDS["pitches"])
"""Low, usual and high, in espeak's pitch, where 50 is the voice's own."""
LEVELS = tuple(Manner(**row) for row in WORDS["levels"])
"""Quiet, usual and loud, as a root mean square."""
LIMITER_DRIVE = 4.0
"""A loud voice is limited by tanh of its samples times this, so that single peaks do not keep it quiet."""


@dataclass(frozen=True, kw_only=True)
class Instructed:
    """A clip with its words and the instruction that it follows."""

    samples: Float[np.ndarray, " S"]
    text: str
    instruction: str


def instructed_clip(
    rng: np.random.Generator, speaker: str, split: Split = "train", grammar: Grammar = "sentences"
) -> Instructed:
    """A sentence of `split` by one of the `SPEAKERS` in a drawn manner, 1.5 to 5 s long."""
    manners = [pick(rng, manners) for manners in (RATES, LEVELS, PITCHES)]
    rate, level, pitch = (float(rng.uniform(manner.least, manner.most)) for manner in manners)
    while True:
        text = sentence(rng, split, grammar)
        samples = speech_clip(speaker, text, level, words_per_minute=round(rate), pitch=round(pitch))
        if fits(samples):
            break
    if level >= LEVELS[-1].least:
        samples = np.tanh(samples * (LIMITER_DRIVE / np.abs(samples).max()))
    return Instructed(samples=loudness(samples, level), text=text, instruction=instruction(rng, speaker, manners))


def instruction(rng: np.random.Generator, speaker: str, manners: Sequence[Manner]) -> str:
    """A sentence that says who speaks, and which of the manners (of rate, level and pitch) are not usual."""
    if rng.random() < 0.5:
        words = [manner.adverbs for manner in manners if manner.adverbs] or [WORDS["usual_adverbs"]]
        templates = WORDS["by_adverbs"]
    else:
        words = [manner.adjectives for manner in manners if manner.adjectives] or [WORDS["usual_adjectives"]]
        templates = WORDS["by_adjectives"]
    *first, last = [pick(rng, options) for options in words]
    how = f"{', '.join(first)} and {last}" if first else last
    who = pick(rng, SPEAKERS[speaker])
    return filled(pick(rng, templates), who=who, how=how)
