"""Text to phone ids: the IPA of espeak-ng over a fixed list of symbols."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int16

from data_pipelines.espeak import CLAUSE_BOUNDARY, WORD_BOUNDARY, phonemes
from uniaudio_jax.vocab import PHONES

UNKNOWN = "<unknown>"
BOUNDARIES = (WORD_BOUNDARY, CLAUSE_BOUNDARY)
MARKS = (
    "ˈˌːˑ.-ʰʲʷˠˤˀʼ˞ⁿᵐᵑᵝˡʱ`+^"  # stress, length, syllable and secondary articulation
    "\u0303\u0329\u032a\u032f\u0325\u030a\u032c\u031d\u031e\u031f\u0320\u033a\u033b\u0361\u0308\u0324\u0330\u0306"
    "0123456789˥˦˧˨˩"  # tones
)
LETTERS = (
    "abcdefghijklmnopqrstuvwxyzæçðøħŋœǀǁǂǃ"
    "ɐɑɒɓɔɕɖɗɘəɚɛɜɝɞɟɠɡɢɣɤɥɦɧɨɪɫɬɭɮɯɰɱɲɳɴɵɶɸɹɺɻɽɾʀʁʂʃʄʈʉʊʋʌʍʎʏʐʑʒʔʕʘʙʛʜʝʟʡʢʦᵻβεθχΦ"
    "AEKNSXZ"
)
SYMBOLS = (UNKNOWN, *BOUNDARIES, *MARKS, *LETTERS)
"""Ids are places in this tuple: only its end may grow."""


class PhoneTokenizer:
    """Phone ids 0 to 304, the slots of the public vocabulary; `unknown` counts the symbols that had no id."""

    name = "espeak_ipa"
    size = PHONES

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256("\n".join(SYMBOLS).encode()).hexdigest()
        self.unknown: Counter[str] = Counter()
        self._ids = {symbol: number for number, symbol in enumerate(SYMBOLS)}

    def encode(self, text: str, language: str = "en-us") -> Int16[np.ndarray, "n"]:
        """Ids of the phones of `text`, with word and clause boundaries.

        Raises ValueError for a text in which espeak finds no phone, and for an unknown language.
        """
        symbols = phonemes(text, language)
        if all(symbol in BOUNDARIES or symbol in MARKS for symbol in symbols):
            raise ValueError(f"PhoneTokenizer.encode: got text {text!r}, in which espeak finds no phones "
                             f"({language}), wanted words")  # fmt: skip
        return self.ids(symbols)

    def ids(self, symbols: Iterable[str]) -> Int16[np.ndarray, "n"]:
        """Ids of phone symbols; symbols that are not in the list become `<unknown>` and are counted."""
        symbols = list(symbols)
        self.unknown.update(symbol for symbol in symbols if symbol not in self._ids)
        return np.array([self._ids.get(symbol, 0) for symbol in symbols], np.int16)

    def decode(self, ids: Sequence[int] | Int16[np.ndarray, "n"]) -> list[str]:
        """The symbols of `ids`. Raises ValueError for an id that has no symbol."""
        if bad := [int(number) for number in ids if not 0 <= number < len(SYMBOLS)]:
            raise ValueError(f"PhoneTokenizer.decode: got ids {bad[:5]}, wanted 0 to {len(SYMBOLS) - 1}")
        return [SYMBOLS[number] for number in ids]
