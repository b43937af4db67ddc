"""Speech and phones from the espeak-ng engine, through ctypes.

espeak-ng is GPL and an optional extra: this file is the only one that touches it, and it loads the library of the
package `espeakng_loader` at the first call.
"""

import ctypes
import functools
import importlib
import threading
import unicodedata

import numpy as np
from jaxtyping import Float

RETRIEVAL = 1  # espeak_AUDIO_OUTPUT: samples go to the callback
DO_NOT_EXIT = 0x8000
UTF8 = 1
IPA = 2
NO_ERROR = 0
BUFFER_MILLISECONDS = 200
PHONE_SEPARATOR = "_"
WORD_BOUNDARY = " "
CLAUSE_BOUNDARY = "|"

SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Engine:
    """The one engine of a process. Its state is global to the library, so every call holds the lock."""

    def __init__(self) -> None:
        try:
            loader = importlib.import_module("espeakng_loader")
        except ImportError as error:
            raise ValueError("espeak: got no package `espeakng_loader`, wanted it for phones and for the quickstart's "
                             "voices; run `pip install uniaudio_jax[quickstart]`") from error  # fmt: skip
        self.lock = threading.Lock()
        self.voice = ""
        self.chunks: list[np.ndarray] = []
        self.library = ctypes.CDLL(loader.get_library_path())
        self.library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        path = loader.get_data_path()
        self.rate = self.library.espeak_Initialize(RETRIEVAL, BUFFER_MILLISECONDS, path.encode(), DO_NOT_EXIT)
        if self.rate <= 0:
            raise ValueError(f"espeak: got status {self.rate} on loading {path}, wanted a sample rate; "
                             "install the package `espeakng_loader` again")  # fmt: skip
        self.callback = SynthCallback(self._collect)
        self.library.espeak_SetSynthCallback(self.callback)

    def _collect(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self.chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    def set_voice(self, voice: str) -> None:
        """Selects a voice. A variant such as `+f3` must exist too: espeak itself would speak without it."""
        if voice != self.voice:
            if self.library.espeak_SetVoiceByName(voice.encode()) != NO_ERROR:
                raise ValueError(f"espeak: got voice {voice!r}, wanted one of its voices, such as 'en-us', 'en-gb+f2' "
                                 "or 'de'")  # fmt: skip
            self.voice = voice
