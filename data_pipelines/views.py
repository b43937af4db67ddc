"""Tasks as views: the columns that a task needs, joined by clip, without copying a record.

A corpus of TOKENS is trained on for a task when it has TOKENS/<corpus>/tasks/<task>.json, which the builder writes.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.corpora import Split
from data_pipelines.store import Column, Speakers, allow_open_files, column_folder, group_numbers
from data_pipelines.streams import mask_codes
from uniaudio_jax.clock import FrameClock
from uniaudio_jax.codec.passports import codes_of
from uniaudio_jax.files import write_json
from uniaudio_jax.paths import Place, check_reachable
from uniaudio_jax.sequence import audio_frames
from uniaudio_jax.tasks import MASKED, Task, get_task


class About(NamedTuple):
    """What a held-out example is called, what is said or heard in it, and by whom."""

    id: str
    text: str
    speaker: str


@dataclass(frozen=True)
class Index:
    """What a packing plan must know of the examples: the length of each stream by key, [n], and their speakers."""

    lengths: Mapping[str, np.ndarray]
    speakers: Speakers

    def __len__(self) -> int:
        return len(self.speakers.numbers)


class View:
    """The examples of one task in one split of a tokenised corpus, by number.

    Where all columns hold the same clips nothing is copied into memory; else the rows of each column are listed.
    opened: the columns of this split that other views have opened, by folder; takes those that this one opens.
    """

    def __init__(self, root: Place, corpus: str, task: Task, split: Split, opened: dict[Place, Column] | None = None):
        self.corpus, self.task, self.split = corpus, task, split
        opened, places = (
            {} if opened is None else opened,
            {s.key: column_folder(root, corpus, s.key) for s in task.columns},
        )
        for place in places.values():
            if place not in opened:
                opened[place] = Column(place, split)
        self.columns = {key: opened[place] for key, place in places.items()}
        self.passport = join_passports(task, corpus, self.columns)
        clips = [column.clips for column in self.columns.values()]
        if all(np.array_equal(clips[0], more) for more in clips[1:]):
            self._rows: dict[str, np.ndarray] | None = None
        else:
            shared = functools.reduce(functools.partial(np.intersect1d, assume_unique=True), clips)
            self._rows = {
                key: np.searchsorted(column.clips, shared).astype(np.int32) for key, column in self.columns.items()
            }
        self.index = self._index()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def name(self) -> str:
        return f"{self.task.name}/{self.corpus}"

    def hours(self, clock: FrameClock) -> float:
        """Hours of audio in the longest timed stream of each example."""
        return clock.hours(float(np.sum(audio_frames(self.task, self.index.lengths), dtype=np.float64)))

    def tokens(self, number: int, key: str) -> np.ndarray:
        """What the column of stream `key` holds for an example, a masked stream as the codes that are left."""
        tokens = self.columns[key].record(self._row(number, key))["tokens"]
        if key in self._masked:
            return mask_codes(self.tokens(number, self.task.target.key), tokens)
        return tokens

    def about(self, number: int) -> About:
        key = self.task.target.key
        record = self.columns[key].record(self._row(number, key))
        return About(*(record[name].decode() for name in About._fields))

    def _row(self, number: int, key: str) -> int:
        return int(number if self._rows is None else self._rows[key][number])

    @functools.cached_property
    def _masked(self) -> set[str]:
        return {stream.key for stream in self.task.columns if stream.source == MASKED}

    def _index(self) -> Index:
        target = self.task.target.key
        lengths = {key: column.lengths for key, column in self.columns.items()}
        speakers = self.columns[target].speakers()
        if self._rows is not None:
            lengths = {key: column[self._rows[key]] for key, column in lengths.items()}
            speakers = group_numbers(speakers.numbers[self._rows[target]])
        return Index(lengths | dict.fromkeys(self._masked, lengths[target]), speakers)


def join_passports(task: Task, corpus: str, columns: Mapping[str, Column]) -> dict[str, Any]:
    """What identifies the examples of a view. Raises ValueError when its columns were made from different things.

    A task without a stream of audio codes has no codec, but its frame rate is still that of one.
    """
    passports = {key: column.passport for key, column in columns.items()}
    for what in ("corpus_sha256", "frame_rate_hz", "codec"):
        values = {key: passport[what] for key, passport in passports.items() if passport[what] is not None}
        if what == "codec":
            values = {key: codes_of(codec) for key, codec in values.items()}
        for key, value in values.items():
            first = next(iter(values))
            if value != values[first]:
                raise ValueError(
                    f"{columns[key].folder}: its {what} is {value}, but {columns[first].folder} has {values[first]}; "
                    f"make them alike with `python -m data_pipelines.builder --task {task.name} …`"
                )
    codecs = [passport["codec"] for passport in passports.values() if passport["codec"] is not None]
    tokenizers: dict[str, str] = {}
    for passport in passports.values():
        tokenizers |= passport["tokenizer"]
    first = next(iter(passports.values()))
    return {
        "task": task.name,
        "corpus": corpus,
        "corpus_sha256": first["corpus_sha256"],
        "frame_rate_hz": first["frame_rate_hz"],
        "codec": codecs[0] if codecs else None,
        "tokenizers": tokenizers,
        "licence": first["licence"],
        "source": first["source"],
    }


def task_file(root: Path, corpus: str, task: str) -> Path:
    """The file that says that a corpus is for a task."""
    return root / corpus / "tasks" / f"{task}.json"


def write_task(root: Path, corpus: str, task: Task) -> None:
    """Notes that a corpus is for a task, and which columns the task joins."""
    write_json(task_file(root, corpus, task.name), {"task": task.name, "columns": [s.key for s in task.columns]})


def open_views(root: Place, tasks: list[str], split: Split) -> dict[str, list[View]]:
    """The views of these tasks in every corpus below `root` that is for them, by task.

    Raises ValueError when `root` is no folder, when a task has no corpus, or when two views were made with different
    codecs or tokenizers.
    """
    check_reachable("data.root", root)
    if not root.is_dir():
        relative = "" if root.is_absolute() else f" (relative to {Path.cwd()}); go to the directory of the training, or"
        raise ValueError(
            f"the folder {root} does not exist{relative or ';'} name that of the tokenised corpora: --data-root DIR in "
            "generate and evaluate, --data.root DIR in train"
        )
    views: dict[str, list[View]] = {}
    columns: dict[Place, Column] = {}
    for name in tasks:
        task = get_task(name)
        corpora = sorted(path.parents[1].name for path in root.glob(f"*/tasks/{task.name}.json"))
        if not corpora:
            built = sorted({path.stem for path in root.glob("*/tasks/*.json")})
            raise ValueError(
                f"{root}: no corpus for task {name!r}, there are some for {', '.join(built) or 'no task'}; build one "
                f"with `python -m data_pipelines.builder --task {name} --out {root} --corpus …`"
            )
        views[name] = [View(root, corpus, task, split, columns) for corpus in corpora]
    allow_open_files(root, sum(column.shards for column in columns.values()))
    opened = [view for of_task in views.values() for view in of_task]
    for view in opened[1:]:
        check_agreement(opened[0], view)
    return views


def check_agreement(view: View, other: View) -> None:
    """Raises ValueError when two views were made with different codecs or tokenizers, and names both."""
    pairs = [(name, view.passport["tokenizers"], other.passport["tokenizers"]) for name in view.passport["tokenizers"]]
    pairs.append(("codec", view.passport, other.passport))
    for name, first, second in pairs:
        if first.get(name) and second.get(name) and first[name] != second[name]:
            raise ValueError(
                f"{view.name} and {other.name} were made with different {name}s: {first[name]} and {second[name]}; "
                "build one of them again so that both are the same"
            )
