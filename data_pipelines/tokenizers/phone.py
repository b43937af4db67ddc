"""Text to phone ids: the IPA of espeak-ng over a fixed list of symbols."""

import functools
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int16

from data_pipelines.espeak import CLAUSE_BOUNDARY, WORD_BOUNDARY, phonemes
from data_pipelines.notes import Notes, note
from data_pipelines.tokenizers.tables import read_pairs
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
"""Ids are positions in this tuple: only its end may grow."""
STRESS_MARKS, LENGTH_MARKS = "ˈˌ", "ːˑ"
MOST_NAMED = 10
MOST_UNSPOKEN = 0.1
"""Share of a text's letters that espeak may leave out: audio that says more than its phones teaches the wrong words."""
UNLISTED = -1

BREATH = "<breath>"
SILENCES = {"", "sil", "sp", "pau", "h#", "<sil>", "<eps>", CLAUSE_BOUNDARY}
BREATHS = {"ap", "br", "breath", BREATH}
NOISES = {"spn", "nsn", UNKNOWN}

ARPABET = read_pairs("arpabet.tsv")
"""ARPABET phone → the symbols that espeak writes for American English; unstressed AH0, ER0 and IY0 differ."""
STRESSES = {"0": "", "1": "ˈ", "2": "ˌ"}

NEAR_CODE_POINTS, FEWEST_LETTERS, COMPARED_SYMBOLS = 24, 3, 3
"""For `_is_read`: code points compared on each side, letters below which nothing is decided, symbols compared."""


class PhoneTokenizer:
    """Phone ids 0 to 304, the slots of the public vocabulary."""

    name = "espeak_ipa"
    size = PHONES

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256("\n".join(SYMBOLS).encode()).hexdigest()
        self._ids = {symbol: number for number, symbol in enumerate(SYMBOLS)}

    def encode(self, text: str, language: str = "en-us", notes: Notes | None = None) -> Int16[np.ndarray, " n"]:
        """Ids of the phones of `text`, with word and clause boundaries.

        Characters that espeak does not speak in this language are left out and counted in `notes`. Raises ValueError
        where no phone is left or `MOST_UNSPOKEN` is passed, and for an unknown language.
        """
        symbols, unspoken = spoken_symbols(text, language)
        check_spoken(text, language, symbols, unspoken, notes)
        return self.ids(symbols, notes)

    def ids(self, symbols: Iterable[str], notes: Notes | None = None) -> Int16[np.ndarray, " n"]:
        """Ids of phone symbols; symbols that are not in the list become `<unknown>`, and `notes` counts them."""
        ids = np.array([self._ids.get(symbol, UNLISTED) for symbol in symbols], np.int16)
        note(notes, "phones without an id", int(np.count_nonzero(ids == UNLISTED)))
        return np.maximum(ids, 0)

    def decode(self, ids: Sequence[int] | Int16[np.ndarray, " n"]) -> list[str]:
        """The symbols of `ids`. Raises ValueError for an id that has no symbol."""
        if bad := [int(number) for number in ids if not 0 <= number < len(SYMBOLS)]:
            raise ValueError(f"PhoneTokenizer.decode: got ids {bad[:5]}, wanted 0 to {len(SYMBOLS) - 1}")
        return [SYMBOLS[number] for number in ids]


def spoken_symbols(text: str, language: str) -> tuple[list[str], Counter[str]]:
    """The IPA symbols of what espeak speaks of `text`, and the characters that it does not speak, counted.

    Raises ValueError for an unknown language, and for a text that espeak crashes at.
    """
    unspoken = Counter(character for character in text if not _is_spoken(character, language))
    return phonemes(text.translate({ord(character): " " for character in unspoken}), language), unspoken


def check_spoken(
    text: str, language: str, symbols: Iterable[str], unspoken: Counter[str], notes: Notes | None = None
) -> None:
    """Counts in `notes` what `spoken_symbols` left out of a text.

    Raises ValueError where no phone is left, and where more than `MOST_UNSPOKEN` of the letters are left out.
    """
    if all(symbol in BOUNDARIES or symbol in MARKS for symbol in symbols):
        raise ValueError(
            f"phones: got text {text!r}, in which espeak finds no phones in language {language!r}, "
            "wanted words of that language; correct the text, or name its language"
        )
    letters = sum(map(_is_letter, text))
    if (lost := sum(count for character, count in unspoken.items() if _is_letter(character))) > MOST_UNSPOKEN * letters:
        named = " ".join(list(unspoken)[:MOST_NAMED]) + (" …" if len(unspoken) > MOST_NAMED else "")
        raise ValueError(
            f"phones: got text {text!r}, of which espeak does not speak {lost} of {letters} letters in language "
            f"{language!r} ({named}), wanted at most {MOST_UNSPOKEN:.0%}; write them as words of that language, or "
            "name the language of the text"
        )
    note(notes, "characters not spoken", unspoken.total())
    note(notes, "clips with characters not spoken", int(bool(unspoken)))


def phone_symbols(phones: Sequence[str]) -> list[list[str]]:
    """The symbols of each phone name, stress included; the names are ARPABET if all of them can be, otherwise IPA.

    Silence ("sil", "sp", "pau", "") is the clause boundary, breath ("AP", "br") `BREATH`, and noise ("spn")
    `<unknown>`. Raises ValueError for names of neither alphabet.
    """
    names = sorted(set(phones))
    arpabet = {name: _mark(name) or _arpabet(name) for name in names}
    if all(arpabet.values()):
        return [arpabet[name] for name in phones]
    ipa = {name: _mark(name) or _ipa(name) for name in names}
    bad = [
        name
        for name, symbols in ipa.items()
        if not set(symbols) <= {*SYMBOLS, BREATH} or set(symbols) <= set(STRESS_MARKS + LENGTH_MARKS)
    ]
    if bad:
        # One unknown name makes an ARPABET file look like IPA: report that name rather than all the others.
        not_arpabet = [name for name in names if not arpabet[name]]
        reported = not_arpabet if len(not_arpabet) < len(bad) else bad
        raise ValueError(
            f"got phones {', '.join(reported[:MOST_NAMED])}{' …' if len(reported) > MOST_NAMED else ''}, wanted "
            "ARPABET (HH AH0 L OW1) or IPA that espeak uses (h ə l oʊ)"
        )
    return [ipa[name] for name in phones]


def _mark(name: str) -> list[str]:
    """The symbol of a name for silence, breath or noise, or none."""
    named = ((SILENCES, CLAUSE_BOUNDARY), (BREATHS, BREATH), (NOISES, UNKNOWN))
    return [symbol for names, symbol in named if name.casefold() in names]


def _arpabet(name: str) -> list[str]:
    """The symbols of an ARPABET phone, or none. Vowels may have a stress digit."""
    upper = name.upper()
    digit = upper[-1:] if upper[-1:] in STRESSES and upper[0] in "AEIOU" else ""
    symbols = ARPABET.get(upper) or ARPABET.get(upper.removesuffix(digit), "")
    return list(STRESSES.get(digit, "") + symbols) if symbols else []


def _ipa(name: str) -> list[str]:
    """The symbols of an IPA phone as espeak writes them: without ties between letters, and with the IPA's g."""
    decomposed = unicodedata.normalize("NFD", re.sub("[\u0361\u035c]", "", name).replace("g", "ɡ"))
    return list(decomposed.replace("c\u0327", "ç"))


def _is_letter(character: str) -> bool:
    """Whether a character is a letter or a mark of one, such as a vowel sign."""
    return unicodedata.category(character)[0] in "LM"


@functools.lru_cache(maxsize=65536)
def _is_spoken(character: str, language: str) -> bool:
    """Whether espeak speaks a character, or need not, as for punctuation, spaces and accents."""
    kind = unicodedata.category(character)
    if character.isascii() or kind[0] not in "LMNS":
        return True
    if kind[0] in "NS":
        return _sound(character, language) != ""
    if kind in ("Ll", "Lo", "Lu"):
        return _is_read(character, language)
    letters = _letters_near(character)  # vowel signs and other marks are spoken where the letters of the script are
    return not letters or any(_is_read(letter, language) for letter in letters)


@functools.lru_cache(maxsize=65536)
def _is_read(letter: str, language: str) -> bool:
    """Whether the language reads a letter rather than spells it out.

    espeak spells a foreign letter after its script's name or "letter" ("Chinese letter", "letter one six a"), or leaves
    it silent. Most letters around it then begin with the same sounds, which tells them from letters that are read.
    """
    if _script(letter) == "HANGUL":  # espeak reads it in every language, and neighbouring syllables do begin alike
        return True
    beginnings = [_sound(near, language)[:COMPARED_SYMBOLS] for near in _letters_near(letter)]
    alike = beginnings.count(_sound(letter, language)[:COMPARED_SYMBOLS])
    return len(beginnings) < FEWEST_LETTERS or alike <= len(beginnings) / 2


def _letters_near(character: str) -> list[str]:
    """The letters around a character whose Unicode names begin with the same word: those of its script."""
    script, point = _script(character), ord(character)
    around = map(chr, range(max(0, point - NEAR_CODE_POINTS), point + NEAR_CODE_POINTS + 1))
    return [near for near in around if unicodedata.category(near) in ("Ll", "Lo", "Lu") and _script(near) == script]


def _script(character: str) -> str:
    return unicodedata.name(character, "").replace("-", " ").partition(" ")[0]


@functools.lru_cache(maxsize=65536)
def _sound(character: str, language: str) -> str:
    return "".join(symbol for symbol in phonemes(character, language) if symbol not in STRESS_MARKS)
