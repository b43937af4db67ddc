"""Any folder of audio as a corpus: one with a `manifest.jsonl`, or plain audio files with texts beside them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from data_pipelines.corpora import ALIGNED_FIELDS, AUDIO_FIELDS, SPLITS, Corpus, Entry, EntryTable, Segment
from data_pipelines.corpora.layouts import plain_corpus
from data_pipelines.corpora.listing import clip_fields, json_lines, require_keys
from uniaudio_jax.files import atomic_write

MANIFEST = "manifest.jsonl"


def open_folder(place: str | Path) -> Corpus:
    """The corpus in a folder, or of a manifest that has another name.

    Each line of manifest.jsonl is an object with id, split (train or heldout) and any fields of `Clip`: audio as paths
    relative to the manifest, midi as a list, phones as a list of [symbol, seconds]; null means that a field is absent.
    In a folder without a manifest, every file with an ending of `AUDIO_SUFFIXES` (wav, flac, ogg, mp3 and others) is a
    clip: the words of `x.wav` are read from x.normalized.txt, x.original.txt, x.txt or x.lab, or from a LibriSpeech
    .trans.txt, and x.json may hold text, language, speaker, instruction and labels beside other things. The top folder
    is the speaker. This reads LibriTTS and LibriSpeech (dev and test are held out) and VCTK (microphone 1 only); see
    `layouts.py`.

    Raises ValueError for a missing folder, one without clips, and a bad line of the manifest, with its number.
    """
    root = Path(place)
    manifest = root if root.is_file() else root / MANIFEST
    if manifest.is_file():
        entries = (_entry(fields, where, manifest.parent) for where, fields in json_lines(manifest))
        return Corpus(place=str(place), entries=EntryTable(entries))
    if not root.is_dir():
        raise ValueError(f"{root}: got no folder, wanted one with audio files or a {MANIFEST}; check the path")
    return plain_corpus(root)


def write_manifest(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a manifest that `open_folder` reads, whole or not at all; fields that are None are left out.

    rows: the fields of each line; lists may be arrays. Raises ValueError for a row that could not be read back.
    """
    path = Path(path)
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
        Corpus(place=str(path), entries=EntryTable(_written(file, path, rows)))  # refuses an id that comes twice


def _written(file: TextIO, path: Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[Entry]:
    """The entry of each row, as reading the manifest at `path` would give it, once its line is in `file`."""
    for number, row in enumerate(rows, 1):
        fields = {key: value for key, value in row.items() if value is not None}
        line = json.dumps(fields, ensure_ascii=False, allow_nan=False, default=lambda value: value.tolist())
        file.write(line + "\n")
        yield _entry(json.loads(line), f"{path}:{number}", path.parent)


def _entry(fields: dict[str, Any], where: str, root: Path) -> Entry:
    """The entry of one line of a manifest. Raises ValueError that names the line for fields that no clip can have."""
    require_keys(where, fields, ("id", "split"))
    if not isinstance(fields["id"], str) or not fields["id"]:
        raise ValueError(f"{where}: got id = {fields['id']!r}, wanted a string that is not empty")
    if fields["split"] not in SPLITS:
        raise ValueError(f"{where}: got split = {fields['split']!r}, wanted {' or '.join(SPLITS)}")
    about = clip_fields(where, {key: value for key, value in fields.items() if key not in ("id", "split")})
    audio = {name: Segment(path=root / about.pop(name)) for name in AUDIO_FIELDS if name in about}
    if not audio and not about:
        raise ValueError(f"{where}: got a clip of nothing but id and split, wanted audio or another field")
    aligned = [name for name in ALIGNED_FIELDS if name in audio]
    if aligned and "audio" not in audio:
        raise ValueError(f"{where}: got {aligned[0]} without audio, wanted both: they have the same length")
    return Entry(where=where, id=fields["id"], split=fields["split"], audio=audio, about=about)
