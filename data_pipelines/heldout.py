"""Held-out examples of a run's datasets, for generation and evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipelines.batches import Rows, Source, check_codec, limits_of, stack_rows
from data_pipelines.corpora import Split
from data_pipelines.plan import Examples, Member, one_epoch
from data_pipelines.views import open_views
from uniaudio_jax.clock import FrameClock
from uniaudio_jax.config import RunConfig
from uniaudio_jax.paths import to_place
from uniaudio_jax.sequence import Batch, from_frames
from uniaudio_jax.tasks import KINDS, get_task


@dataclass(frozen=True)
class Example:
    """One held-out example: its id, text, speaker and corpus, and all its streams, a drawn speaker prompt included."""

    id: str
    text: str
    speaker: str
    streams: dict[str, np.ndarray]
    corpus: str


class HeldOut:
    """The held-out split of one task of a run, or another; of several processes each holds its share of the rows."""

    def __init__(
        self,
        config: RunConfig,
        task: str,
        codec_passport: dict[str, Any],
        host: int = 0,
        hosts: int = 1,
        split: Split = "heldout",
    ):
        self.vocabulary = config.model.ids
        self.split: Split = split
        clock = FrameClock.from_passport(codec_passport)
        limits = limits_of(config.data, "items", clock)
        self.views = open_views(to_place(config.data.root), [task], split)[task]
        self.rows = []
        for view in self.views:
            check_codec(view, codec_passport)
            source = Source(Examples(view.index, view.task, limits, config.data.seed), view)
            self.rows.append(Rows([source], [1.0], limits, config.data.seed, self.vocabulary, config.model.text_width))
        self.batch_rows, self.host, self.hosts = config.data.rows, host, hosts

    def batches(self) -> Iterator[Batch]:
        """Every held-out example once, in rows whose loss counts the target's items; the last batch is filled up
        with rows that count nothing."""
        planned = list(self._rows())
        for first in range(0, len(planned), self.batch_rows):
            group = [self.rows[number].row(members) for number, members in planned[first : first + self.batch_rows]]
            idle = group[0]._replace(loss_weights=np.zeros_like(group[0].loss_weights))
            group += [idle] * (self.batch_rows - len(group))
            yield stack_rows(group[self.host :: self.hosts])

    def examples(self, count: int) -> list[Example]:
        """The first `count` held-out examples of the plan, fewer if there are fewer."""
        examples: list[Example] = []
        for number, members in self._rows():
            for member in members[: count - len(examples)]:
                streams = from_frames(self.rows[number].example(member), self.vocabulary)[1]
                view = self.views[number]
                examples.append(Example(*view.about(member.record), streams, view.corpus))
        return examples

    def _rows(self) -> Iterator[tuple[int, list[Member]]]:
        """Rows that hold every example once, and the number of the view of each."""
        for number, rows in enumerate(self.rows):
            for members in one_epoch(rows.sources[0].examples):
                yield number, members


def target_histogram(config: RunConfig, task: str, most_records: int = 20_000) -> np.ndarray:
    """How often each code came at each level of the target in the training split, [Q, entries], or each id, [1, ids]
    (at most `most_records` records of a corpus, evenly spaced)."""
    views = open_views(to_place(config.data.root), [task], "train")[task]
    vocabulary, target = config.model.ids, get_task(task).target
    codes = KINDS[target.kind].form == "codes"
    entries = vocabulary.entries if codes else len(vocabulary.span(KINDS[target.kind].span or ""))
    counts = np.zeros((vocabulary.codebooks if codes else 1, entries), np.int64)
    for view in views:
        for number in range(0, len(view), max(1, -(-len(view) // most_records))):
            for level, column in enumerate(levels_of(view.tokens(number, target.key), len(counts))):
                counts[level] += np.bincount(column, minlength=entries)
    return counts


def levels_of(items: np.ndarray, levels: int) -> np.ndarray:
    """The items of a target by level, [Q, n]: the first `levels` columns of codes, or the ids as one level."""
    return items[:, :levels].T if items.ndim == 2 else items[None]
