"""Speech and phones from the espeak-ng engine, through ctypes.

espeak-ng is GPL and an optional extra: this file alone touches it, and loads the library of the package
`espeakng_loader` at the first call.
"""

import _ctypes
import ctypes
import functools
import importlib
import re
import threading
import unicodedata
from pathlib import Path

import numpy as np
from jaxtyping import Float

SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: samples go to the callback, within the call
DO_NOT_EXIT = 0x8000
UTF8 = 1
IPA = 2
BUFFER_MILLISECONDS = 200
WORD_BOUNDARY, CLAUSE_BOUNDARY = " ", "|"
LANGUAGE_SWITCH = re.compile(r"\([a-z0-9-]+\)")

LOCK = threading.Lock()
SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Engine:
    """The one engine of a process; all its state is static in the library, so every use of it holds `LOCK`."""

    def __init__(self) -> None:
        try:
            loader = importlib.import_module("espeakng_loader")
        except ImportError as error:
            raise ValueError("espeak: got no package espeakng_loader, wanted it for phones and for the quickstart's "
                             "voices; run `pip install uniaudio_jax[quickstart]`") from error  # fmt: skip
        self.library_path, self.data = loader.get_library_path(), Path(loader.get_data_path())
        self.callback = SynthCallback(self._collect)
        self.chunks: list[np.ndarray] = []
        self.open()

    def open(self) -> None:
        """Loads the library with fresh state."""
        self.library = ctypes.CDLL(self.library_path)
        self.library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        self.library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        self.rate = self.library.espeak_Initialize(
            SYNCHRONOUS, BUFFER_MILLISECONDS, str(self.data).encode(), DO_NOT_EXIT
        )
        if self.rate <= 0:
            raise ValueError(f"espeak: got status {self.rate} on loading {self.data}, wanted a sample rate; "
                             "install the package espeakng_loader again")  # fmt: skip
        self.library.espeak_SetSynthCallback(self.callback)

    def reopen(self) -> None:
        """Unloads the library and loads it again, about 6 ms.

        Phases of the synthesiser live on from one utterance to the next, so only a fresh library makes the samples
        a function of text and voice.
        """
        self.library.espeak_Terminate()
        _ctypes.dlclose(self.library._handle)
        self.open()

    def set_voice(self, voice: str) -> None:
        """Selects a voice. espeak speaks without an unknown variant, so that the variant's file is checked here."""
        _, plus, variant = voice.partition("+")
        known = not plus or (bool(variant) and (self.data / "voices" / "!v" / variant).is_file())
        if not known or self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak: got voice {voice!r}, wanted one that it has, such as 'en-us', 'en-gb-x-rp+f2' "
                             "or 'de'; its folder espeak-ng-data holds them in lang/ and voices/!v/")  # fmt: skip

    def _collect(self, samples, count: int, events: int) -> int:
        if samples and count > 0:
            self.chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0


@functools.cache
def engine() -> Engine:
    """The engine of this process, loaded at the first call."""
    return Engine()


def speak(text: str, voice: str) -> tuple[Float[np.ndarray, "S"], int]:
    """`text` spoken by `voice` (such as "en-us+m3"): float32 samples within -1 … 1, and their rate, 22050 Hz.

    The samples depend on text and voice alone, whatever was said before. Variants with breath noise (`f2`, `f3`, `f5`,
    `whisper` and others) are the exception: they differ from process to process. Raises ValueError for an unknown voice
    or a text without sound.
    """
    with LOCK:
        engine().reopen()
        engine().set_voice(voice)
        engine().chunks.clear()
        data = text.encode()
        engine().library.espeak_Synth(data, len(data) + 1, 0, 1, 0, UTF8, None, None)
        chunks = engine().chunks.copy()
    samples = np.concatenate([*chunks, np.zeros(0, np.int16)])
    if not samples.any():
        raise ValueError(f"espeak: got text {text!r}, in which {voice!r} finds nothing to say; wanted some words")
    return samples.astype(np.float32) / 32768, engine().rate


def phonemes(text: str, language: str = "en-us") -> list[str]:
    """The IPA symbols of `text`, one code point each: stress, length, nasal and tone marks are symbols of their own.

    Words are parted by " " and clauses by "|". Text without words gives an empty list. Raises ValueError for an
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
