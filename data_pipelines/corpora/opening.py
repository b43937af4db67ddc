"""A corpus from what a user names: `FORMAT:PLACE`, or just a path."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from data_pipelines.corpora import Corpus
from data_pipelines.corpora.captions import open_captions
from data_pipelines.corpora.folder import MANIFEST, open_folder
from data_pipelines.corpora.kaldi import open_kaldi
from data_pipelines.corpora.listing import json_lines
from data_pipelines.corpora.manifest import open_manifest
from data_pipelines.corpora.tfds_audio import open_tfds
from uniaudio_jax.errors import did_you_mean

FORMATS: dict[str, Callable[[str], Corpus]] = {
    "folder": open_folder,
    "kaldi": open_kaldi,
    "captions": open_captions,
    "manifest": open_manifest,
    "tfds": open_tfds,
}


def open_corpus(spec: str) -> Corpus:
    """The corpus `FORMAT:PLACE`, with a FORMAT of `FORMATS`, or the one at a path, whose files tell its format.

    Raises ValueError for an unknown format, a path that does not exist, and whatever the format's reader refuses.
    """
    name, colon, place = spec.partition(":")
    if colon and name in FORMATS:
        if not place:
            raise ValueError(f"corpus {spec!r}: got no place, wanted {name}:PLACE")
        return FORMATS[name](place)
    if Path(spec).exists():
        return FORMATS[format_at(Path(spec))](spec)
    if colon:
        raise ValueError(
            f"corpus {spec!r}: got the format {name!r}, wanted one of {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}"
        )
    raise ValueError(
        f"corpus {spec!r}: got a path that does not exist, wanted a folder, a file or FORMAT:PLACE with one "
        f"of the formats {', '.join(FORMATS)}; check the path"
    )


def corpus_name(spec: str) -> str:
    """The name of a corpus among others: that of its folder or file."""
    return Path(spec.split(":", 1)[-1]).resolve().stem


def format_at(path: Path) -> str:
    """The name in `FORMATS` for the file or folder at a path."""
    if path.is_file():
        return _format_of_file(path)
    files = {file.name for file in path.iterdir()}
    if MANIFEST in files:
        return "folder"
    if "wav.scp" in files:
        return "kaldi"
    if "features.json" in files:
        return "tfds"
    return "manifest" if any("recordings" in name and ".jsonl" in name for name in files) else "folder"


def _format_of_file(path: Path) -> str:
    """csv: captions; json and jsonl: the format that has the keys of the first line, by default captions."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if suffixes[-1:] == [".csv"]:
        return "captions"
    if suffixes[-1:] not in ([".json"], [".jsonl"]):
        raise ValueError(
            f"{path}: got a file of unknown format, wanted .csv, .json or .jsonl, or FORMAT:PLACE with a "
            f"FORMAT of {', '.join(FORMATS)}"
        )
    try:
        keys = {key for _, fields in islice(json_lines(path), 1) for key in fields}
    except ValueError:
        return "captions"  # a JSON file of several lines; its reader reports what is broken
    if {"id", "split"} <= keys:
        return "folder"
    is_manifest = keys & {"recording", "tracks", "sources", "recording_id"} or {"audio_filepath", "duration"} <= keys
    return "manifest" if is_manifest and "caption" not in keys else "captions"
