"""English sentences for synthetic voices, drawn from a grammar: the small one in data/sentences.json, whose 240 words
are learned fast, or the one of 800 words in data/wide_sentences.json, for models that shall say anything."""

import re
from typing import Literal

import numpy as np

from data_pipelines.corpora import Split, split_of
from data_pipelines.synthetic.texts import capitalised, pick, read_data

HELDOUT_EVERY = 10
SLOT = re.compile(r"\{(\w+)\}")

Grammar = Literal["sentences", "wide_sentences"]


def sentence(rng: np.random.Generator, split: Split = "train", grammar: Grammar = "sentences") -> str:
    """A sentence of `split`. The split is decided by the sentence's text, so that no seed trains on a held-out one."""
    data = read_data(grammar)
    while True:
        text = SLOT.sub(lambda slot: _word(rng, data["words"], slot[1]), pick(rng, data["templates"]))
        if sentence_split(text) == split:
            return text


def sentence_split(text: str) -> Split:
    """The split in which a sentence may be used, by any voice and any task."""
    return split_of(text, HELDOUT_EVERY)


def _word(rng: np.random.Generator, words: dict[str, list[str]], slot: str) -> str:
    word = pick(rng, words[slot.lower()])
    return capitalised(word) if slot[0].isupper() else word
