"""Phones from a lexicon file, or with their durations, in the ids of `PhoneTokenizer`.

Phone names may be ARPABET (CMUdict, MFA's english_us_arpa) or IPA: all names of one file are of one alphabet.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from data_pipelines.espeak import CLAUSE_BOUNDARY, WORD_BOUNDARY
from data_pipelines.notes import Notes
from data_pipelines.tokenizers.phone import (
    BREATH,
    LENGTH_MARKS,
    MOST_NAMED,
    STRESS_MARKS,
    PhoneTokenizer,
    check_spoken,
    phone_symbols,
    spoken_symbols,
)
from uniaudio_jax.vocab import PHONES

VARIANT = re.compile(r"\(\d+\)$")
PROBABILITY = re.compile(r"\d+\.\d+")
CLAUSE_END = re.compile(r"[.,;:!?…。、，！？]+(?=\s|$)")
EDGES = '.,;:!?…。、，！？"“”„«»‘()[]{}¿¡*_'


class LexiconPhones:
    """Phone ids of words by a lexicon file: a word and its phones on each line, as in CMUdict.

    The first of several pronunciations is used. Numbers such as 0.97 between word and phones are skipped, and so are
    comments after ;;; or #. fallback: whether espeak pronounces the words that the lexicon lacks; else they are errors.
    """

    name = "lexicon"
    size = PHONES

    def __init__(self, path: Path, fallback: bool = False) -> None:
        self.path, self.fallback = path, fallback
        self.phones = PhoneTokenizer()
        self.words = read_lexicon(path)
        rule = f"{self.phones.sha256} fallback={fallback}\n".encode()
        self.sha256 = hashlib.sha256(rule + path.read_bytes()).hexdigest()

    def encode(self, text: str, language: str = "en-us", notes: Notes | None = None) -> Int16[np.ndarray, " n"]:
        """Ids of the phones of `text`, with word and clause boundaries.

        language: espeak's, for the fallback only, which counts in `notes` and refuses what `PhoneTokenizer.encode`
        does. Raises ValueError for a text without words and, without the fallback, for words that the lexicon lacks.
        """
        clauses = [[word for word in clause if word.strip("'")] for clause in _clauses(text)]
        if not any(clauses):
            raise ValueError(f"LexiconPhones.encode: got text {text!r} without words, wanted some")
        missing = sorted({word for clause in clauses for word in clause if self._pronounced(word) is None})
        if missing and not self.fallback:
            raise ValueError(
                f"{self.path}: got no phones of {len(missing)} word(s): {', '.join(missing[:MOST_NAMED])}"
                f"{' …' if len(missing) > MOST_NAMED else ''} (text {text!r}), wanted each word in the lexicon; add "
                "them to it, or let espeak speak them (fallback)"
            )
        spoken = {word: spoken_symbols(word, language) for word in missing}
        unspoken: Counter[str] = Counter()
        joined: list[str] = []
        for clause in clauses:
            boundary = CLAUSE_BOUNDARY
            for word in clause:
                symbols = spoken[word][0] if word in spoken else self._pronounced(word)
                unspoken += spoken[word][1] if word in spoken else Counter()
                if symbols:
                    joined += [boundary, *symbols] if joined else symbols
                    boundary = WORD_BOUNDARY
        check_spoken(text, language, joined, unspoken, notes)
        return self.phones.ids(joined, notes)

    def ids(self, symbols: Iterable[str], notes: Notes | None = None) -> Int16[np.ndarray, " n"]:
        """Ids of phone symbols, as PhoneTokenizer gives them."""
        return self.phones.ids(symbols, notes)

    def decode(self, ids: Sequence[int] | Int16[np.ndarray, " n"]) -> list[str]:
        """The symbols of `ids`. Raises ValueError for an id that has no symbol."""
        return self.phones.decode(ids)

    def _pronounced(self, word: str) -> list[str] | None:
        """The symbols of a word: 'tis may be in the lexicon with its apostrophe, a 'quoted' word is without."""
        return self.words.get(word, self.words.get(word.strip("'")))


def read_lexicon(path: Path) -> dict[str, list[str]]:
    """Lower-case word → its symbols. Raises ValueError that names the line for a word without phones, and for phones
    that are neither ARPABET nor IPA."""
    names: dict[str, list[str]] = {}
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        fields = line.partition(" #")[0].split()
        if not fields or fields[0].startswith((";;;", "#")):
            continue
        phones = [name for name in fields[1:] if not PROBABILITY.fullmatch(name)]
        if not phones:
            raise ValueError(f"{path}:{number}: got {line!r}, wanted a word and its phones between spaces or tabs")
        names.setdefault(VARIANT.sub("", fields[0]).casefold(), phones)
    if not names:
        raise ValueError(f"{path}: got no word, wanted a word and its phones on each line")
    try:
        symbols = phone_symbols([phone for phones in names.values() for phone in phones])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    parts = iter(symbols)
    return {word: [symbol for _ in phones for symbol in next(parts)] for word, phones in names.items()}


def with_durations(
    tokenizer: PhoneTokenizer | LexiconPhones,
    phones: Sequence[tuple[str, float]],
    frame_rate_hz: float,
    notes: Notes | None = None,
) -> Int16[np.ndarray, " T"]:
    """One id for each frame: each phone is repeated for its seconds, round(total seconds * frame_rate_hz) ids in all.

    The ends of phones are rounded, not their lengths, so that errors do not add up. The letters of a phone ("aɪ", "tʃ")
    share its time; stress and length marks take none; breath is a pause. Raises ValueError for an unknown phone, for
    seconds that are negative or not finite, and for a total below one frame.
    """
    seconds = np.array([length for _, length in phones], np.float64)
    if bad := [(name, length) for name, length in phones if not (np.isfinite(length) and length >= 0)]:
        raise ValueError(
            f"with_durations: got {bad[0][1]} s for phone {bad[0][0]!r}, wanted 0 s or more; correct its phones"
        )
    letters, lengths = [], []
    for own, length in zip(spoken_letters([name for name, _ in phones]), seconds, strict=True):
        letters += own
        lengths += [length / len(own)] * len(own)
    ends = np.rint(np.round(np.cumsum(lengths) * frame_rate_hz, 6)).astype(int)
    frames = np.diff(ends, prepend=0)
    if not frames.sum():
        raise ValueError(
            f"with_durations: got {len(phones)} phones of {seconds.sum():g} s in all, wanted at least one "
            f"frame at {frame_rate_hz:g} Hz"
        )
    return np.repeat(tokenizer.ids(letters, notes), frames)


def spoken_letters(phones: Sequence[str]) -> list[list[str]]:
    """The letters of each phone name that take time: stress and length marks take none, and breath is a pause.

    Raises ValueError for an unknown phone.
    """
    return [
        [
            CLAUSE_BOUNDARY if symbol == BREATH else symbol
            for symbol in symbols
            if symbol not in STRESS_MARKS + LENGTH_MARKS
        ]
        for symbols in phone_symbols(phones)
    ]


def _read_text(path: Path) -> str:
    """The text of a UTF-8 file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: got bytes that are not UTF-8 ({error}), wanted a UTF-8 text; convert it, for "
            "example with `iconv -f latin1 -t utf-8`"
        ) from error
    except OSError as error:
        raise ValueError(
            f"{path}: got a file that cannot be read ({error.strerror}), wanted a UTF-8 text; check the path"
        ) from error


def _clauses(text: str) -> list[list[str]]:
    """The lower-case words of each clause, without the punctuation around them; hyphens separate words."""
    plain = re.sub(r"[\s\-–—/]+", " ", text.casefold().replace("’", "'"))
    clauses = [[word.strip(EDGES) for word in clause.split()] for clause in CLAUSE_END.split(plain)]
    return [[word for word in clause if word] for clause in clauses]
