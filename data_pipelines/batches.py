"""Grain batches: the plan's rows → this host's share → Batch. The whole state is the next step's number."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.index import Index, read_index, read_passport
from data_pipelines.plan import Examples, Limits, Member, Plan
from uniaudio_jax.config import DataConfig
from uniaudio_jax.sequence import Batch, Frames, audio_frames, pack, to_frames
from uniaudio_jax.tasks import DRAWN, KINDS, Task, get_task
from uniaudio_jax.vocab import Vocabulary

ENDLESS = 1 << 48
"""Length that a source of rows claims: a plan goes on with the next epoch for ever."""

RECORDS_PER_SHARD = 8192
"""A read from ArrayRecord takes time in proportion to the records of its file: 5 ms at a million, .03 at this size."""


@runtime_checkable
class Records(Protocol):
    """Random access to records: streams by key."""

    def __getitem__(self, number: int) -> dict[str, Any]: ...


def open_records(folder: Path, split: str) -> Any:
    """The records of one split of a TFDS folder, by number."""
    return tfds.builder_from_directory(str(folder)).as_data_source(split)  # pyright: ignore[reportCallIssue]


class Dataset:
    """One tokenised dataset on disk: its passport, and for a split the index and the records."""

    def __init__(self, folder: Path, split: str):
        self.folder, self.passport = folder, read_passport(folder)
        self.task = get_task(self.passport["task"])
        self.index: Index = read_index(folder / "index" / split)
        self.records = open_records(folder, split)

    @property
    def name(self) -> str:
        return f"{self.task.name}/{self.passport['corpus']}"

    def hours(self, frame_rate_hz: float) -> float:
        """Hours of audio that the examples of this split are about."""
        return float(np.sum(audio_frames(self.task, self.index.lengths), dtype=np.float64)) / frame_rate_hz / 3600


@dataclass(frozen=True)
class Source:
    """A dataset that rows are made of: which examples there are, and their records."""

    examples: Examples
    records: Records


class Rows:
    """Packed rows of a mixture by number, endless: a source for grain.

    shares: of the frames that go to each source; loss_weights: how much a counted frame of a task counts, if not 1.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        shares: Sequence[float],
        limits: Limits,
        seed: int,
        vocabulary: Vocabulary,
        text_width: int,
        loss_weights: dict[str, float] | None = None,
    ):
        self.plan = Plan([source.examples for source in sources], shares, limits, seed)
        self.sources, self.limits, self.loss_weights = sources, limits, loss_weights
        self.vocabulary, self.text_width = vocabulary, text_width

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Batch:
        return self.row(self.plan.row(int(index)))

    def row(self, members: Sequence[Member]) -> Batch:
        """The row (no batch axis) of these examples."""
        limits, examples = self.limits, [self.example(member) for member in members]
        row = pack(examples, limits.frames, limits.loss_frames, limits.text_frames, limits.loss_on, self.loss_weights)
        heard = np.zeros(len(self.sources), np.int32)
        for member in members:
            of = self.sources[member.source].examples
            heard[member.source] += audio_frames(of.task, {k: v[member.record] for k, v in of.index.lengths.items()})
        return row._replace(audio_frames=heard)

    def example(self, member: Member) -> Frames:
        """The frames of one example, its speaker prompt cut from the record that the plan names."""
        source = self.sources[member.source]
        task, records = source.examples.task, source.records
        streams = record_streams(records[member.record], task, self.vocabulary)
        if member.prompt >= 0:
            codes = records[member.prompt][task.target.key]
            streams[DRAWN] = codes[: self.limits.prompt_frames, : self.vocabulary.codebooks]
        return to_frames(task, streams, self.vocabulary, self.text_width)


def record_streams(record: dict[str, Any], task: Task, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """The streams of a record; of the codes only the levels that the vocabulary knows."""
    streams = {stream.key: record[stream.key] for stream in task.streams if stream.source != DRAWN}
    codes = {stream.key for stream in task.streams if KINDS[stream.kind].form == "codes"}
    return {key: value[:, : vocabulary.codebooks] if key in codes else value for key, value in streams.items()}


def limits_of(config: DataConfig, loss_on: str, frame_rate_hz: float) -> Limits:
    """The limits of a row that a config asks for."""
    return Limits(
        config.row_frames,
        config.row_frames if loss_on == "all" else config.target_frames,
        config.text_frames,
        round(config.prompt_seconds * frame_rate_hz),
        loss_on,
    )


def open_datasets(root: Path, tasks: list[str], split: str) -> dict[str, list[Dataset]]:
    """The datasets below `root`, by task.

    Raises ValueError when a task has none, or when two of them were made by different codecs or tokenizers.
    """
    found = {}
    for name in tasks:
        folders = sorted(path.parent for path in (root / get_task(name).name).glob("*/*/index") if path.is_dir())
        if not folders:
            have = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
            raise ValueError(
                f"{root}: no dataset of task {name!r}, there is {have or 'nothing'}; build one with "
                f"`python -m data_pipelines.builder --task {name} --out {root} --corpus …`"
            )
        found[name] = [Dataset(folder, split) for folder in folders]
    everything = [dataset for datasets in found.values() for dataset in datasets]
    for dataset in everything[1:]:
        _agree(everything[0], dataset)
    return found


def _agree(one: Dataset, other: Dataset) -> None:
    pairs = [("codec", one.passport["codec"], other.passport["codec"])]
    shared = set(one.passport["tokenizers"]) & set(other.passport["tokenizers"])
    pairs += [(name, one.passport["tokenizers"][name], other.passport["tokenizers"][name]) for name in sorted(shared)]
    for what, first, second in pairs:
        if first != second:
            raise ValueError(
                f"{one.folder} and {other.folder} were made with different {what}s: {first} and {second}; "
                "build one of them again so that both are the same"
            )


def make_batches(source: Rows, rows: int, host: int, hosts: int) -> grain.MapDataset:
    """Batches of `rows` global rows as a grain MapDataset: item k is what this host holds of step k."""
    if rows % hosts:
        raise ValueError(f"data.rows={rows} is not a multiple of the {hosts} processes; choose one that is")
    return grain.MapDataset.source(source)[host::hosts].batch(rows // hosts, batch_fn=stack_rows)


def stack_rows(rows: Sequence[Batch]) -> Batch:
    return Batch(*(np.stack(field) for field in zip(*rows, strict=True)))


class BatchStream:
    """Batches one after the other; `step` is the number of the next one, and all there is to save."""

    def __init__(self, dataset: grain.MapDataset, step: int = 0):
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        self.iterator = iter(dataset.to_iter_dataset(options))
        self.iterator.set_state({"next_index": step})

    @property
    def step(self) -> int:
        return int(self.iterator.get_state()["next_index"])

    def __next__(self) -> Batch:
        return next(self.iterator)


def open_training_data(
    config: DataConfig,
    loss_on: str,
    vocabulary: Vocabulary,
    text_width: int,
    codec_passport: dict,
    host: int,
    hosts: int,
) -> tuple[grain.MapDataset, Rows, list[Dataset]]:
    """The training batches of a run, their rows and the datasets, whose order is that of the rows' sources.

    A task's share of the frames is its weight in the config times its hours to the power of `hours_power`; a task of
    several corpora shares it out by their frames. Raises ValueError when the shards were made by another codec than the
    run's, and for a task whose ranges are not in the vocabulary.
    """
    rate = codec_passport["sample_rate_hz"] / codec_passport["hop_samples"]
    limits = limits_of(config, loss_on, rate)
    sources: list[Source] = []
    shares: list[float] = []
    everything: list[Dataset] = []
    for name, of_task in open_datasets(Path(config.root), list(config.tasks), "train").items():
        check_ranges(get_task(name), vocabulary)
        opened = []
        for dataset in of_task:
            check_codec(dataset, codec_passport)
            seed = config.seed + len(everything) + len(opened)
            opened.append(Source(Examples(dataset.index, dataset.task, limits, seed), dataset.records))
        frames = [len(source.examples) * source.examples.mean_frames for source in opened]
        hours = sum(dataset.hours(rate) for dataset in of_task)
        weight = config.tasks[name] * (hours**config.hours_power if hours else 1.0)
        sources += opened
        everything += of_task
        shares += [weight * count / sum(frames) for count in frames]
    rows = Rows(sources, shares, limits, config.seed, vocabulary, text_width, config.loss_weights)
    return make_batches(rows, config.rows, host, hosts), rows, everything


def check_ranges(task: Task, vocabulary: Vocabulary) -> None:
    """Raises ValueError when a stream of `task` has no ids in this vocabulary."""
    for stream in task.streams:
        if span := KINDS[stream.kind].span:
            try:
                vocabulary.span(span)
            except ValueError as error:
                raise ValueError(f"task {task.name}, stream {stream.key!r}: {error}") from error


def check_codec(dataset: Dataset, codec_passport: dict) -> None:
    """Raises ValueError when the tokens of `dataset` were not made by this codec."""
    got = dataset.passport["codec"]
    if got["weights_sha256"] != codec_passport["weights_sha256"]:
        want = codec_passport
        raise ValueError(
            f"{dataset.folder}: tokens were made by codec {got['codec']!r} ({got['weights_sha256'][:12]}), but this "
            f"run wants {want['codec']!r} ({want['weights_sha256'][:12]}); build them again with "
            f"`python -m data_pipelines.builder --codec {want['codec']} --task {dataset.task.name} …`"
        )
