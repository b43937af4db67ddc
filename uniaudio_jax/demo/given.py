"""What a visitor gives for a task: which fields, within which limits, and how they are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.streams import fields_of
from data_pipelines.tokenizers.midi import read_midi
from uniaudio_jax.audio.files import AudioStream, read_audio
from uniaudio_jax.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one visitor may ask for at once."""

    seconds: float = 30.0
    """The longest recording, and the longest result."""
    letters: int = 500
    """The longest text."""
    megabytes: int = 20
    """The largest file."""
    waiting: int = 20
    """Visitors who may wait at the same time; the others are asked to come again later."""

    def __post_init__(self):
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"--limits.{name}: got {value}, wanted more than 0")


TEXT_FIELDS = ("text", "instruction", "language")
MIDI, SPAN = "midi", "masked_seconds"


def fields_given(task: Task) -> tuple[str, ...]:
    """The fields of a clip that a task is generated from, each once; with words that are spoken, their language."""
    names = dict.fromkeys(name for stream in task.conditions for name in fields_of(stream))
    spoken = any("phone" in stream.kind for stream in task.conditions)
    return (*names, "language") if spoken else tuple(names)


def read_given(values: Mapping[str, Any], limits: Limits, rate_hz: int) -> dict[str, Any]:
    """The conditions in the form that `Run.generate` takes.

    values: by field: a text, a path of a file, or two numbers. Raises ValueError in words for a visitor: for what is
    missing, too long, or cannot be read; without paths of this machine.
    """
    given = {name: _reader(name)(name.replace("_", " "), value, limits, rate_hz) for name, value in values.items()}
    return {name: value for name, value in given.items() if name != "language" or value}


def _reader(name: str) -> Callable[[str, Any, Limits, int], Any]:
    if name in TEXT_FIELDS:
        return _read_text
    return {MIDI: _read_tune, SPAN: _read_span}.get(name, _read_recording)


def _read_text(label: str, value: str | None, limits: Limits, rate_hz: int) -> str:
    text = (value or "").strip()
    if len(text) > limits.letters:
        raise ValueError(f"{label}: got {len(text)} letters, wanted at most {limits.letters}; shorten it")
    if not text and label != "language":
        raise ValueError(f"{label}: got nothing, wanted a text; write one")
    return text


def _read_recording(label: str, value: str | None, limits: Limits, rate_hz: int) -> np.ndarray:
    def read(path: Path) -> np.ndarray:
        stream = AudioStream(path, rate_hz)
        _check_seconds(label, stream.samples / rate_hz, limits)
        return read_audio(path, rate_hz).samples

    return _read_file(label, value, "a recording", read)


def _read_tune(label: str, value: str | None, limits: Limits, rate_hz: int) -> np.ndarray:
    return _read_file(label, value, "a .mid file", read_midi)


def _read_span(label: str, value: tuple[float | None, float | None], limits: Limits, rate_hz: int) -> tuple:
    if None in value:
        raise ValueError(f"{label}: got nothing, wanted from where to where, in seconds; write both numbers")
    return value


def _read_file(label: str, value: str | None, wanted: str, read: Callable[[Path], np.ndarray]) -> np.ndarray:
    """What `read` makes of a file, whose errors then name the field in place of the path."""
    if not value:
        raise ValueError(f"{label}: got nothing, wanted {wanted}; add one")
    try:
        return read(Path(value))
    except ValueError as error:
        raise ValueError(str(error).replace(str(value), label)) from error


def _check_seconds(label: str, seconds: float, limits: Limits) -> None:
    if seconds > limits.seconds:
        raise ValueError(f"{label}: got {seconds:.1f} s of audio, wanted at most {limits.seconds:g} s; cut it")
