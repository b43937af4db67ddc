"""Speech and phones from the espeak-ng engine, through ctypes.

espeak-ng is GPL and an optional extra: this file alone touches it, and loads the library of the package
`espeakng_loader` at the first call.
"""

import _ctypes
import ctypes
import functools
import re
import threading
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from uniaudio_jax.packages import load_package

SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: samples go to the callback, within the call
DO_NOT_EXIT = 0x8000
PHONEME_EVENTS, EVENTS_IN_IPA = 1, 2
UTF8 = 1
IPA = 2
BUFFER_MILLISECONDS = 200
RATE_PARAMETER, PITCH_PARAMETER = 1, 3
WORDS_PER_MINUTE, PITCH = 175, 50
"""espeak's own defaults."""
WORDS_PER_MINUTE_RANGE, PITCH_RANGE = (80, 450), (0, 99)
LAST_EVENT, PHONEME_EVENT = 0, 7
WORD_BOUNDARY, CLAUSE_BOUNDARY = " ", "|"
LANGUAGE_SWITCH = re.compile(r"\([a-z0-9-]+\)")

LOCK = threading.Lock()


class EventValue(ctypes.Union):
    """The value of an event: the phoneme's symbols, for one of PHONEME_EVENT."""

    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class Event(ctypes.Structure):
    """espeak_EVENT of espeak-ng's speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("value", EventValue),
    )


SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


class Speech(NamedTuple):
    """Float32 samples within -1 … 1, their rate, and each phone in IPA with the second at which it starts.

    Pauses are phones with an empty name. A stress mark is part of the vowel's name.
    """

    samples: Float[np.ndarray, " S"]
    sample_rate_hz: int
    phones: tuple[tuple[str, float], ...]


class Engine:
    """The one engine of a process. Its state is static in the library, so that every use must hold `LOCK`."""

    def __init__(self) -> None:
        loader = load_package("espeakng_loader", "phones and espeak's voices", "pip install uniaudio_jax[quickstart]")
        self.library_path, self.data = loader.get_library_path(), Path(loader.get_data_path())
        self.callback = SynthCallback(self._collect)
        self.chunks: list[np.ndarray] = []
        self.phones: list[tuple[str, float]] = []
        self.open()

    def open(self) -> None:
        """Loads the library with fresh state."""
        self.library = ctypes.CDLL(self.library_path)
        self.library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        self.library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        options = DO_NOT_EXIT | PHONEME_EVENTS | EVENTS_IN_IPA
        self.rate = self.library.espeak_Initialize(SYNCHRONOUS, BUFFER_MILLISECONDS, str(self.data).encode(), options)
        if self.rate <= 0:
            raise ValueError(
                f"espeak: got status {self.rate} on loading {self.data}, wanted a sample rate; "
                "install the package espeakng_loader again"
            )
        self.library.espeak_SetSynthCallback(self.callback)

    def reopen(self) -> None:
        """Unloads the library and loads it again, about 6 ms.

        The synthesiser's phases carry over from one utterance to the next, so that samples are a function of text and
        voice only in a fresh library.
        """
        self.library.espeak_Terminate()
        _ctypes.dlclose(self.library._handle)
        self.open()

    def set_voice(self, voice: str) -> None:
        """Selects a voice. espeak ignores an unknown variant silently, so that its file is looked for here."""
        _, plus, variant = voice.partition("+")
        known = not plus or (bool(variant) and (self.data / "voices" / "!v" / variant).is_file())
        if not known or self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(
                f"espeak: got voice {voice!r}, wanted one that it knows, such as 'en-us', 'en-gb-x-rp+f2' "
                "or 'de'; its folder espeak-ng-data holds them in lang/ and voices/!v/"
            )

    def _collect(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self.chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        number = 0
        while (event := events[number]).type != LAST_EVENT:
            if event.type == PHONEME_EVENT:
                self.phones.append((event.value.string.decode(errors="ignore"), event.milliseconds / 1000))
            number += 1
        return 0


@functools.cache
def engine() -> Engine:
    """The engine of this process, loaded at the first call."""
    return Engine()


def speak(
    text: str, voice: str, *, words_per_minute: int = WORDS_PER_MINUTE, pitch: int = PITCH
) -> tuple[Float[np.ndarray, " S"], int]:
    """Samples and rate of `speak_with_phones`."""
    speech = speak_with_phones(text, voice, words_per_minute=words_per_minute, pitch=pitch)
    return speech.samples, speech.sample_rate_hz


def speak_with_phones(text: str, voice: str, *, words_per_minute: int = WORDS_PER_MINUTE, pitch: int = PITCH) -> Speech:
    """`text` spoken by `voice` (such as "en-us+m3") at 22050 Hz.

    words_per_minute: 80 to 450. pitch: 0 to 99, with the voice's own at 50. The samples depend only on the arguments,
    except for variants with breath noise (`f2`, `f3`, `f5`, `whisper` and others), which differ between processes.
    Raises ValueError for an unknown voice, a setting out of range, or a text without sound.
    """
    settings = (
        (RATE_PARAMETER, "words_per_minute", words_per_minute, WORDS_PER_MINUTE_RANGE),
        (PITCH_PARAMETER, "pitch", pitch, PITCH_RANGE),
    )
    for _, name, value, (least, most) in settings:
        if not least <= value <= most:
            raise ValueError(f"espeak: got {name}={value}, wanted {least} to {most}")
    with LOCK:
        engine().reopen()
        engine().set_voice(voice)
        for parameter, _, value, _ in settings:
            engine().library.espeak_SetParameter(parameter, value, 0)
        engine().chunks.clear()
        engine().phones.clear()
        data = text.encode()
        engine().library.espeak_Synth(data, len(data) + 1, 0, 1, 0, UTF8, None, None)
        chunks, phones = engine().chunks.copy(), tuple(engine().phones)
    samples = np.concatenate([*chunks, np.zeros(0, np.int16)])
    if not samples.any():
        raise ValueError(f"espeak: got text {text!r}, in which {voice!r} finds nothing to say; wanted some words")
    return Speech(samples.astype(np.float32) / 32768, engine().rate, phones)


def phonemes(text: str, language: str = "en-us") -> list[str]:
    """The IPA symbols of `text`, one code point each: stress, length, nasal and tone marks are symbols of their own.

    Words are separated by " " and clauses by "|". A text without words gives an empty list. Raises ValueError for an
    unknown language.
    """
    clauses = []
    with LOCK:
        engine().set_voice(language)
        data = text.replace("\0", " ").encode()
        rest = ctypes.c_char_p(data)
        while rest.value:
            before = len(rest.value)
            clauses.append(engine().library.espeak_TextToPhonemes(ctypes.byref(rest), UTF8, IPA) or b"")
            if rest.value is not None and len(rest.value) >= before:
                break
    words = [LANGUAGE_SWITCH.sub("", clause.decode()).split() for clause in clauses]
    spoken = CLAUSE_BOUNDARY.join(WORD_BOUNDARY.join(clause) for clause in words if clause)
    return list(unicodedata.normalize("NFD", spoken).replace("c\u0327", "\u00e7"))
