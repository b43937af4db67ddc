"""Finished evaluations as they lie in run folders, and which of their parts are equal across runs."""

import string
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from uniaudio_jax.checkpoint import FOLDER, CheckpointReader
from uniaudio_jax.evaluation.comparison import read_evaluation
from uniaudio_jax.paths import Place
from uniaudio_jax.sinks.jsonl import FILE as METRICS_FILE
from uniaudio_jax.sinks.jsonl import read_metrics

LETTERS = string.ascii_uppercase[:8]
"""Names of the runs on the page, which has a colour for each."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A run folder's evaluation; meta: what stands beside the weights in its checkpoint, {} where there is none."""

    letter: str
    folder: Place
    record: dict[str, Any]
    lines: list[dict[str, Any]]
    meta: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name or str(self.folder)

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        return self.record["tasks"]


def read_evaluations(folders: Sequence[Place]) -> list[Evaluated]:
    """The evaluation of each run folder, called A, B, … in this order.

    Raises ValueError for no run or too many, the same one twice, and a folder without an evaluation of today's form.
    """
    if not 1 <= len(folders) <= len(LETTERS):
        raise ValueError(f"--run: got {len(folders)} runs, wanted 1 to {len(LETTERS)}; repeat --run for each")
    if len(set(folders)) < len(folders):
        raise ValueError(f"--run: got {', '.join(map(str, folders))}, wanted different runs; name each once")
    return [_read(letter, folder) for letter, folder in zip(LETTERS, folders, strict=False)]


def _read(letter: str, folder: Place) -> Evaluated:
    meta = {}
    if (folder / FOLDER).is_dir():
        with closing(CheckpointReader(folder)) as checkpoints:
            meta = checkpoints.read_meta()
    return Evaluated(
        letter=letter,
        folder=folder,
        record=read_evaluation(folder),
        lines=read_metrics(folder / METRICS_FILE),
        meta=meta,
    )


def equal_across_runs(values: Iterable[tuple[str, T]], key: Callable[[T], Hashable] = repr) -> list[tuple[str, T]]:
    """(letters, value) for each different value, of pairs of a run's letter and its value; in the order they come."""
    letters: dict[Hashable, str] = {}
    firsts: dict[Hashable, T] = {}
    for letter, value in values:
        letters[key(value)] = letters.get(key(value), "") + letter
        firsts.setdefault(key(value), value)
    return [(letters[one], first) for one, first in firsts.items()]
