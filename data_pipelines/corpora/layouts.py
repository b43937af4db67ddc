"""Folders of plain audio files: text, speaker and split from their names and from the files beside them."""

import functools
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from data_pipelines.corpora import Corpus, Entry, EntryTable, Segment, splits_of
from data_pipelines.corpora.listing import (
    AUDIO_SUFFIXES,
    UNREAD_SUFFIXES,
    clip_fields,
    json_value,
    optional_text,
    read_text,
    text_lines,
)

SUBSET = re.compile(r"(train|dev|test|heldout)([-_].*)?")
"""Folders that name a subset, such as LibriTTS's train-clean-100."""
CORPORA = re.compile(r"Libri(Speech|TTS)(_R)?")
"""Folders that hold the subsets of a corpus."""
WAVES = re.compile(r"wavs?(\d.*)?")
"""Folders that hold the audio of all speakers, such as VCTK's wav48_silence_trimmed."""
MICROPHONE = re.compile(r"_mic\d$")
TEXT_SUFFIXES = (".normalized.txt", ".original.txt", ".txt", ".lab")
TRANSCRIPTS = ".trans.txt"
"""End of the names of LibriSpeech's texts, with the name and the words of a file of the same folder on each line."""
BESIDE_TEXTS = ("text", "language", "speaker", "instruction")


def plain_corpus(root: Path) -> Corpus:
    """Each file below `root` with an ending of `AUDIO_SUFFIXES` as a clip, with the fields that files beside it give.

    The speaker is the first folder on the way to the file that `SUBSET`, `CORPORA` and `WAVES` do not describe. Clips
    in dev, test and heldout subsets are held out; without such subsets, a hash of the id decides. Of VCTK's two
    microphones only mic1 is used. Hidden files and folders are ignored, and linked folders are read, each one once.
    Reading a clip whose text or .json file is broken raises ValueError. Tells of what cannot be opened, of audio
    with other endings, and of a file that has the name of another with an ending which is earlier in `AUDIO_SUFFIXES`.
    """
    unread: Counter[str] = Counter()
    entries = EntryTable(_entry(path, path.relative_to(root), beside) for path, beside in _audio_below(root, unread))
    if unread:
        print(f"{root}: passed over {'; '.join(f'{count} {what}' for what, count in unread.items())}")
    if not entries:
        raise ValueError(
            f"{root}: got no manifest.jsonl and no audio, wanted {', '.join(AUDIO_SUFFIXES)} files; check the path"
        )
    if not len(entries.numbers("heldout")):
        entries.splits = splits_of(entries.id_hashes)
    return Corpus(place=str(root), entries=entries)


class Beside:
    """What lies in the folder of an audio file: the names of all files, and LibriSpeech's texts."""

    def __init__(self, folder: Path, names: Collection[str]):
        self.folder, self.names = folder, names

    @functools.cached_property
    def transcripts(self) -> dict[str, str]:
        """The words of files by their name without its ending."""
        files = [self.folder / name for name in sorted(self.names) if name.endswith(TRANSCRIPTS)]
        lines = [line.split(maxsplit=1) for file in files for _, line in text_lines(file)]
        return {words[0]: words[1].strip() for words in lines if len(words) > 1}


def _audio_below(folder: Path, unread: Counter[str], read: set[str] | None = None) -> Iterator[tuple[Path, Beside]]:
    """Each clip's file below a folder, in the order of the paths.

    unread: takes the endings of audio that is passed over. read: the real paths of folders, to end in a ring.
    """
    read = set() if read is None else read
    if (real := os.path.realpath(folder)) in read:
        return
    read.add(real)
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        print(f"{folder}: passed over, since it cannot be opened ({error.strerror})")
        return
    beside = Beside(folder, {name for name in names if os.path.isfile(folder / name)})
    for path in map(folder.joinpath, names):
        if os.path.isdir(path):
            yield from _audio_below(path, unread, read)
        elif path.suffix.lower() in UNREAD_SUFFIXES:
            unread[f"{path.suffix.lower()} (convert with `ffmpeg -i IN OUT.flac`)"] += 1
        elif path.suffix.lower() in AUDIO_SUFFIXES and not (_in_vctk(path) and path.stem.endswith("_mic2")):
            better = AUDIO_SUFFIXES[: AUDIO_SUFFIXES.index(path.suffix.lower())]
            if twin := next((suffix for suffix in better if path.stem + suffix in beside.names), None):
                unread[f"{path.suffix.lower()} beside a {twin} of the same name"] += 1
            else:
                yield path, beside


def _entry(path: Path, below_root: Path, beside: Beside) -> Entry:
    about, broken = _speaker(below_root), None
    try:
        about |= _fields_beside(path, beside)
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
        if not CORPORA.fullmatch(part) and not WAVES.fullmatch(part):
            return None
    return None


def _speaker(below_root: Path) -> dict[str, str]:
    for part in below_root.parts[:-1]:
        if not any(kind.fullmatch(part) for kind in (SUBSET, CORPORA, WAVES)):
            return {"speaker": part}
    return {}


def _fields_beside(path: Path, beside: Beside) -> dict[str, Any]:
    """Fields from the texts and the .json file beside an audio file; those of the .json file prevail."""
    texts = [path.with_name(path.stem + suffix) for suffix in TEXT_SUFFIXES if path.stem + suffix in beside.names]
    if not texts and _in_vctk(path):  # which may be outside of the root
        speaker = path.absolute().parent
        file = speaker.parents[1] / "txt" / speaker.name / f"{MICROPHONE.sub('', path.stem)}.txt"
        texts = [file] if file.is_file() else []
    text = read_text(texts[0]).strip() if texts else beside.transcripts.get(path.stem)
    fields: dict[str, Any] = {"text": text} if text else {}
    json_file = path.with_name(f"{path.stem}.json")
    if json_file.name in beside.names:
        listed = json_value(read_text(json_file), str(json_file))
        known = listed if isinstance(listed, dict) else {}
        texts_listed = {key: optional_text(str(json_file), known, key) for key in BESIDE_TEXTS}
        fields |= clip_fields(str(json_file), texts_listed | {"labels": known.get("labels") or None})
    return fields
