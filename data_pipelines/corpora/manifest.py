"""Lhotse and NeMo manifests as a corpus: JSON lines, each a cut, a supervision or an utterance.

Lhotse's own package is not used: it imports PyTorch, which reading a manifest does without.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from data_pipelines.corpora import Corpus, Entry, EntryTable, Segment, splits_of
from data_pipelines.corpora.listing import (
    json_lines,
    listed_path,
    needed_text,
    optional_seconds,
    optional_text,
    require_keys,
    shortened,
)

HARMLESS = "Resample"
"""The transform of Lhotse that changes nothing here, since all audio is resampled to the wanted rate."""
REMEDY = "save the audio first with Lhotse's CutSet.save_audios()"
LHOTSE_FIELDS = {"text": "text", "speaker": "speaker", "language": "language"}
NEMO_FIELDS = {"text": "text", "speaker": "speaker", "lang": "language"}
"""Key → the field of a clip that it gives."""

Line = tuple[str, dict[str, Any]]


def open_manifest(path: str | Path) -> Corpus:
    """The clips of a manifest: a .jsonl or .jsonl.gz file, or NeMo's .json. The keys of its first line tell its kind.

    Lhotse's cuts: each MonoCut is a clip, with text, speaker and language of its supervision. Lhotse's recordings with
    supervisions beside them (x_supervisions_y.jsonl.gz beside x_recordings_y.jsonl.gz; a folder with one such pair may
    be named instead): each supervision is a clip, and the recordings are held in memory. NeMo: each line is a clip,
    whose id is the path of its audio, with its offset if it has one. Relative paths are taken from the working
    directory, otherwise from the manifest's folder. Some clips are held out by a hash of their id.

    Raises ValueError that names the line for a clip that is not a part of one audio file: mixed or padded cuts, several
    supervisions, transforms, and sources that are commands or addresses.
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
        path=listed_path(name, folder), start_seconds=start, seconds=optional_seconds(where, fields, "duration")
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
            f"{where}: got a cut with {len(supervisions)} supervisions, wanted one; split it first with "
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
    listed = recording.get("transforms") or []
    transforms = [item for item in listed if HARMLESS not in str(item)] if isinstance(listed, list) else listed
    if transforms:
        raise ValueError(f"{where}: got a recording with the transforms {shortened(transforms)}, wanted none; {REMEDY}")
    channel: Any = part.get("channel", 0)
    channel = channel[0] if isinstance(channel, list) and len(channel) == 1 else channel
    channels = [source.get("channels", [0]) for source in sources]
    if not all(isinstance(each, list) for each in channels):
        raise ValueError(f"{where}: got the channels {shortened(channels)} of sources, wanted a list of each")
    source = next((source for source, each in zip(sources, channels, strict=True) if channel in each), None)
    if source is None:
        raise ValueError(f"{where}: got channel = {channel!r}, wanted one channel of the recording's sources")
    if source.get("type") != "file":
        raise ValueError(f"{where}: got a source of type {source.get('type')!r}, wanted 'file'; {REMEDY}")
    return Segment(
        path=listed_path(needed_text(where, source, "source"), folder),
        channel=source.get("channels", [0]).index(channel),
        start_seconds=optional_seconds(where, part, "start") or 0.0,
        seconds=optional_seconds(where, part, "duration"),
    )


def _about(where: str, fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    texts = {name: optional_text(where, fields, key) for key, name in names.items()}
    return {name: text for name, text in texts.items() if text is not None}


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
