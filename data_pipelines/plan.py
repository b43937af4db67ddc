"""Packing as a plan: from indexes, weights and seed, a pure function says which examples share a row.

Each dataset is an endless list of its examples, epoch after epoch, each shuffled by a keyed permutation. A block of the
plan takes from each dataset the next ones, so many that the rows' frames are shared out by the weights, and packs them
together in one of two orders, each into the first row that has room. How many rows a block has is known once it is
packed, so a plan finds row n by packing the blocks before it; a checkpoint keeps where a block near its own row begins,
and a resumed plan goes on from there. Memory does not grow with the examples, and the state of a loader is the number
of its next row.
"""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit, vectorize

from data_pipelines.views import Index
from uniaudio_jax.sequence import frame_count, target_count
from uniaudio_jax.tasks import DRAWN, KINDS, Task

BLOCK = 1024
"""Examples that are packed together: enough to fill rows, few enough to be packed in a millisecond."""
BLOCKS_HELD = 4
PASS = 1 << 16
"""Examples that are looked at together when a dataset is opened."""


@dataclass(frozen=True)
class Limits:
    """What a row may hold: frames, counted frames and text vectors; and the frames of a speaker prompt."""

    frames: int
    loss_frames: int
    text_frames: int
    prompt_frames: int
    loss_on: str

    @property
    def most(self) -> np.ndarray:
        """What a row may hold, in the order of the sizes of an example."""
        return np.array([self.frames, self.loss_frames, self.text_frames])


class Member(NamedTuple):
    """One example of a row: its dataset, its record, the record that its speaker prompt is cut from (-1: none), and
    whether its conditions are dropped (0 or 1)."""

    source: int
    record: int
    prompt: int
    dropped: int


class Chosen(NamedTuple):
    """Examples: records [n], prompts [n], whether their conditions are dropped [n], and sizes [n, 3], what each takes
    of a row's limits."""

    records: np.ndarray
    prompts: np.ndarray
    dropped: np.ndarray
    sizes: np.ndarray


class Examples:
    """The examples of one dataset, endless: epoch after epoch, each shuffled anew.

    skipped: examples that can never be placed (longer than a row, or a speaker without a second utterance), per reason.
    mean_frames: what an example takes on average, those that are skipped taking none. dropout: share of the examples
    whose conditions are dropped, others in each epoch. Raises ValueError when none can be placed.
    """

    def __init__(self, index: Index, task: Task, limits: Limits, seed: int, dropout: float = 0.0):
        self.index, self.task, self.limits, self.seed = index, task, limits, seed
        self.dropout = dropout if task.conditions else 0.0
        self.prompted = any(stream.source == DRAWN for stream in task.streams)
        self.skipped = {"longer than a row": 0, "speaker with one utterance": 0}
        placed = frames = 0
        for first in range(0, len(index), PASS):
            records = np.arange(first, min(first + PASS, len(index)))
            chosen, fits, alone = self._measured(records, 0)
            self.skipped["longer than a row"] += int((~fits & ~alone).sum())
            self.skipped["speaker with one utterance"] += int(alone.sum())
            placed += int((fits & ~alone).sum())
            frames += int(chosen.sizes[fits & ~alone, 0].sum())
        if not placed:
            raise ValueError(f"task {task.name}: none of {len(index)} examples fits a row of {limits}; {self.skipped}")
        self.mean_frames = frames / len(index)

    def __len__(self) -> int:
        return len(self.index)

    def take(self, first: int, last: int) -> Chosen:
        """Those of the endless list from place `first` up to `last` that can be placed."""
        size, parts = len(self), []
        for epoch in range(first // size, -(-last // size)):
            places = np.arange(max(first, epoch * size), min(last, (epoch + 1) * size)) - epoch * size
            chosen, fits, alone = self._measured(permute(places, size, splitmix64(self.seed, epoch)), epoch)
            parts.append([column[fits & ~alone] for column in chosen])
        empty = np.zeros(0, np.int64)
        parts = parts or [[empty, empty, empty, np.zeros((0, len(self.limits.most)), np.int64)]]
        return Chosen(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def _measured(self, records: np.ndarray, epoch: int) -> tuple[Chosen, np.ndarray, np.ndarray]:
        """These records with their prompts, drops and sizes; which of them fit a row whole; which have no prompt to
        draw."""
        prompts = self._prompts(records, epoch) if self.prompted else np.full(len(records), -1)
        dropped, sizes = self._dropped(records, epoch), self._sizes(records, prompts)
        fits = np.all(sizes <= self.limits.most, axis=1)
        if dropped.any():
            sizes = np.where(dropped[:, None] > 0, self._sizes(records, prompts, bare=True), sizes)
        return Chosen(records, prompts, dropped, sizes), fits, self.prompted & (prompts < 0)

    def _sizes(self, records: np.ndarray, prompts: np.ndarray, bare: bool = False) -> np.ndarray:
        """Frames, counted frames and text vectors of each example, or of what is left of it without conditions."""
        lengths = {key: np.asarray(column[records]) for key, column in self.index.lengths.items()}
        if self.prompted:
            of_prompt = self.index.lengths[self.task.target.key][np.maximum(prompts, 0)]
            lengths[DRAWN] = np.minimum(of_prompt, self.limits.prompt_frames)
        if bare:
            lengths |= dict.fromkeys((stream.key for stream in self.task.conditions), np.int64(0))
        frames = frame_count(self.task, lengths)
        texts = [lengths[s.key] for s in self.task.streams if KINDS[s.kind].form == "vectors"]
        counted = frames if self.limits.loss_on == "all" else target_count(self.task, lengths)
        return np.stack([frames, counted, sum(texts, np.zeros(len(records), np.int64))], axis=1).astype(np.int64)

    def _prompts(self, records: np.ndarray, epoch: int) -> np.ndarray:
        """For each record another utterance of its speaker, drawn from (seed, epoch, record); -1 if there is none."""
        speakers = self.index.speakers
        numbers = speakers.numbers[records]
        first = speakers.starts[numbers].astype(np.int64)
        size = speakers.starts[numbers + 1] - first
        step = 1 + splitmix64(records, splitmix64(self.seed, epoch)) % np.maximum(size - 1, 1).astype(np.uint64)
        chosen = first + (speakers.position[records] - first + step.astype(np.int64)) % size
        return np.where(size > 1, speakers.by_speaker[chosen], -1)

    def _dropped(self, records: np.ndarray, epoch: int) -> np.ndarray:
        """1 for each record whose conditions are dropped, drawn from (seed, epoch, record), else 0."""
        drawn = splitmix64(records, splitmix64(splitmix64(self.seed, epoch), 1))  # another key than the prompts'
        return (drawn < self.dropout * 2.0**64).astype(np.int64)


class Packed(NamedTuple):
    """Packed rows: the fields of each example's Member, [n, 4], in row order; where each row starts, [rows + 1]; and
    the frames of all of them."""

    members: np.ndarray
    starts: np.ndarray
    frames: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> list[Member]:
        return [Member(*map(int, member)) for member in self.members[self.starts[number] : self.starts[number + 1]]]


class Plan:
    """The rows of a mixture of datasets, endless. Several threads may ask for rows.

    shares: of the frames of the rows that go to each dataset, up to a common factor.
    """

    def __init__(self, sources: Sequence[Examples], shares: Sequence[float], limits: Limits, seed: int):
        self.sources, self.limits, self.seed = sources, limits, seed
        rates = np.array(shares) / [source.mean_frames for source in sources]
        self.quota = BLOCK * rates / rates.sum()
        self.cache: OrderedDict[int, Packed] = OrderedDict()
        self.lock = threading.RLock()
        self.start_at({"block": 0, "first_row": 0})

    def start_at(self, anchor: Mapping[str, int]) -> None:
        """Finds rows from an anchor on, which `anchor_of` a plan of the same sources returned."""
        with self.lock:
            self.first_block = anchor["block"]
            self.starts = [anchor["first_row"]]

    def anchor_of(self, row: int) -> dict[str, int]:
        """The number and first row of the last block, of those that were packed, that begins at `row` or before."""
        with self.lock:
            number = bisect_right(self.starts, row) - 1
            return {"block": self.first_block + number, "first_row": self.starts[number]}

    def row(self, number: int) -> list[Member]:
        """The members of row `number`."""
        with self.lock:
            if number < self.starts[0]:
                self.start_at({"block": 0, "first_row": 0})
            while self.starts[-1] <= number:
                packed = self._packed(self.first_block + len(self.starts) - 1)
                self.starts.append(self.starts[-1] + len(packed))
            anchor = self.anchor_of(number)
            return self._packed(anchor["block"]).row(number - anchor["first_row"])

    def fill(self, blocks: int) -> float:
        """Real frames over all frames of the rows of the first `blocks` blocks."""
        rows = frames = 0
        for block in range(blocks):
            packed = self._packed(block)
            rows, frames = rows + len(packed), frames + packed.frames
        return frames / (rows * self.limits.frames)

    def _packed(self, block: int) -> Packed:
        if block not in self.cache:
            spans = [(int(block * quota), int((block + 1) * quota)) for quota in self.quota]
            chosen = [source.take(*span) for source, span in zip(self.sources, spans, strict=True)]
            self.cache[block] = pack_rows(chosen, self.limits, splitmix64(self.seed, block))
            if len(self.cache) > BLOCKS_HELD:
                self.cache.popitem(last=False)
        self.cache.move_to_end(block)
        return self.cache[block]


def pack_rows(chosen: Sequence[Chosen], limits: Limits, key: np.ndarray | np.uint64 | int) -> Packed:
    """These examples of each dataset in rows, whose order is shuffled under `key`."""
    sources = np.repeat(np.arange(len(chosen)), [len(one.records) for one in chosen])
    records, prompts, dropped, sizes = (np.concatenate(columns) for columns in zip(*chosen, strict=True))
    packings = [rows_in_order(sizes, order, limits.most) for order in packing_orders(sizes / limits.most)]
    rows = min(packings, key=lambda rows: rows.max(initial=-1))
    count = int(rows.max(initial=-1)) + 1
    rows = permute(rows, count, key) if count else rows
    order = np.argsort(rows, kind="stable")
    starts = np.searchsorted(rows[order], np.arange(count + 1))
    members = np.stack([sources, records, prompts, dropped], axis=1)[order]
    return Packed(members, starts, int(sizes[:, 0].sum()))


def rows_in_order(sizes: np.ndarray, order: np.ndarray, most: np.ndarray) -> np.ndarray:
    """The row of each example, [n], where they are placed in this order."""
    rows = np.empty(len(order), np.int64)
    rows[order] = first_fit(np.ascontiguousarray(sizes[order]), most)
    return rows


def packing_orders(shares: np.ndarray) -> list[np.ndarray]:
    """Orders to pack examples in, given the share of each limit of a row that each takes, [n, k].

    The largest first; and the largest first of those that take most of the frames, of those that take most of the
    counted frames and so on, merged evenly. So each kind fills what the other leaves; the largest first may place all
    of one kind before the other, in rows that are full of frames and have room for counted ones.
    """
    largest = np.argsort(-shares.max(axis=1), kind="stable")
    kinds = shares[largest].argmax(axis=1)
    when = np.empty(len(kinds))
    for kind in (numbers := np.unique(kinds)):
        when[kinds == kind] = np.linspace(0, 1, np.count_nonzero(kinds == kind), endpoint=False)
    return [largest] if len(numbers) < 2 else [largest, largest[np.argsort(when, kind="stable")]]


def one_epoch(examples: Examples) -> list[list[Member]]:
    """Rows that hold each example of the first epoch once."""
    rows = []
    for first in range(0, len(examples), BLOCK):
        chosen = examples.take(first, min(first + BLOCK, len(examples)))
        packed = pack_rows([chosen], examples.limits, splitmix64(examples.seed, first))
        rows += [packed.row(number) for number in range(len(packed))]
    return rows


def splitmix64(value: np.ndarray | int, key: np.ndarray | np.uint64 | int) -> Any:
    """Hash of unsigned 64-bit values under a key (the finaliser of splitmix64)."""
    return _mixed(np.asarray(value, np.uint64), np.asarray(key, np.uint64))


@vectorize(["uint64(uint64, uint64)"], cache=True)
def _mixed(value: Any, key: Any) -> Any:
    x = value + key * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(places: np.ndarray, size: int, key: np.ndarray | np.uint64 | int) -> np.ndarray:
    """Where a keyed permutation of range(size) sends `places`: a Feistel network, walked until it lands inside."""
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    return _permuted(places, np.uint64(size), np.uint64(half), splitmix64(np.arange(4), key))


@njit(cache=True)
def _permuted(places: np.ndarray, size: np.uint64, half: np.uint64, turns: np.ndarray) -> np.ndarray:
    """half: bits of each half of a place; turns: the key of each round, [4]."""
    low = (np.uint64(1) << half) - np.uint64(1)
    sent = np.empty(len(places), np.int64)
    for number in range(len(places)):
        x = np.uint64(places[number])
        while True:
            left, right = x >> half, x & low
            for turn in turns:
                left, right = right, left ^ (_mixed(right, turn) & low)
            x = (left << half) | right
            if x < size:
                break
        sent[number] = x
    return sent


@njit(cache=True)
def first_fit(sizes: np.ndarray, most: np.ndarray) -> np.ndarray:
    """The row of each example, [n]: the first that has room, else a new one.

    sizes: [n, k], what an example takes of each limit; most: [k], what a row may hold.
    """
    rows = np.empty(len(sizes), np.int64)
    room = np.empty((len(sizes), len(most)), np.int64)
    room[:] = most
    count = 0
    for number in range(len(sizes)):
        row = 0
        while row < count:
            limit = 0
            while limit < len(most) and sizes[number, limit] <= room[row, limit]:
                limit += 1
            if limit == len(most):
                break
            row += 1
        count = max(count, row + 1)
        room[row] -= sizes[number]
        rows[number] = row
    return rows
