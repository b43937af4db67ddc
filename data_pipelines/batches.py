"""Grain batches: rows of each task → mixture → this host's share → Batch. The whole state is the next step's number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.index import Index, read_index, read_passport
from data_pipelines.plan import Limits, Member, Plan
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


class Rows:
    """Packed rows by number, endless: a source for grain. number: which of the run's datasets this is."""

    def __init__(self, index: Index, records: Records, task: Task, limits: Limits, seed: int, vocabulary: Vocabulary,
                 text_width: int, number: int = 0):  # fmt: skip
        self.plan = Plan(index, task, limits, seed)
        self.records, self.task, self.limits, self.number = records, task, limits, number
        self.vocabulary, self.text_width = vocabulary, text_width

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Batch:
        limits, members = self.limits, self.plan.row(int(index))
        examples = [self.example(member) for member in members]
        row = pack(examples, self.task, limits.frames, limits.loss_frames, limits.text_frames, limits.loss_on)
        lengths = {key: column[[m.record for m in members]] for key, column in self.plan.index.lengths.items()}
        frames = np.int32(np.sum(audio_frames(self.task, lengths)))
        return row._replace(source=np.int32(self.number), audio_frames=frames)

    def example(self, member: Member) -> Frames:
        """The frames of one example, its speaker prompt cut from the record that the plan names."""
        streams = record_streams(self.records[member.record], self.task, self.vocabulary)
        if member.prompt >= 0:
            codes = self.records[member.prompt][self.task.target.key]
            streams[DRAWN] = codes[: self.limits.prompt_frames, : self.vocabulary.codebooks]
        return to_frames(self.task, streams, self.vocabulary, self.text_width)


def record_streams(record: dict[str, Any], task: Task, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """The streams of a record; of the codes only the levels that the vocabulary knows."""
    streams = {stream.key: record[stream.key] for stream in task.streams if stream.source != DRAWN}
    codes = {stream.key for stream in task.streams if KINDS[stream.kind].form == "codes"}
    return {key: value[:, : vocabulary.codebooks] if key in codes else value for key, value in streams.items()}


def limits_of(config: DataConfig, loss_on: str, frame_rate_hz: float) -> Limits:
    """The limits of a row that a config asks for."""
    return Limits(config.row_frames, config.row_frames if loss_on == "all" else config.target_frames,
                  config.text_frames, round(config.prompt_seconds * frame_rate_hz), loss_on)  # fmt: skip


def open_datasets(root: Path, tasks: list[str], split: str) -> dict[str, list[Dataset]]:
    """The datasets below `root`, by task.

    Raises ValueError when a task has none, or when two of them were made by different codecs or tokenizers.
    """
    found = {}
    for name in tasks:
        folders = sorted(path.parent for path in (root / get_task(name).name).glob("*/*/index") if path.is_dir())
        if not folders:
            have = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
            raise ValueError(f"{root}: no dataset of task {name!r}, there is {have or 'nothing'}; build one with "
                             f"`python -m data_pipelines.builder --task {name} --out {root} --corpus …`")  # fmt: skip
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
            raise ValueError(f"{one.folder} and {other.folder} were made with different {what}s: {first} and {second}; "
                             "build one of them again so that both are the same")  # fmt: skip


def make_batches(sources: list[Rows], weights: list[float], rows: int, host: int, hosts: int) -> grain.MapDataset:
    """Batches of `rows` global rows as a grain MapDataset: item k is what this host holds of step k.

    The mixture is by weight and deterministic; each source has its own shuffled order.
    """
    if rows % hosts:
        raise ValueError(f"data.rows={rows} is not a multiple of the {hosts} processes; choose one that is")
    parts = [grain.MapDataset.source(source) for source in sources]
    mixed = grain.MapDataset.mix(parts, weights=weights) if len(parts) > 1 else parts[0]
    return mixed[host::hosts].batch(rows // hosts, batch_fn=stack_rows)


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
) -> tuple[grain.MapDataset, list[Rows], list[Dataset]]:
    """The training batches of a run, and for each dataset its rows and itself; a row's `source` is its place there.

    A task's weight is that of the config times its hours to the power of `hours_power`; a task of several corpora
    shares its weight among them by their number of rows. Raises ValueError when the shards were made by another codec
    than the run's, and for a task whose ranges are not in the vocabulary.
    """
    rate = codec_passport["sample_rate_hz"] / codec_passport["hop_samples"]
    limits = limits_of(config, loss_on, rate)
    sources, weights, everything = [], [], []
    for name, of_task in open_datasets(Path(config.root), list(config.tasks), "train").items():
        check_ranges(get_task(name), vocabulary)
        rows = []
        for number, dataset in enumerate(of_task):
            check_codec(dataset, codec_passport)
            rows.append(Rows(dataset.index, dataset.records, dataset.task, limits, config.seed + 1000 * number,
                             vocabulary, text_width, len(everything) + number))  # fmt: skip
        counts = [source.plan.epoch_rows(0) for source in rows]
        hours = sum(dataset.hours(rate) for dataset in of_task)
        weight = config.tasks[name] * (hours**config.hours_power if hours else 1.0)
        sources += rows
        everything += of_task
        weights += [weight * count / sum(counts) for count in counts]
    return make_batches(sources, weights, config.rows, host, hosts), sources, everything


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
