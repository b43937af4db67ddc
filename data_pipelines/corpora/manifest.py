"""Lhotse and NeMo manifests as a corpus: JSON lines, one a cut, a supervision or an utterance."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from data_pipelines.corpora import Corpus, Entry, EntryTable, Segment, splits_of
from data_pipelines.corpora.listing import (
    found_path,
    json_lines,
    needed_text,
    optional_seconds,
    optional_text,
    require_keys,
    shortened,
)

HARMLESS = "Resample"
"""All audio is resampled to our rate, so that this transform of Lhotse changes nothing."""
REMEDY = "save the audio first with Lhotse's CutSet.save_audios()"
LHOTSE_FIELDS = {"text": "text", "speaker": "speaker", "language": "language"}
NEMO_FIELDS = {"text": "text", "speaker": "speaker", "lang": "language"}
"""Key → the field of a clip that it gives."""

Line = tuple[str, dict[str, Any]]


def open_manifest(path: str | Path) -> Corpus:
    """The clips of a manifest, a .jsonl or .jsonl.gz file, or NeMo's .json; which one it is, its keys tell.

    Lhotse's cuts: each MonoCut is a clip, with text, speaker and language of its supervision. Lhotse's recordings with
    the supervisions beside them (x_supervisions_y.jsonl.gz beside x_recordings_y.jsonl.gz; a folder that has one such
    pair may be given instead): each supervision is a clip. NeMo: each line is one; its id is the path that it names,
    and its offset if there is one. Relative paths are from the working directory or the manifest's folder. Some clips
    are held out by a hash of their id. Of Lhotse's recordings with supervisions, the recordings are held in memory.

    Raises ValueError, with the line, for what is not a part of one audio file: cuts that are mixed, padded or have
    several supervisions, transforms, commands and addresses as sources.
    """
    file = _recordings_in(Path(path)) if Path(path).is_dir() else Path(path)
    lines = json_lines(file)
    first = list(islice(lines, 1))
    keys = {key for _, fields in first for key in fields}
    lines = chain(first, lines)
    if "audio_filepath" in keys:
        entries = EntryTable(_nemo_entry(line, file.parent) for line in lines)
    elif "sources" in keys:
        entries = EntryTable(_supervised_entries(file, lines))
    elif keys & {"recording", "tracks"}:
        entries = EntryTable(_cut_entry(line, file.parent) for line in lines)
    else:
        raise ValueError(
            f"{file}: got a first line with the keys {', '.join(sorted(keys)) or '(none)'}, wanted a cut "
            "or a recording of Lhotse (recording or sources), or NeMo's audio_filepath"
        )
    entries.splits = splits_of(entries.id_hashes)
    return Corpus(place=str(path), entries=entries)


def _nemo_entry(line: Line, folder: Path) -> Entry:
    where, fields = line
    name = needed_text(where, fields, "audio_filepath")
    start = optional_seconds(where, fields, "offset") or 0.0
    segment = Segment(
        path=found_path(name, folder), start_seconds=start, seconds=optional_seconds(where, fields, "duration")
    )
    return Entry(
        where=where,
        id=f"{name}@{start:g}" if start else name,
        audio={"audio": segment},
        about=_about(where, fields, NEMO_FIELDS),
    )


def _cut_entry(line: Line, folder: Path) -> Entry:
    where, fields = line
    if (kind := fields.get("type", "MonoCut")) != "MonoCut":
        raise ValueError(f"{where}: got a {kind}, wanted a MonoCut; {REMEDY}")
    require_keys(where, fields, ("id", "recording"))
    supervisions = fields.get("supervisions") or [{}]
    if not isinstance(supervisions, list) or not isinstance(supervisions[0], dict):
        raise ValueError(f"{where}: got supervisions = {shortened(supervisions)}, wanted a list of objects")
    if len(supervisions) > 1:
        raise ValueError(
            f"{where}: got a cut with {len(supervisions)} supervisions, wanted one; part it first with "
            "Lhotse's CutSet.trim_to_supervisions()"
        )
    return Entry(
        where=where,
        id=needed_text(where, fields, "id"),
        audio={"audio": _segment(where, fields["recording"], fields, folder)},
        about=_about(where, supervisions[0], LHOTSE_FIELDS),
    )


def _supervised_entries(file: Path, lines: Iterable[Line]) -> Iterator[Entry]:
    recordings = {needed_text(where, fields, "id"): fields for where, fields in lines}
    partner = file.with_name(file.name.replace("recordings", "supervisions"))
    if partner == file:
        raise ValueError(
            f"{file}: got recordings in a file of another name, wanted `…recordings….jsonl` beside "
            "`…supervisions….jsonl`; rename it"
        )
    for where, fields in json_lines(partner):
        recording = needed_text(where, fields, "recording_id")
        if recording not in recordings:
            raise ValueError(f"{where}: got the recording {recording!r}, wanted one of {file}")
        segment = _segment(where, recordings[recording], fields, file.parent)
        yield Entry(
            where=where,
            id=needed_text(where, fields, "id"),
            audio={"audio": segment},
            about=_about(where, fields, LHOTSE_FIELDS),
        )


def _segment(where: str, recording: Any, part: Mapping[str, Any], folder: Path) -> Segment:
    """The start, duration and channel of `part` in the file of a Lhotse recording."""
    sources = recording.get("sources") if isinstance(recording, dict) else None
    if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
        raise ValueError(f"{where}: got recording = {shortened(recording)}, wanted an object with sources")
    transforms = [transform for transform in recording.get("transforms") or () if HARMLESS not in str(transform)]
    if transforms:
        raise ValueError(f"{where}: got a recording with the transforms {shortened(transforms)}, wanted none; {REMEDY}")
    channel: Any = part.get("channel", 0)
    channel = channel[0] if isinstance(channel, list) and len(channel) == 1 else channel
    source = next((source for source in sources if channel in source.get("channels", [0])), None)
    if source is None:
        raise ValueError(f"{where}: got channel = {channel!r}, wanted one channel of the recording's sources")
    if source.get("type") != "file":
        raise ValueError(f"{where}: got a source of type {source.get('type')!r}, wanted 'file'; {REMEDY}")
    return Segment(
        path=found_path(needed_text(where, source, "source"), folder),
        channel=source.get("channels", [0]).index(channel),
        start_seconds=optional_seconds(where, part, "start") or 0.0,
        seconds=optional_seconds(where, part, "duration"),
    )


def _about(where: str, fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    found = {name: optional_text(where, fields, key) for key, name in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def _recordings_in(folder: Path) -> Path:
    files = sorted(
        path for path in folder.iterdir() if "recordings" in path.name and path.name.endswith((".jsonl", ".jsonl.gz"))
    )
    if len(files) != 1:
        raise ValueError(
            f"{folder}: got {len(files)} files named as `…recordings….jsonl` "
            f"({', '.join(path.name for path in files) or 'none'}), wanted one; name a file"
        )
    return files[0]
