"""What the readers share: lines, JSON objects and values of listings, checked with errors that name file and line."""

import gzip
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.corpora import AUDIO_FIELDS, MIDI_NOTES_PER_SECOND, TEXT_FIELDS
from uniaudio_jax.errors import did_you_mean

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64", ".caf")
UNREAD_SUFFIXES = (".m4a", ".mp4", ".aac", ".wma", ".amr", ".ape", ".wv", ".webm", ".sph", ".ac3", ".mka")
"""Of audio that cannot be read."""
SHOWN_CHARACTERS = 120
HIGHEST_MIDI = 128


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(`file:number`, line with its line end) of each line of a UTF-8 text file, which may be a .gz.

    Raises ValueError that names file and line for a missing file, broken compression and bytes that are not UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"{path}: got no file, wanted a listing of clips; check the path")
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield f"{path}:{number}", line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}:{number}: got bytes that are not UTF-8 ({error.reason} at {error.start}), wanted "
            "UTF-8 text; save the file again as UTF-8"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path}: got a .gz file that breaks off after line {number} ({error}), wanted a whole one; copy it again"
        ) from error


def read_text(path: Path) -> str:
    """The whole text of a UTF-8 file; ValueError as `text_lines`."""
    return "".join(line for _, line in text_lines(path))


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`file:number`, object) of each line of a JSONL file; blank lines are skipped."""
    for where, line in text_lines(path):
        if line.strip():
            yield where, json_object(line, where)


def json_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object that `text` is. Raises ValueError with `where` for anything else."""
    fields = json_value(text, where)
    if not isinstance(fields, dict):
        raise ValueError(f'{where}: got {shortened(text.strip())}, wanted a JSON object such as {{"id": …}}')
    return fields


def json_value(text: str, where: str) -> Any:
    """The JSON value that `text` is. Raises ValueError with `where` for what is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: got {shortened(text.strip())}, wanted one JSON object ({error})") from error


def shortened(value: Any) -> str:
    """A value as an error shows it."""
    shown = repr(value)
    return shown if len(shown) <= SHOWN_CHARACTERS else shown[: SHOWN_CHARACTERS - 1] + "…"


def require_keys(where: str, fields: Mapping[str, Any], wanted: Iterable[str]) -> None:
    """Raises ValueError that names a key of `wanted` which `fields` lacks, and the key that was perhaps meant."""
    for key in wanted:
        if key not in fields:
            near = did_you_mean(key, set(fields))
            raise ValueError(f"{where}: got the keys {', '.join(fields) or '(none)'}, wanted also {key}{near}")


def listed_path(text: str, folder: Path) -> Path:
    """The path that a listing names: relative to the working directory if that file exists, else to `folder`."""
    path = Path(text)
    return path if path.is_absolute() or os.path.isfile(path) else folder / path


def optional_text(where: str, fields: Mapping[str, Any], key: str) -> str | None:
    """The text under `key`, stripped of white space; a whole number as its digits; None where there is none."""
    value = fields.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{where}: got {key} = {shortened(value)}, wanted a string")
    return (value or "").strip() or None


def needed_text(where: str, fields: Mapping[str, Any], key: str) -> str:
    """The text under `key` as `optional_text` gives it. Raises ValueError where it is missing or empty."""
    if (text := optional_text(where, fields, key)) is None:
        raise ValueError(f"{where}: got {key} = {shortened(fields.get(key))}, wanted a string that is not empty")
    return text


def optional_seconds(where: str, fields: Mapping[str, Any], key: str) -> float | None:
    """The number under `key`, 0 or more, which may be written as text; None where it is missing or empty."""
    value = fields.get(key)
    if value is None or value == "":
        return None
    try:
        return _seconds(float(value) if isinstance(value, str) else value)
    except ValueError:
        raise ValueError(f"{where}: got {key} = {shortened(value)}, wanted seconds from 0") from None


def clip_fields(where: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A clip's fields (without id and split) as `Clip` holds them, but audio as paths; null ones are left out.

    Raises ValueError for a field that no clip has and for a value of the wrong type.
    """
    values = {}
    for key, value in fields.items():
        if key not in FIELDS:
            wanted = ", ".join(FIELDS)
            raise ValueError(f"{where}: got the key {key}, wanted one of {wanted}{did_you_mean(key, FIELDS)}")
        wanted, convert = FIELDS[key]
        if value is not None:
            try:
                values[key] = convert(value)
            except ValueError:
                raise ValueError(f"{where}: got {key} = {shortened(value)}, wanted {wanted} or null") from None
    return values


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError
    return float(value)


def _items(value: Any, count: int | None = None) -> list[Any]:
    if not isinstance(value, list) or not value or count not in (None, len(value)):
        raise ValueError
    return value


def _labels(value: Any) -> tuple[str, ...]:
    return tuple(_text(label) for label in _items(value))


def _midi(value: Any) -> np.ndarray:
    if not all(type(note) is int and 0 <= note <= HIGHEST_MIDI for note in _items(value)):
        raise ValueError
    return np.array(value, np.int32)


def _phones(value: Any) -> tuple[tuple[str, float], ...]:
    pairs = [_items(pair, 2) for pair in _items(value)]
    return tuple((_text(symbol), _seconds(seconds)) for symbol, seconds in pairs)


def _masked_seconds(value: Any) -> tuple[float, float]:
    start, stop = map(_seconds, _items(value, 2))
    if start >= stop:
        raise ValueError
    return start, stop


FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    **{name: ("a path relative to the listing", _text) for name in AUDIO_FIELDS},
    **{name: ("a string that is not empty", _text) for name in TEXT_FIELDS},
    "labels": ("a list of strings", _labels),
    "midi": (f"a list of whole numbers from 0 to {HIGHEST_MIDI}, {MIDI_NOTES_PER_SECOND} a second", _midi),
    "phones": ("a list of [symbol, seconds]", _phones),
    "masked_seconds": ("[from, to] in seconds", _masked_seconds),
    "same_speaker": ("true or false", _flag),
}
"""Name of a clip's field → what a listing should hold, for errors, and the function that converts or refuses it."""
