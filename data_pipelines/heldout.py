"""Held-out examples of a run's datasets, for generation and evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.batches import Dataset, Rows, check_codec, limits_of, open_datasets, stack_rows
from uniaudio_jax.config import RunConfig
from uniaudio_jax.sequence import Batch, from_frames
from uniaudio_jax.vocab import Vocabulary


@dataclass(frozen=True)
class Example:
    """One held-out example: its id, its text, and all its streams, a drawn speaker prompt included."""

    id: str
    text: str
    streams: dict[str, np.ndarray]


class HeldOut:
    """The held-out split of one task of a run."""

    def __init__(self, config: RunConfig, task: str, codec_passport: dict[str, Any]):
        self.vocabulary = Vocabulary(config.model.codebooks)
        rate = codec_passport["sample_rate_hz"] / codec_passport["hop_samples"]
        self.datasets = open_datasets(Path(config.data.root), [task], "heldout")[task]
        self.rows = []
        for dataset in self.datasets:
            check_codec(dataset, codec_passport)
            limits = limits_of(config.data, "items", rate)
            self.rows.append(Rows(dataset.index, dataset.records, dataset.task, limits, config.data.seed,
                                  self.vocabulary, config.model.text_width))  # fmt: skip
        self.batch_rows = config.data.rows

    def batches(self) -> Iterator[Batch]:
        """Every held-out example once, in rows whose loss counts the target's items; the last batch is filled up
        with rows that count nothing."""
        rows = [source[number] for source in self.rows for number in range(source.plan.epoch_rows(0))]
        for first in range(0, len(rows), self.batch_rows):
            group = rows[first : first + self.batch_rows]
            idle = group[0]._replace(loss_weights=np.zeros_like(group[0].loss_weights))
            yield stack_rows(group + [idle] * (self.batch_rows - len(group)))

    def examples(self, count: int) -> list[Example]:
        """The first `count` held-out examples of the plan, fewer if there are fewer."""
        found: list[Example] = []
        for source, dataset in zip(self.rows, self.datasets, strict=True):
            for number in range(source.plan.epoch_rows(0)):
                for member in source.plan.row(number):
                    if len(found) == count:
                        return found
                    record = dataset.records[member.record]
                    streams = from_frames(source.example(member), self.vocabulary)[1]
                    found.append(Example(record["id"].decode(), record["text"].decode(), streams))
        return found


def target_histogram(config: RunConfig, task: str, most_records: int = 20_000) -> np.ndarray:
    """How often each code came at each level of the target in the training split, [Q, entries] (at most
    `most_records` records, evenly spaced)."""
    vocabulary = Vocabulary(config.model.codebooks)
    counts = np.zeros((vocabulary.codebooks, vocabulary.entries), np.int64)
    datasets: list[Dataset] = open_datasets(Path(config.data.root), [task], "train")[task]
    for dataset in datasets:
        key, size = dataset.task.target.key, len(dataset.index)
        for number in range(0, size, max(1, -(-size // most_records))):
            codes = dataset.records[number][key][:, : vocabulary.codebooks]
            for level in range(vocabulary.codebooks):
                counts[level] += np.bincount(codes[:, level], minlength=vocabulary.entries)
    return counts
