"""Any folder of audio as clips: one with a `manifest.jsonl`, or plain audio files with texts beside them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.corpora import SPLITS, Clip, Split, split_number, split_of
from uniaudio_jax.codec.audio_files import AudioFile, read_audio

MANIFEST = "manifest.jsonl"
SUFFIXES = (".wav", ".flac", ".ogg")
HELDOUT_EVERY = 20
REQUIRED = ("id", "split", "audio")
OPTIONAL = ("text", "speaker", "noisy_audio")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of a clip before its audio is read; `where` names its line or file in errors."""

    where: str
    id: str
    split: Split
    audio: Path
    text: str | None = None
    speaker: str | None = None
    noisy_audio: Path | None = None


def clips(root: str | Path, split: Split | None = None) -> Iterator[Clip]:
    """The clips under `root`, of one split or of both, read one by one.

    With a manifest.jsonl, each line has the keys id, split, audio and if wanted text, speaker, noisy_audio; paths are
    relative to the manifest. Without one, every wav, flac or ogg file is a clip: `name.txt` beside `name.wav` is its
    text, the folder that it lies in is its speaker (none directly under `root`), and about every 20th is held out.
    Raises ValueError for a folder without clips, a bad line (named with its number) or a broken audio file.
    """
    for entry in entries(root):
        if split is None or entry.split == split:
            yield _read(entry)


def entries(root: str | Path) -> list[Entry]:
    """The clips under `root` without their audio; the whole manifest is checked before anything is read."""
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: got no folder, wanted one with audio files or a {MANIFEST}; check the path")
    found = _manifest_entries(root / MANIFEST) if (root / MANIFEST).is_file() else _plain_entries(root)
    seen: dict[str, str] = {}
    for entry in found:
        if entry.id in seen:
            raise ValueError(f"{entry.where}: got id {entry.id!r} a second time (first: {seen[entry.id]}), wanted "
                             "another id for each clip")  # fmt: skip
        seen[entry.id] = entry.where
    return found


def _manifest_entries(manifest: Path) -> list[Entry]:
    found = []
    with manifest.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                found.append(_parse(line, f"{manifest}:{number}", manifest.parent))
    if not found:
        raise ValueError(f"{manifest}: got no lines, wanted one JSON object a clip; make the corpus again")
    return found


def _parse(line: str, where: str, root: Path) -> Entry:
    """One line of a manifest. Raises ValueError with its place, what it holds and what it should hold."""
    shown = line.strip() if len(line) < 120 else line.strip()[:117] + "..."
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: got {shown!r}, wanted one JSON object ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: got {shown!r}, wanted a JSON object with the keys {', '.join(REQUIRED)}")
    if missing := [key for key in REQUIRED if key not in fields]:
        raise ValueError(f"{where}: got the keys {', '.join(fields)}, wanted also {', '.join(missing)}")
    if surplus := sorted(set(fields) - {*REQUIRED, *OPTIONAL}):
        raise ValueError(f"{where}: got the keys {', '.join(surplus)}, wanted only {', '.join(REQUIRED + OPTIONAL)}")
    for key, value in fields.items():
        if not (isinstance(value, str) and value) and not (value is None and key in OPTIONAL):
            raise ValueError(f"{where}: got {key} = {value!r}, wanted a string{' or null' if key in OPTIONAL else ''}")
    if fields["split"] not in SPLITS:
        raise ValueError(f"{where}: got split = {fields['split']!r}, wanted {' or '.join(SPLITS)}")
    noisy = fields.get("noisy_audio")
    return Entry(where=where, id=fields["id"], split=fields["split"], audio=root / fields["audio"],
                 text=fields.get("text"), speaker=fields.get("speaker"),
                 noisy_audio=root / noisy if noisy else None)  # fmt: skip


def _plain_entries(root: Path) -> list[Entry]:
    paths = sorted(path for path in root.rglob("*")
                   if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))  # fmt: skip
    if not paths:
        raise ValueError(f"{root}: got no {MANIFEST} and no audio in this folder, wanted {', '.join(SUFFIXES)} files")
    ids = [path.relative_to(root).with_suffix("").as_posix() for path in paths]
    heldout = {name for name in ids if split_of(name, HELDOUT_EVERY) == "heldout"}
    if not heldout and len(ids) > 1:
        heldout = {min(ids, key=split_number)}
    return [Entry(where=str(path), id=name, split="heldout" if name in heldout else "train", audio=path,
                  text=_text_beside(path), speaker=path.parent.name if path.parent != root else None)
            for path, name in zip(paths, ids, strict=True)]  # fmt: skip


def _text_beside(path: Path) -> str | None:
    text = path.with_suffix(".txt")
    if not text.is_file():
        return None
    try:
        return text.read_text(encoding="utf-8").strip() or None
    except UnicodeDecodeError as error:
        raise ValueError(f"{text}: got bytes that are not UTF-8 ({error.reason} at {error.start}), wanted UTF-8 text; "
                         "save it again as UTF-8") from error  # fmt: skip


def _read(entry: Entry) -> Clip:
    audio = _read_audio(entry.audio, entry.where)
    noisy_samples: np.ndarray | None = None
    converted = audio.converted
    if entry.noisy_audio is not None:
        noisy = _read_audio(entry.noisy_audio, entry.where)
        if len(noisy.samples) != len(audio.samples):
            raise ValueError(f"{entry.where}: got {len(noisy.samples)} samples of noisy_audio and {len(audio.samples)} "
                             "of audio, wanted the same length; cut both alike")  # fmt: skip
        noisy_samples, converted = noisy.samples, converted + noisy.converted
    return Clip(id=entry.id, split=entry.split, audio=audio.samples, text=entry.text, speaker=entry.speaker,
                noisy_audio=noisy_samples, converted=converted)  # fmt: skip


def _read_audio(path: Path, where: str) -> AudioFile:
    try:
        return read_audio(path)
    except ValueError as error:
        raise ValueError(str(error) if where == str(path) else f"{where}: {error}") from error
