"""The small index beside the shards: length of every stream and the speaker of each record, without reading any."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PASSPORT = "passport.json"


@dataclass(frozen=True)
class Index:
    """Columns over the records of one split, memory-mapped.

    lengths: items of each stream, [n]. speakers: number of each record's speaker, [n]. by_speaker: record ids sorted
    by speaker, [n]; place: where each record stands in by_speaker, [n]; starts: where each speaker begins there.
    """

    lengths: dict[str, np.ndarray]
    speakers: np.ndarray
    by_speaker: np.ndarray
    place: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.speakers)


def make_index(lengths: dict[str, np.ndarray], speakers: Iterable[str]) -> Index:
    """An index from the lengths and speaker names of the records, in their order."""
    _, numbers = np.unique(np.asarray(list(speakers), dtype=str), return_inverse=True)
    by_speaker = np.argsort(numbers, kind="stable").astype(np.int32)
    place = np.empty(len(numbers), np.int32)
    place[by_speaker] = np.arange(len(numbers), dtype=np.int32)
    starts = np.searchsorted(numbers[by_speaker], np.arange(numbers.max(initial=-1) + 2)).astype(np.int32)
    lengths = {key: np.asarray(column, np.int32) for key, column in lengths.items()}
    return Index(lengths, numbers.astype(np.int32), by_speaker, place, starts)


def write_index(folder: Path, index: Index) -> None:
    """Writes the columns as .npy files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, column in index.lengths.items():
        np.save(folder / f"length_{key}.npy", column)
    for name in ("speakers", "by_speaker", "place", "starts"):
        np.save(folder / f"{name}.npy", getattr(index, name))


def read_index(folder: Path) -> Index:
    """The index in `folder`, memory-mapped: resident memory does not grow with the records."""
    if not (folder / "speakers.npy").is_file():
        raise ValueError(f"{folder}: no index of a tokenised dataset; build it with `python -m data_pipelines.builder`")

    def column(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy", mmap_mode="r")

    lengths = {path.stem.removeprefix("length_"): column(path.stem) for path in sorted(folder.glob("length_*.npy"))}
    return Index(lengths, *(column(name) for name in ("speakers", "by_speaker", "place", "starts")))


def write_passport(folder: Path, passport: dict[str, Any]) -> None:
    """Writes the passport, which marks the dataset complete, in one rename; adds the size of every shard."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.array_record*"))}
    partial = folder / (PASSPORT + ".partial")
    partial.write_text(json.dumps({**passport, "shards": sizes}, indent=1))
    os.replace(partial, folder / PASSPORT)


def read_passport(folder: Path) -> dict[str, Any]:
    """The passport of a dataset. Raises ValueError when it is incomplete or a shard has not the size it had."""
    path = folder / PASSPORT
    if not path.is_file():
        raise ValueError(
            f"{folder}: no {PASSPORT}, so this dataset was never finished; run its "
            "`python -m data_pipelines.builder` command again"
        )
    passport = json.loads(path.read_text())
    for name, size in passport["shards"].items():
        shard = folder / name
        got = f"{shard.stat().st_size} bytes" if shard.is_file() else "no file"
        if got != f"{size} bytes":
            raise ValueError(
                f"{shard}: got {got}, wanted {size} bytes as when it was written; copy the shard again, or "
                "delete the folder and run `python -m data_pipelines.builder`"
            )
    return passport
