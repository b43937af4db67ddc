"""Held-out examples of a run's datasets, for generation and evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.batches import Dataset, Rows, Source, check_codec, limits_of, open_datasets, stack_rows
from data_pipelines.plan import Examples, Member, one_epoch
from uniaudio_jax.config import RunConfig
from uniaudio_jax.sequence import Batch, from_frames
from uniaudio_jax.tasks import KINDS


@dataclass(frozen=True)
class Example:
    """One held-out example: its id, its text, and all its streams, a drawn speaker prompt included."""

    id: str
    text: str
    streams: dict[str, np.ndarray]


class HeldOut:
    """The held-out split of one task of a run; of several processes each holds its share of the rows."""

    def __init__(self, config: RunConfig, task: str, codec_passport: dict[str, Any], host: int = 0, hosts: int = 1):
        self.vocabulary = config.model.ids
        rate = codec_passport["sample_rate_hz"] / codec_passport["hop_samples"]
        self.datasets = open_datasets(Path(config.data.root), [task], "heldout")[task]
        self.rows = []
        for dataset in self.datasets:
            check_codec(dataset, codec_passport)
            limits = limits_of(config.data, "items", rate)
            examples = Examples(dataset.index, dataset.task, limits, config.data.seed)
            self.rows.append(
                Rows(
                    [Source(examples, dataset.records)],
                    [1.0],
                    limits,
                    config.data.seed,
                    self.vocabulary,
                    config.model.text_width,
                )
            )
        self.batch_rows, self.host, self.hosts = config.data.rows, host, hosts

    def batches(self) -> Iterator[Batch]:
        """Every held-out example once, in rows whose loss counts the target's items; the last batch is filled up
        with rows that count nothing."""
        places = self._places()
        for first in range(0, len(places), self.batch_rows):
            group = [rows.row(members) for rows, members in places[first : first + self.batch_rows]]
            idle = group[0]._replace(loss_weights=np.zeros_like(group[0].loss_weights))
            group += [idle] * (self.batch_rows - len(group))
            yield stack_rows(group[self.host :: self.hosts])

    def examples(self, count: int) -> list[Example]:
        """The first `count` held-out examples of the plan, fewer if there are fewer."""
        found: list[Example] = []
        for rows, members in self._places():
            for member in members[: count - len(found)]:
                record = rows.sources[0].records[member.record]
                streams = from_frames(rows.example(member), self.vocabulary)[1]
                found.append(Example(record["id"].decode(), record["text"].decode(), streams))
        return found

    def _places(self) -> list[tuple[Rows, list[Member]]]:
        """Rows that hold every example once, and the dataset of each."""
        return [(rows, members) for rows in self.rows for members in one_epoch(rows.sources[0].examples)]


def target_histogram(config: RunConfig, task: str, most_records: int = 20_000) -> np.ndarray:
    """How often each code came at each level of the target in the training split, [Q, entries], or each id, [1, ids]
    (at most `most_records` records, evenly spaced)."""
    datasets: list[Dataset] = open_datasets(Path(config.data.root), [task], "train")[task]
    vocabulary, target = config.model.ids, datasets[0].task.target
    codes = KINDS[target.kind].form == "codes"
    entries = vocabulary.entries if codes else len(vocabulary.span(KINDS[target.kind].span or ""))
    counts = np.zeros((vocabulary.codebooks if codes else 1, entries), np.int64)
    for dataset in datasets:
        size = len(dataset.index)
        for number in range(0, size, max(1, -(-size // most_records))):
            for level, column in enumerate(levels_of(dataset.records[number][target.key], len(counts))):
                counts[level] += np.bincount(column, minlength=entries)
    return counts


def levels_of(items: np.ndarray, levels: int) -> np.ndarray:
    """The items of a target by level, [Q, n]: the first `levels` columns of codes, or the ids as one level."""
    return items[:, :levels].T if items.ndim == 2 else items[None]
