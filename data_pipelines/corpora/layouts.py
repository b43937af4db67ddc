"""Folders of plain audio files: text, speaker and split from their names and from the files beside them."""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from data_pipelines.corpora import Corpus, Entry, EntryTable, Segment, splits_of
from data_pipelines.corpora.listing import AUDIO_SUFFIXES, clip_fields, json_object, read_text

SUBSET = re.compile(r"(train|dev|test|heldout)([-_].*)?")
"""Folders that name a subset, such as LibriTTS's train-clean-100."""
WAVES = re.compile(r"wavs?(\d.*)?")
"""Folders that hold the audio of all speakers, such as VCTK's wav48_silence_trimmed."""
MICROPHONE = re.compile(r"_mic\d$")
TEXT_SUFFIXES = (".normalized.txt", ".original.txt", ".txt", ".lab")
BESIDE_FIELDS = ("text", "language", "speaker", "instruction", "labels")


def plain_corpus(root: Path) -> Corpus:
    """Each wav, flac and ogg file below `root` as a clip, with the fields that the files beside it give.

    The speaker is the first folder on the way to the file that neither `SUBSET` nor `WAVES` describes. Clips in dev,
    test and heldout subsets are held out; without such subsets, a hash of the id decides. Of VCTK's two microphones
    only mic1 is used. Hidden files and folders are ignored. Reading a clip whose text or .json file is broken raises
    ValueError.
    """
    entries = EntryTable(_entry(path, path.relative_to(root), names) for path, names in _audio_below(root))
    if not entries:
        raise ValueError(
            f"{root}: got no manifest.jsonl and no audio, wanted {', '.join(AUDIO_SUFFIXES)} files; check the path"
        )
    if not len(entries.numbers("heldout")):
        entries.splits = splits_of(entries.id_hashes)
    return Corpus(place=str(root), entries=entries)


def _audio_below(folder: Path) -> Iterator[tuple[Path, set[str]]]:
    """Each clip's file below a folder, in the order of the paths, with the names of all files in its own folder."""
    with os.scandir(folder) as listing:
        children = sorted((child for child in listing if not child.name.startswith(".")), key=lambda child: child.name)
    names = {child.name for child in children if child.is_file()}
    for child in children:
        path = folder / child.name
        if child.is_dir(follow_symlinks=False):
            yield from _audio_below(path)
        elif path.suffix.lower() in AUDIO_SUFFIXES and not (_in_vctk(path) and path.stem.endswith("_mic2")):
            yield path, names


def _entry(path: Path, below_root: Path, names: Collection[str]) -> Entry:
    about, broken = _speaker(below_root), None
    try:
        about |= _beside(path, names)
    except ValueError as error:
        broken = str(error)
    return Entry(
        where=str(path),
        id=below_root.with_suffix("").as_posix(),
        split="train" if _subset(below_root) in (None, "train") else "heldout",
        audio={"audio": Segment(path=path)},
        about=about,
        broken=broken,
    )


def _in_vctk(path: Path) -> bool:
    """Whether `path` is as wav48/p225/p225_001.wav."""
    folders = path.absolute().parents
    return len(folders) > 2 and WAVES.fullmatch(folders[1].name) is not None


def _subset(below_root: Path) -> str | None:
    """train, dev, test or heldout, if a folder above the speaker is named so."""
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


def _beside(path: Path, names: Collection[str]) -> dict[str, Any]:
    """Fields from the text and .json files, among the `names` beside an audio file; those of the .json file prevail."""
    texts = [path.with_name(path.stem + suffix) for suffix in TEXT_SUFFIXES if path.stem + suffix in names]
    if not texts and _in_vctk(path):  # which may be outside of the root
        speaker = path.absolute().parent
        file = speaker.parents[1] / "txt" / speaker.name / f"{MICROPHONE.sub('', path.stem)}.txt"
        texts = [file] if file.is_file() else []
    text = read_text(texts[0]).strip() if texts else ""
    fields: dict[str, Any] = {"text": text} if text else {}
    json_file = path.with_name(f"{path.stem}.json")
    if json_file.name in names:
        listed = json_object(read_text(json_file), str(json_file))
        known = {key: value for key, value in listed.items() if key in BESIDE_FIELDS}
        if not known:
            raise ValueError(
                f"{json_file}: got the keys {', '.join(listed) or '(none)'}, wanted some of {', '.join(BESIDE_FIELDS)}"
            )
        fields |= clip_fields(str(json_file), known)
    return fields
