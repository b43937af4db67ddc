"""The word lists of the synthetic corpus, kept in data/*.json, and how sentences are put together from them."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

FOLDER = Path(__file__).parent / "data"

Item = TypeVar("Item")


@functools.cache
def read_data(name: str) -> dict[str, Any]:
    """The contents of data/`name`.json, shared by all callers, who must not change them."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def pick(rng: np.random.Generator, options: Sequence[Item]) -> Item:
    """One of the options, each equally likely."""
    return options[int(rng.integers(len(options)))]


def capitalised(text: str) -> str:
    """`text` with a capital letter at its start; the rest stays as it is."""
    return text[:1].upper() + text[1:]


def filled(template: str, **words: str) -> str:
    """`template` with each {word} replaced by that word, and each {Word} by that word with a capital letter."""
    return template.format(**words, **{capitalised(name): capitalised(word) for name, word in words.items()})
