"""Languages as ids, under espeak-ng's names."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int16

from data_pipelines.tokenizers.tables import read_list
from uniaudio_jax.errors import did_you_mean
from uniaudio_jax.vocab import LANGUAGES

LANGUAGE_NAMES = read_list("languages.txt")
"""Ids are positions in this tuple, and all are taken."""


class LanguageTokenizer:
    """Ids 0 to 63 of 64 languages."""

    name = "espeak_languages"
    size = LANGUAGES

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256("\n".join(LANGUAGE_NAMES).encode()).hexdigest()
        self._ids = {name: number for number, name in enumerate(LANGUAGE_NAMES)}

    def encode(self, language: str) -> Int16[np.ndarray, " 1"]:
        """The id of a language, "en-us" or "EN-US". Raises ValueError for one that is not in the list."""
        name = language.casefold()
        if name not in self._ids:
            raise ValueError(
                f"LanguageTokenizer.encode: got language {language!r}, wanted one of "
                f"{', '.join(LANGUAGE_NAMES)}{did_you_mean(name, LANGUAGE_NAMES)}"
            )
        return np.array([self._ids[name]], np.int16)

    def decode(self, ids: Sequence[int] | Int16[np.ndarray, " n"]) -> list[str]:
        """The names of `ids`. Raises ValueError for an id that has no language."""
        if bad := [int(number) for number in ids if not 0 <= number < len(LANGUAGE_NAMES)]:
            raise ValueError(f"LanguageTokenizer.decode: got ids {bad[:5]}, wanted 0 to {len(LANGUAGE_NAMES) - 1}")
        return [LANGUAGE_NAMES[number] for number in ids]
