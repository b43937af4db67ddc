"""Languages as ids, under espeak-ng's names, and the name of a language that a user writes in any usual way."""

import functools
import hashlib
from collections.abc import Sequence

import langcodes
import numpy as np
from jaxtyping import Int16

from data_pipelines.tokenizers.tables import read_list
from uniaudio_jax.errors import did_you_mean
from uniaudio_jax.vocab import LANGUAGES

LANGUAGE_NAMES = read_list("languages.txt")
"""Ids are positions in this tuple, and all are taken."""
NAMES = {"en-gb": "en", **{name: name for name in (*LANGUAGE_NAMES, *read_list("further_languages.txt"))}}
"""Tag of a language in BCP 47, in small letters → espeak-ng's name."""
del NAMES["en"]  # espeak's "en" is British, while plain English is taken as American
TAGS = [tag for tag in NAMES if langcodes.tag_is_valid(tag)]
COUNTRIES = {"cn": "cmn", "cz": "cs", "dk": "da", "gr": "el", "jp": "ja", "kr": "ko", "ua": "uk", "en-uk": "en-GB"}
"""Codes of countries that are often written for their languages → tags; se is not here, since it is a language's."""
CANTONESE = ("zh-hk", "zh-mo")
NEAR, NEAREST = 10, 25
"""Distance in the Unicode project's table up to which a language is read as another (Swiss German as German is 8), and
up to which it is only suggested (Nynorsk as Bokmål is 20)."""


class LanguageTokenizer:
    """Ids 0 to 63 of 64 languages."""

    name = "espeak_languages"
    size = LANGUAGES

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256("\n".join(LANGUAGE_NAMES).encode()).hexdigest()
        self._ids = {name: number for number, name in enumerate(LANGUAGE_NAMES)}

    def encode(self, language: str) -> Int16[np.ndarray, " 1"]:
        """The id of a language, "en-us" or "EN-US"; a region without an id of its own has that of its language.

        Raises ValueError for one that is not in the list.
        """
        name = language.casefold()
        while name not in self._ids and "-" in name and language.casefold() in NAMES:
            name = name.rpartition("-")[0]
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


@functools.lru_cache(maxsize=4096)
def language_name(written: str) -> str:
    """espeak-ng's name of a language: "de" of "German", "Deutsch", "ger", "de_AT" and "DE".

    written: a name in English or in the language itself, a code of ISO 639, a tag of BCP 47 with - or _, or espeak-ng's
    name. A region that espeak-ng does not know is read as the nearest one; plain English is American. Raises ValueError
    with the nearest guess for a language that espeak-ng does not speak.
    """
    code = written.strip().casefold().replace("_", "-")
    if code in NAMES:
        return NAMES[code]
    if code in CANTONESE:
        return "yue"
    tag = COUNTRIES.get(code) or _tag(code) or _tag_of_name(written)
    nearest = ""
    # The script of a text says nothing of how it is spoken, so that the language alone is tried after the whole tag.
    for wanted in filter(None, (tag, langcodes.Language.get(tag).language)):
        if wanted.casefold() in NAMES:
            return NAMES[wanted.casefold()]
        nearest, distance = langcodes.closest_match(wanted, TAGS, max_distance=NEAREST)
        if distance <= NEAR:
            return NAMES[nearest]
    known = {langcodes.Language.get(tag).display_name().casefold() for tag in TAGS}
    guess = f"; did you mean {NAMES[nearest]!r}?" if nearest in NAMES else did_you_mean(code, (*known, *NAMES.values()))
    raise ValueError(
        f"got language {written!r}, wanted one that espeak-ng speaks, by name or code, such as 'German', 'de' or "
        f"'de-AT'{guess}"
    )


def _tag(code: str) -> str:
    """The tag in BCP 47 of a code of a language, or nothing for what is none."""
    return langcodes.standardize_tag(code) if langcodes.tag_is_valid(code) else ""


def _tag_of_name(name: str) -> str:
    """The tag of a language by its name, in English or its own; "und" for an unknown one."""
    try:
        return langcodes.find(name.replace("_", " ").strip()).to_tag()
    except LookupError:
        return "und"
