"""The espeak-ng engine as a process of its own, which `espeak.py` starts and asks over a pipe.

The library aborts its process at some texts, such as 70 times "s'". Here that costs one answer. The process needs
nothing but the standard library, so that it starts in a twentieth of a second.
"""

import _ctypes
import ctypes
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: samples go to the callback, within the call
DO_NOT_EXIT = 0x8000
PHONEME_EVENTS, EVENTS_IN_IPA = 1, 2
UTF8 = 1
IPA = 2
BUFFER_MILLISECONDS = 200
RATE_PARAMETER, PITCH_PARAMETER = 1, 3
LAST_EVENT, PHONEME_EVENT = 0, 7
BYTES_PER_SAMPLE = 2


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


class Engine:
    """The library, whose state is static: one text at a time. data: its folder espeak-ng-data."""

    def __init__(self, library: str, data: str) -> None:
        self.library_path, self.data = library, Path(data)
        self.callback = SynthCallback(self._collect)
        self.chunks: list[bytes] = []
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
        self.language: str | None = None  # of the last clauses

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

    def speech(
        self, text: str, voice: str, words_per_minute: int, pitch: int
    ) -> tuple[bytes, int, list[tuple[str, float]]]:
        """Samples as 16-bit integers, their rate, and each phone with the second at which it starts."""
        self.reopen()
        self.set_voice(voice)
        self.library.espeak_SetParameter(RATE_PARAMETER, words_per_minute, 0)
        self.library.espeak_SetParameter(PITCH_PARAMETER, pitch, 0)
        self.chunks.clear()
        self.phones.clear()
        data = text.encode()
        self.library.espeak_Synth(data, len(data) + 1, 0, 1, 0, UTF8, None, None)
        return b"".join(self.chunks), self.rate, self.phones

    def clauses(self, text: str, language: str) -> list[str]:
        """The IPA of each clause of `text`, with the marks of a switch to another language."""
        if self.language != language:  # selecting it takes as long as a short text
            self.language = None
            self.set_voice(language)
            self.language = language
        data = text.replace("\0", " ").encode()
        clauses, rest = [], ctypes.c_char_p(data)
        # An empty rest may still hold a clause, which would come before the next text; after the last one it is null.
        while rest.value is not None and len(clauses) <= len(data):
            clauses.append((self.library.espeak_TextToPhonemes(ctypes.byref(rest), UTF8, IPA) or b"").decode())
        return clauses

    def _collect(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self.chunks.append(ctypes.string_at(samples, count * BYTES_PER_SAMPLE))
        number = 0
        while (event := events[number]).type != LAST_EVENT:
            if event.type == PHONEME_EVENT:
                self.phones.append((event.value.string.decode(errors="ignore"), event.milliseconds / 1000))
            number += 1
        return 0


def serve(connection: Connection, library: str, data: str) -> None:
    """Answers (method, arguments) with what the engine's method returns or raises, until the asker is gone."""
    engine = None
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            engine = engine or Engine(library, data)
            reply = getattr(engine, method)(*arguments)
        except ValueError as error:
            reply = error
        connection.send(reply)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected, and leaves no core file
    serve(Connection(int(sys.argv[1])), *sys.argv[2:])
