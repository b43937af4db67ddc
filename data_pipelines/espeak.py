"""Speech and phones from the espeak-ng engine.

espeak-ng is GPL and an optional extra: `espeak_engine.py` alone touches it, and loads the library of the package
`espeakng_loader`, in a process of its own that is started at the first call.
"""

import atexit
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import unicodedata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from uniaudio_jax.packages import load_package

WORDS_PER_MINUTE, PITCH = 175, 50
"""espeak's own defaults."""
WORDS_PER_MINUTE_RANGE, PITCH_RANGE = (80, 450), (0, 99)
WORD_BOUNDARY, CLAUSE_BOUNDARY = " ", "|"
LANGUAGE_SWITCH = re.compile(r"\([a-z0-9-]+\)")
ATTEMPTS = 2
"""A text is blamed for a crash only when a fresh engine crashes at it, too."""
SHOWN_CHARACTERS = 60


class Speech(NamedTuple):
    """Float32 samples within -1 … 1, their rate, and each phone in IPA with the second at which it starts.

    Pauses are phones with an empty name. A stress mark is part of the vowel's name.
    """

    samples: Float[np.ndarray, " S"]
    sample_rate_hz: int
    phones: tuple[tuple[str, float], ...]


class EngineProcess:
    """The engine's process, started when it is first asked and again after a crash. It ends when this process does."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.connection: Connection | None = None

    def ask(self, method: str, text: str, *arguments: Any) -> Any:
        """What a method of `espeak_engine.Engine` returns for `text` and further arguments.

        Raises the method's ValueError, and one that names the text at which the engine crashes.
        """
        with self.lock:
            reply = self._reply(method, text, *arguments)
        if isinstance(reply, ValueError):
            raise reply
        return reply

    def _reply(self, *request: Any) -> Any:
        for _ in range(ATTEMPTS):
            try:
                connection = self.connection or self._start()
                connection.send((request[0], request[1:]))
                return connection.recv()
            except (EOFError, ConnectionError):
                self.stop()
            except BaseException:
                self.stop()  # its answer would be taken for that to the next question
                raise
        text = request[1]
        shown = repr(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…")
        return ValueError(
            f"espeak: got text {shown} of {len(text)} characters, at which its engine crashes, wanted one that it can "
            "speak; take out what is repeated many times without a space, or split the text"
        )

    def _start(self) -> Connection:
        loader = load_package("espeakng_loader", "phones and espeak's voices", "pip install uniaudio_jax[quickstart]")
        self.connection, theirs = multiprocessing.Pipe()
        script = str(Path(__file__).with_name("espeak_engine.py"))
        paths = str(loader.get_library_path()), str(loader.get_data_path())
        # -I and -S: without the packages and folders of this process, which the engine does not need.
        command = [sys.executable, "-I", "-S", script, str(theirs.fileno()), *paths]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        theirs.close()
        return self.connection

    def stop(self) -> None:
        """Ends the process, if it runs: it ends by itself when its pipe is closed."""
        if self.connection is not None:
            self.connection.close()
        if self.process is not None:
            self.process.wait()
        self.process = self.connection = None

    def forget(self) -> None:
        """Leaves the process to the one that this process was forked from, whose locks may be held for ever here."""
        if self.connection is not None:
            self.connection.close()
        if self.process is not None:
            self.process.returncode = 0  # no child of this process: nothing to wait for
        self.__init__()


ENGINE = EngineProcess()
atexit.register(ENGINE.stop)
os.register_at_fork(after_in_child=ENGINE.forget)


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
    Raises ValueError for an unknown voice, a setting out of range, a text without sound, and one that espeak crashes
    at.
    """
    settings = (("words_per_minute", words_per_minute, WORDS_PER_MINUTE_RANGE), ("pitch", pitch, PITCH_RANGE))
    for name, value, (least, most) in settings:
        if not least <= value <= most:
            raise ValueError(f"espeak: got {name}={value}, wanted {least} to {most}")
    data, rate, phones = ENGINE.ask("speech", text, voice, words_per_minute, pitch)
    samples = np.frombuffer(data, np.int16)
    if not samples.any():
        raise ValueError(f"espeak: got text {text!r}, in which {voice!r} finds nothing to say; wanted some words")
    return Speech(samples.astype(np.float32) / 32768, rate, tuple(phones))


def phonemes(text: str, language: str = "en-us") -> list[str]:
    """The IPA symbols of `text`, one code point each: stress, length, nasal and tone marks are symbols of their own.

    Words are separated by " " and clauses by "|". A text without words gives an empty list. Raises ValueError for an
    unknown language, and for a text that espeak crashes at.
    """
    words = [LANGUAGE_SWITCH.sub("", clause).split() for clause in ENGINE.ask("clauses", text, language)]
    spoken = CLAUSE_BOUNDARY.join(WORD_BOUNDARY.join(clause) for clause in words if clause)
    return list(unicodedata.normalize("NFD", spoken).replace("c\u0327", "\u00e7"))
