"""Batches by grain: the plan's rows → this host's share, read ahead → Batch. The state is the next step's number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grain
import numpy as np

from data_pipelines.plan import Examples, Limits, Member, Plan
from data_pipelines.views import View, open_views
from uniaudio_jax.clock import FrameClock
from uniaudio_jax.codec.passports import same_codes
from uniaudio_jax.config import DataConfig
from uniaudio_jax.paths import to_place
from uniaudio_jax.sequence import Batch, Frames, audio_frames, empty_streams, pack, spoil_history, to_frames
from uniaudio_jax.tasks import DRAWN, KINDS, Stream, Task, get_task
from uniaudio_jax.vocab import Vocabulary

ENDLESS = 1 << 48
"""Length that a source of rows claims: a plan goes on with the next epoch for ever."""
READERS = 16
"""Threads that make rows. Where records lie in memory one is enough; from a disk or network that takes milliseconds for
each, the rate grows with them."""


class Records(Protocol):
    """Random access to the streams of examples."""

    def tokens(self, number: int, key: str) -> np.ndarray: ...


@dataclass(frozen=True)
class Source:
    """A view that rows are made of: which examples there are, and their streams."""

    examples: Examples
    records: Records


class Rows:
    """Packed rows of a mixture by number, endless: a source for grain.

    shares: of the frames that go to each source; loss_weights: how much a counted frame of a task counts, if not 1;
    history_dropout: share of a task's counted frames of audio that later ones do not see as they are, if not 0.
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
        history_dropout: dict[str, float] | None = None,
    ):
        self.seed, self.history_dropout = seed, history_dropout
        self.plan = Plan([source.examples for source in sources], shares, limits, seed)
        self.sources, self.limits, self.loss_weights = sources, limits, loss_weights
        self.vocabulary, self.text_width = vocabulary, text_width

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Batch:
        row = self.row(self.plan.row(int(index)))
        if not self.history_dropout:
            return row
        rng = np.random.default_rng([self.seed, int(index)])
        return spoil_history(row, self.vocabulary.span("audio"), self.history_dropout, rng)

    def row(self, members: Sequence[Member]) -> Batch:
        """The row (no batch axis) of these examples."""
        limits, examples = self.limits, [self.example(member) for member in members]
        row = pack(examples, limits.frames, limits.loss_frames, limits.text_frames, limits.loss_on, self.loss_weights)
        heard = np.zeros(len(self.sources), np.int32)
        for member in members:
            of = self.sources[member.source].examples
            read = {stream.key for stream in self._read(member)}
            lengths = {key: of_key[member.record] for key, of_key in of.index.lengths.items() if key in read}
            heard[member.source] += audio_frames(of.task, lengths)
        return row._replace(audio_frames=heard)

    def example(self, member: Member) -> Frames:
        """The frames of one example, its speaker prompt cut from the example that the plan names."""
        task = self.sources[member.source].examples.task
        empty = empty_streams(task.streams, self.vocabulary, self.text_width)
        streams = {stream.key: self._stream(member, task, stream) for stream in self._read(member)}
        return to_frames(task, {**empty, **streams}, self.vocabulary, self.text_width)

    def _read(self, member: Member) -> tuple[Stream, ...]:
        """The streams of an example that are not dropped."""
        task = self.sources[member.source].examples.task
        return (task.target,) if member.dropped else task.streams

    def _stream(self, member: Member, task: Task, stream: Stream) -> np.ndarray:
        """One stream of an example; of codes only the levels that the vocabulary knows."""
        records = self.sources[member.source].records
        if stream.source == DRAWN:
            tokens = records.tokens(member.prompt, task.target.key)[: self.limits.prompt_frames]
        else:
            tokens = records.tokens(member.record, stream.key)
        return tokens[:, : self.vocabulary.codebooks] if KINDS[stream.kind].form == "codes" else tokens


def limits_of(config: DataConfig, loss_on: str, clock: FrameClock) -> Limits:
    """The limits of a row that a config asks for."""
    return Limits(
        config.row_frames,
        config.row_frames if loss_on == "all" else config.target_frames,
        config.text_frames,
        clock.frames(config.prompt_seconds),
        loss_on,
    )


@dataclass(frozen=True)
class Batches:
    """What one host holds of each step: item k is its batch of step k, `size` of its rows (a grain.MapDataset)."""

    rows: Any
    size: int

    def __getitem__(self, step: int) -> Batch:
        return stack_rows([self.rows[number] for number in range(step * self.size, (step + 1) * self.size)])


def make_batches(source: Rows, rows: int, host: int, hosts: int) -> Batches:
    """Batches of `rows` global rows, of which this host makes its own alone."""
    if rows % hosts:
        raise ValueError(f"data.rows={rows} is not a multiple of the {hosts} processes; choose one that is")
    return Batches(grain.MapDataset.source(source)[host::hosts], rows // hosts)


def stack_rows(rows: Sequence[Batch]) -> Batch:
    return Batch(*(np.stack(field) for field in zip(*rows, strict=True)))


def rows_of_batch(batch: int, rows: int, host: int, hosts: int) -> np.ndarray:
    """The numbers of the global rows that item `batch` of `make_batches` holds on this host, [rows / hosts]."""
    return batch * rows + np.arange(host, rows, hosts)


class BatchStream:
    """Batches one after the other; `step` is the number of the next one, and all there is to save.

    READERS threads make the rows of the next batch and READERS more ahead; what fails there is raised where its batch
    is asked for. Close it, or leave its `with`, and they make no more.
    """

    def __init__(self, batches: Batches, step: int = 0):
        self.size = batches.size
        options = grain.ReadOptions(num_threads=READERS, prefetch_buffer_size=self.size + READERS)
        self.rows = iter(batches.rows.to_iter_dataset(options))
        self.rows.set_state({"next_index": step * self.size})

    def __enter__(self) -> "BatchStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.rows.close()

    @property
    def step(self) -> int:
        return int(self.rows.get_state()["next_index"]) // self.size

    def __next__(self) -> Batch:
        return stack_rows([next(self.rows) for _ in range(self.size)])


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on: its batches on this host, the rows that they are made of, and the views in their order."""

    batches: Batches
    rows: Rows
    views: list[View]

    def examples(self, row: int) -> list[dict[str, str]]:
        """Dataset and id of each example of a global row, in their order, and the id that its prompt is cut from, or
        that its conditions are dropped."""
        described = []
        for member in self.rows.plan.row(row):
            view = self.views[member.source]
            described.append({"dataset": view.name, "id": view.about(member.record).id})
            if member.dropped:
                described[-1]["conditions"] = "dropped"
            elif member.prompt >= 0:
                described[-1]["prompt_id"] = view.about(member.prompt).id
        return described

    @property
    def skipped(self) -> int:
        """Examples that fit no row of this run."""
        return sum(sum(source.examples.skipped.values()) for source in self.rows.sources)


def open_training_data(
    config: DataConfig,
    loss_on: str,
    vocabulary: Vocabulary,
    text_width: int,
    codec_passport: dict,
    host: int,
    hosts: int,
) -> TrainingData:
    """The training data of a run.

    A task's share of the frames is its weight in the config times its hours to the power of `hours_power`; a task of
    several corpora shares it out by their frames. Raises ValueError when the tokens were made by another codec than the
    run's, and for a task whose ranges are not in the vocabulary.
    """
    clock = FrameClock.from_passport(codec_passport)
    limits = limits_of(config, loss_on, clock)
    sources: list[Source] = []
    shares: list[float] = []
    opened: list[View] = []
    for name, views in open_views(to_place(config.root), list(config.tasks), "train").items():
        check_ranges(get_task(name), vocabulary)
        of_task = []
        for view in views:
            check_codec(view, codec_passport)
            seed = config.seed + len(opened)
            of_task.append(Source(Examples(view.index, view.task, limits, seed, config.condition_dropout), view))
            opened.append(view)
        frames = [len(source.examples) * source.examples.mean_frames for source in of_task]
        hours = sum(view.hours(clock) for view in views)
        weight = config.tasks[name] * (hours**config.hours_power if hours else 1.0)
        sources += of_task
        shares += [weight * count / sum(frames) for count in frames]
    dropout = config.history_dropout
    rows = Rows(sources, shares, limits, config.seed, vocabulary, text_width, config.loss_weights, dropout)
    return TrainingData(make_batches(rows, config.rows, host, hosts), rows, opened)


def check_ranges(task: Task, vocabulary: Vocabulary) -> None:
    """Raises ValueError when a stream of `task` has no ids in this vocabulary."""
    for stream in task.streams:
        if span := KINDS[stream.kind].span:
            try:
                vocabulary.span(span)
            except ValueError as error:
                raise ValueError(f"task {task.name}, stream {stream.key!r}: {error}") from error


def check_codec(view: View, codec_passport: dict) -> None:
    """Raises ValueError when the tokens of `view` are of a codec with other codes, or at another frame rate."""
    codec, wanted = view.passport["codec"], codec_passport
    if codec is not None and not same_codes(codec, wanted):
        raise ValueError(
            f"{view.name}: tokens were made by codec {codec['codec']!r} ({codec['weights_sha256'][:12]}), but this "
            f"run wants {wanted['codec']!r} ({wanted['weights_sha256'][:12]}); build them again with "
            f"`python -m data_pipelines.builder --codec {wanted['codec']} --task {view.task.name} …`"
        )
    rate = FrameClock.from_passport(wanted).frame_rate_hz
    if view.passport["frame_rate_hz"] != rate:
        raise ValueError(
            f"{view.name}: its streams have {view.passport['frame_rate_hz']:g} frames a second, but the run's codec "
            f"{wanted['codec']!r} has {rate:g}; build them again with that codec"
        )
