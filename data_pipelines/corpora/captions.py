"""Captioned audio as a corpus: a CSV, JSONL or JSON file of captions, as AudioCaps, MusicCaps and WavCaps have it."""

import ast
import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.corpora import Corpus, Entry, EntryTable, Segment, hashes_of, splits_of
from data_pipelines.corpora.listing import (
    AUDIO_SUFFIXES,
    clip_fields,
    json_lines,
    listed_path,
    needed_text,
    optional_seconds,
    optional_text,
    read_text,
    require_keys,
    shortened,
    text_lines,
)
from uniaudio_jax.files import parse_json

PATH_KEYS = ("path", "audio_filepath", "audio")
CAPTION_KEYS = ("caption", "text")
LABEL_KEYS = ("labels", "aspect_list", "tags")
CLIP_ID_KEYS = ("audiocap_id", "id", "ytid", "youtube_id")
AUDIO_ID_KEYS = ("youtube_id", "ytid", "id")
START_KEYS = ("start_time", "start_s")
AUDIO_FOLDERS = ("", "audio", "wav")

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands, for errors, and its cells by key."""


def open_captions(path: str | Path) -> Corpus:
    """The clips of a file of captions; a caption is a clip's text, and labels, aspect_list or tags are its labels.

    CSV with a header, JSONL, or JSON (a list of rows, or WavCaps's {"data": [...]}). A row has caption or text, and a
    path (path, audio_filepath or audio, relative to the working directory or to the file's folder) or an id
    (youtube_id, ytid or id). With an id the audio is <id>.wav, .flac or .ogg, or <id>_<start second>.wav and so on,
    beside the file or in its folders audio/ and wav/, and should hold the captioned part only. Other keys are ignored.
    Captions of the same audio are in the same split, which a hash decides.

    Raises ValueError for a broken file or row. Reading a clip raises it for missing audio and for an empty caption.
    """
    path = Path(path)
    below = _audio_below(path.parent)
    entries = EntryTable(_entry(where, row, path.parent, below) for where, row in _rows(path))
    entries.splits = splits_of(hashes_of(entry.audio["audio"].path.as_posix() for entry in entries))
    return Corpus(place=str(path), entries=entries)


def _entry(where: str, row: Mapping[str, Any], folder: Path, below: Mapping[str, Path]) -> Entry:
    path = _audio(where, row, folder, below)
    caption = _first(row, CAPTION_KEYS) or CAPTION_KEYS[0]
    require_keys(where, row, (caption,))
    text = optional_text(where, row, caption)
    return Entry(
        where=where,
        id=needed_text(where, row, _first(row, CLIP_ID_KEYS) or _first(row, PATH_KEYS) or "id"),
        audio={"audio": Segment(path=path)},
        about={"text": text, **_labels(where, row)},
        broken=None if text else f"{where}: got an empty caption, wanted words; describe the clip or remove the row",
    )


def _rows(path: Path) -> Iterator[Row]:
    kinds = {".csv": _csv_rows, ".jsonl": json_lines, ".json": _json_rows}
    if path.suffix.lower() not in kinds:
        raise ValueError(
            f"{path}: got a file of captions {path.suffix or 'without an ending'}, wanted one of "
            f"{', '.join(kinds)}; convert or rename it"
        )
    return kinds[path.suffix.lower()](path)


def _csv_rows(path: Path) -> Iterator[Row]:
    lines_of_row: list[str] = []  # where they stand: a quoted caption may have several lines

    def lines() -> Iterator[str]:
        for where, line in text_lines(path):
            lines_of_row.append(where)
            yield line

    header: list[str] = []
    reader = csv.reader(lines(), strict=True)
    try:
        for cells in reader:
            where = lines_of_row[0]
            lines_of_row.clear()
            if header and cells:
                if len(cells) != len(header):
                    raise ValueError(
                        f"{where}: got {len(cells)} cells, wanted {len(header)} ({', '.join(header)}); "
                        "put text with commas between quotes"
                    )
                yield where, dict(zip(header, cells, strict=True))
            header = header or _header(where, cells)
    except csv.Error as error:
        raise ValueError(
            f"{lines_of_row[0]}: got a row that is not CSV ({error}), wanted cells between commas"
        ) from error


def _header(where: str, cells: Sequence[str]) -> list[str]:
    """The keys of a CSV. Raises ValueError for one line with other separators than commas."""
    if len(cells) == 1 and any(separator in cells[0] for separator in ";\t|"):
        raise ValueError(
            f"{where}: got the keys {shortened(cells[0])}, wanted commas between them; save it with commas"
        )
    return [cell.strip() for cell in cells]


def _json_rows(path: Path) -> Iterator[Row]:
    rows = parse_json(read_text(path), str(path), "a list of rows; name it .jsonl if each line is a row", kind=object)
    rows = rows.get("data") if isinstance(rows, dict) else rows
    if not isinstance(rows, list):
        raise ValueError(f"{path}: got no list of rows, wanted [ROW, …] or an object with the list data")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: row {number}: got {shortened(row)}, wanted an object with a caption")
        yield f"{path}: row {number}", row


def _audio_below(folder: Path) -> dict[str, Path]:
    """Name → path of the audio files beside a listing; earlier folders of `AUDIO_FOLDERS` take precedence."""
    paths: dict[str, Path] = {}
    for audio_folder in (folder / name for name in AUDIO_FOLDERS):
        for path in audio_folder.iterdir() if audio_folder.is_dir() else ():
            if path.suffix.lower() in AUDIO_SUFFIXES:
                paths.setdefault(path.name, path)
    return paths


def _audio(where: str, row: Mapping[str, Any], folder: Path, below: Mapping[str, Path]) -> Path:
    """The audio file of a row: the named one if it exists, else the one with the row's id; it may not exist."""
    key, named = _first(row, AUDIO_ID_KEYS), _first(row, PATH_KEYS)
    if not key and not named:
        raise ValueError(
            f"{where}: got the keys {', '.join(row)}, wanted also one of {', '.join((*PATH_KEYS, *AUDIO_ID_KEYS))}"
        )
    path = listed_path(needed_text(where, row, named), folder) if named else None
    if path and (not key or os.path.isfile(path)):
        return path
    assert key
    name = Path(needed_text(where, row, key))
    stem = name.stem if name.suffix.lower() in AUDIO_SUFFIXES else name.name  # WavCaps has ids such as Yx7a.wav
    starts = [seconds for start in START_KEYS if (seconds := optional_seconds(where, row, start)) is not None]
    stems = [*(f"{stem}_{int(start) if start.is_integer() else start}" for start in starts), stem]
    names = [stem + suffix for stem in stems for suffix in AUDIO_SUFFIXES]
    return next((below[name] for name in names if name in below), path or folder / "audio" / f"{stem}.wav")


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in row), None)


def _labels(where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The labels of a row, given as a list, or as text: a list in brackets, or names between semicolons or commas."""
    key = _first(row, LABEL_KEYS)
    value = row[key] if key else None
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise ValueError(f"{where}: got {key} = {shortened(value)}, wanted a list of strings") from None
    elif isinstance(value, str):
        value = [label.strip() for label in value.split(";" if ";" in value else ",") if label.strip()]
    return clip_fields(where, {"labels": value}) if value else {}
