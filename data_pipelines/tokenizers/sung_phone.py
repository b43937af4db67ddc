"""Text to ids of sung phones: only the letters of espeak's IPA, at most 68."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int16

from data_pipelines.espeak import CLAUSE_BOUNDARY, WORD_BOUNDARY
from data_pipelines.tokenizers.phone import BREATH, MARKS, UNKNOWN, spoken_symbols
from data_pipelines.tokenizers.tables import read_pairs
from uniaudio_jax.vocab import SUNG_PHONES

NASAL = "\u0303"
SUNG_LETTERS = "aeiouyæøœɐɑɒɔəɚɛɜɨɪɯʉʊʌᵻbcdfhjklmnpqrstvwxzçðŋɕɟɡɣɲɹɽɾʁʃʋʎʑʒʔβθχ"
SUNG_SYMBOLS = (UNKNOWN, CLAUSE_BOUNDARY, BREATH, NASAL, *SUNG_LETTERS)
"""Unknown, silence, breath, the mark of nasal vowels, and the letters that espeak writes most often in texts of 36
languages. Ids are positions in this tuple, and all are taken."""
NEAREST = read_pairs("sung_letters.tsv")
"""Rarer letter → the letter of the list that is sung most like it."""


class SungPhoneTokenizer:
    """Ids of sung phones: 0 unknown, 1 silence, 2 breath, then letters.

    Stress, length and tones are left out, since the melody sets them, and so are word boundaries, which are not sung.
    `dropped` counts the characters of texts that espeak does not speak, `unknown` the letters without an id.
    """

    name = "espeak_sung"
    size = SUNG_PHONES

    def __init__(self) -> None:
        rule = "\n".join((*SUNG_SYMBOLS, *(f"{letter}={near}" for letter, near in NEAREST.items())))
        self.sha256 = hashlib.sha256(rule.encode()).hexdigest()
        self.dropped: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self._ids = {symbol: number for number, symbol in enumerate(SUNG_SYMBOLS)}

    def encode(self, text: str, language: str = "en-us") -> Int16[np.ndarray, " n"]:
        """Ids of the phones of lyrics, with silence between clauses.

        Raises ValueError for a text in which espeak finds no phone, and for an unknown language.
        """
        symbols, dropped = spoken_symbols(text, language)
        self.dropped.update(dropped)
        return self.ids(symbols)

    def ids(self, symbols: Iterable[str]) -> Int16[np.ndarray, " n"]:
        """Ids of phone symbols. Marks and word boundaries are left out, and rare letters get the id of the nearest; a
        symbol without an id becomes `<unknown>` and is counted."""
        sung = [symbol for symbol in symbols if symbol == NASAL or symbol not in (WORD_BOUNDARY, *MARKS)]
        near = [NEAREST.get(symbol, symbol) for symbol in sung]
        self.unknown.update(symbol for symbol in near if symbol not in self._ids)
        return np.array([self._ids.get(symbol, 0) for symbol in near], np.int16)

    def decode(self, ids: Sequence[int] | Int16[np.ndarray, " n"]) -> list[str]:
        """The symbols of `ids`. Raises ValueError for an id that has no symbol."""
        if bad := [int(number) for number in ids if not 0 <= number < len(SUNG_SYMBOLS)]:
            raise ValueError(f"SungPhoneTokenizer.decode: got ids {bad[:5]}, wanted 0 to {len(SUNG_SYMBOLS) - 1}")
        return [SUNG_SYMBOLS[number] for number in ids]
