"""Folders of plain audio files: what their names and the files beside them say of text, speaker and split."""

import functools
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.corpora import Clip, Corpus, Entry, Segment, Split, read_clip, splits_of
from data_pipelines.corpora.listing import AUDIO_SUFFIXES, clip_fields, json_object, read_text

SUBSET = re.compile(r"(train|dev|test|heldout)([-_].*)?")
"""Folders that name a subset, such as LibriTTS's train-clean-100."""
WAVES = re.compile(r"wavs?(\d.*)?")
"""Folders that hold the audio of all speakers, such as VCTK's wav48_silence_trimmed."""
MICROPHONE = re.compile(r"_mic\d$")
TEXT_SUFFIXES = (".normalized.txt", ".original.txt", ".txt", ".lab")
BESIDE_FIELDS = ("text", "language", "speaker", "instruction", "labels")


def plain_corpus(root: Path) -> Corpus:
    """Each wav, flac and ogg file below `root` as a clip, with what the files beside it say.

    The speaker is the top folder, after those that `SUBSET` or `WAVES` describe. Clips in dev, test and heldout subsets
    are held out; where there are none, some of all are, by a hash. Of two microphones in VCTK only mic1 is taken.
    Hidden files and folders are passed over. Reading a clip whose text or .json file is broken raises ValueError.
    """
    files = set(root.rglob("*"))
    below = {path: path.relative_to(root) for path in sorted(files) if _is_clip(path, path.relative_to(root))}
    if not below:
        raise ValueError(
            f"{root}: got no manifest.jsonl and no audio, wanted {', '.join(AUDIO_SUFFIXES)} files; check the path"
        )
    ids = [path.with_suffix("").as_posix() for path in below.values()]
    splits: list[Split] = ["train" if _subset(path) in (None, "train") else "heldout" for path in below.values()]
    if "heldout" not in splits:
        splits = splits_of(ids)
    entries, broken = [], {}
    for (path, short), name, split in zip(below.items(), ids, splits, strict=True):
        about = _speaker(short)
        try:
            about |= _beside(path, files)
        except ValueError as error:
            broken[name] = str(error)
        entries.append(Entry(where=str(path), id=name, split=split, audio={"audio": Segment(path=path)}, about=about))
    return Corpus(place=str(root), entries=entries, read=functools.partial(_read, broken))


def _read(broken: Mapping[str, str], entry: Entry) -> Clip:
    """The clip of an entry; ValueError with the message in `broken` if its id is there."""
    if entry.id in broken:
        raise ValueError(broken[entry.id])
    return read_clip(entry)


def _is_clip(path: Path, below_root: Path) -> bool:
    hidden = any(part.startswith(".") for part in below_root.parts)
    return path.suffix.lower() in AUDIO_SUFFIXES and not hidden and not (_in_vctk(path) and path.stem.endswith("_mic2"))


def _in_vctk(path: Path) -> bool:
    """Whether `path` is as wav48/p225/p225_001.wav."""
    folders = path.absolute().parents
    return len(folders) > 2 and WAVES.fullmatch(folders[1].name) is not None


def _subset(below_root: Path) -> str | None:
    """train, dev, test or heldout, if one of the folders above the speaker says so."""
    for part in below_root.parts[:-1]:
        if match := SUBSET.fullmatch(part):
            return match[1]
        if not WAVES.fullmatch(part):
            return None
    return None


def _speaker(below_root: Path) -> dict[str, str]:
    for part in below_root.parts[:-1]:
        if not SUBSET.fullmatch(part) and not WAVES.fullmatch(part):
            return {"speaker": part}
    return {}


def _beside(path: Path, files: Collection[Path]) -> dict[str, Any]:
    """Fields from the text and the .json file, among `files`, of an audio file; those of the latter prevail."""
    texts = [file for suffix in TEXT_SUFFIXES if (file := path.with_name(path.stem + suffix)) in files]
    if not texts and _in_vctk(path):  # perhaps outside of the root
        speaker = path.absolute().parent
        file = speaker.parents[1] / "txt" / speaker.name / f"{MICROPHONE.sub('', path.stem)}.txt"
        texts = [file] if file.is_file() else []
    text = read_text(texts[0]).strip() if texts else ""
    found: dict[str, Any] = {"text": text} if text else {}
    json_file = path.with_name(f"{path.stem}.json")
    if json_file in files:
        fields = json_object(read_text(json_file), str(json_file))
        known = {key: value for key, value in fields.items() if key in BESIDE_FIELDS}
        if not known:
            raise ValueError(
                f"{json_file}: got the keys {', '.join(fields) or '(none)'}, wanted some of {', '.join(BESIDE_FIELDS)}"
            )
        found |= clip_fields(str(json_file), known)
    return found
