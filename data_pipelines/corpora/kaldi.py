"""Kaldi data folders as a corpus: wav.scp, and where they exist segments, text, utt2spk and utt2lang."""

import re
from collections.abc import Mapping
from pathlib import Path

from data_pipelines.corpora import Corpus, Entry, EntryTable, Segment, splits_of
from data_pipelines.corpora.listing import listed_path, optional_seconds, text_lines

TABLES = {"text": "text", "utt2spk": "speaker", "utt2lang": "language"}
"""File → the field of a clip that it gives."""
ARCHIVE = re.compile(r"\.ark:\d+$")

Table = Mapping[str, tuple[str, str]]
"""Key → its file and line, and the rest of the line."""


def open_kaldi(folder: str | Path) -> Corpus:
    """The utterances of a Kaldi data folder: those of `segments` if it exists, else the whole files of `wav.scp`.

    A relative path is taken from the working directory, as Kaldi does, and otherwise from the folder. Some utterances
    are held out by a hash of their id. An utterance that `text` or another table does not list lacks that field. The
    tables are joined in memory, which takes a few hundred bytes for each utterance while they are read.

    Raises ValueError for a missing wav.scp, a command or an archive in it, a repeated key or one that the other
    files lack, and segments that end before they begin; each with its file and line.
    """
    root = Path(folder)
    recordings = _recordings(root)
    utterances = {key: (where, Segment(path=path)) for key, (where, path) in recordings.items()}
    if (root / "segments").is_file():
        utterances = {
            key: (where, _segment(rest, where, recordings, root))
            for key, (where, rest) in _table(root / "segments").items()
        }
    about: dict[str, dict[str, str]] = {key: {} for key in utterances}
    for name, field in TABLES.items():
        for key, (where, rest) in (_table(root / name) if (root / name).is_file() else {}).items():
            if key not in about:
                raise ValueError(
                    f"{where}: got the utterance {key!r}, wanted one of segments or wav.scp; run Kaldi's "
                    "utils/fix_data_dir.sh on the folder"
                )
            if rest:
                about[key][field] = rest
    entries = EntryTable(
        Entry(where=where, id=key, audio={"audio": segment}, about=about[key])
        for key, (where, segment) in utterances.items()
    )
    entries.splits = splits_of(entries.id_hashes)
    return Corpus(place=str(folder), entries=entries)


def _table(path: Path) -> Table:
    table: dict[str, tuple[str, str]] = {}
    for where, line in text_lines(path):
        if not (words := line.split(maxsplit=1)):
            continue
        if words[0] in table:
            raise ValueError(
                f"{where}: got {words[0]!r} a second time (first: {table[words[0]][0]}), wanted one line for each"
            )
        table[words[0]] = where, words[1].strip() if len(words) > 1 else ""
    return table


def _recordings(root: Path) -> dict[str, tuple[str, Path]]:
    """Recording → its file and line in wav.scp, and its audio file."""
    recordings = {}
    for key, (where, rest) in _table(root / "wav.scp").items():
        if rest.endswith("|") or ARCHIVE.search(rest):
            kind = "command" if rest.endswith("|") else "part of an archive"
            raise ValueError(
                f"{where}: got the recording {key!r} as a {kind}, {rest!r}, wanted an audio file; write "
                "it once to a .wav file (with Kaldi, `wav-copy`) and list that"
            )
        if not rest:
            raise ValueError(f"{where}: got the recording {key!r} without a file, wanted `{key} PATH`")
        recordings[key] = where, listed_path(rest, root)
    return recordings


def _segment(rest: str, where: str, recordings: Mapping[str, tuple[str, Path]], root: Path) -> Segment:
    """A line of segments: recording, start, end (-1: the file's) and perhaps channel (from 0)."""
    words = rest.split()
    if len(words) not in (3, 4) or (len(words) == 4 and not words[3].isdecimal()):
        raise ValueError(f"{where}: got {rest!r}, wanted `UTTERANCE RECORDING START END` in seconds")
    if words[0] not in recordings:
        raise ValueError(f"{where}: got the recording {words[0]!r}, wanted one of {root / 'wav.scp'}")
    times = {"start": words[1], "end": None if words[2] == "-1" else words[2]}
    start, end = optional_seconds(where, times, "start") or 0.0, optional_seconds(where, times, "end")
    if end is not None and end <= start:
        raise ValueError(f"{where}: got a segment from {start:g} s to {end:g} s, wanted one that ends after its start")
    return Segment(
        path=recordings[words[0]][1],
        start_seconds=start,
        seconds=None if end is None else end - start,
        channel=int(words[3]) if len(words) == 4 else None,
    )
