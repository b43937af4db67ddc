"""English sentences for synthetic voices, drawn from the small grammar in data/sentences.json."""

import re

import numpy as np

from data_pipelines.corpora import Split, split_of
from data_pipelines.synthetic.texts import capitalised, pick, read_data

HELDOUT_EVERY = 10
SLOT = re.compile(r"\{(\w+)\}")


def sentence(rng: np.random.Generator, split: Split = "train") -> str:
    """A sentence of `split`. The split is decided by the sentence's text, so that no seed trains on a held-out one."""
    templates = read_data("sentences")["templates"]
    while True:
        text = SLOT.sub(lambda slot: _word(rng, slot[1]), pick(rng, templates))
        if sentence_split(text) == split:
            return text


def sentence_split(text: str) -> Split:
    """The split in which a sentence may be used, by any voice and any task."""
    return split_of(text, HELDOUT_EVERY)


def _word(rng: np.random.Generator, slot: str) -> str:
    word = pick(rng, read_data("sentences")["words"][slot.lower()])
    return capitalised(word) if slot[0].isupper() else word
