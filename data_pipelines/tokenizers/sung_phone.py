"""Text to ids of sung phones: only the letters of espeak's IPA, at most 68."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int16

from data_pipelines.espeak import CLAUSE_BOUNDARY, WORD_BOUNDARY
from data_pipelines.notes import Notes, note
from data_pipelines.tokenizers.phone import BREATH, MARKS, UNKNOWN, UNLISTED, check_spoken, spoken_symbols
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
    """

    name = "espeak_sung"
    size = SUNG_PHONES

    def __init__(self) -> None:
        rule = "\n".join((*SUNG_SYMBOLS, *(f"{letter}={near}" for letter, near in NEAREST.items())))
        self.sha256 = hashlib.sha256(rule.encode()).hexdigest()
        self._ids = {symbol: number for number, symbol in enumerate(SUNG_SYMBOLS)}

    def encode(self, text: str, language: str = "en-us", notes: Notes | None = None) -> Int16[np.ndarray, " n"]:
        """Ids of the phones of lyrics, with silence between clauses.

        notes and errors: as those of `PhoneTokenizer.encode`.
        """
        symbols, unspoken = spoken_symbols(text, language)
        check_spoken(text, language, symbols, unspoken, notes)
        return self.ids(symbols, notes)

    def ids(self, symbols: Iterable[str], notes: Notes | None = None) -> Int16[np.ndarray, " n"]:
        """Ids of phone symbols. Marks and word boundaries are left out, and rare letters get the id of the nearest; a
        symbol without an id becomes `<unknown>`, and `notes` counts it."""
        sung = [symbol for symbol in symbols if symbol == NASAL or symbol not in (WORD_BOUNDARY, *MARKS)]
        ids = np.array([self._ids.get(NEAREST.get(symbol, symbol), UNLISTED) for symbol in sung], np.int16)
        note(notes, "phones without an id", int(np.count_nonzero(ids == UNLISTED)))
        return np.maximum(ids, 0)

    def decode(self, ids: Sequence[int] | Int16[np.ndarray, " n"]) -> list[str]:
        """The symbols of `ids`. Raises ValueError for an id that has no symbol."""
        if bad := [int(number) for number in ids if not 0 <= number < len(SUNG_SYMBOLS)]:
            raise ValueError(f"SungPhoneTokenizer.decode: got ids {bad[:5]}, wanted 0 to {len(SUNG_SYMBOLS) - 1}")
        return [SUNG_SYMBOLS[number] for number in ids]
