"""Packing as a plan: from index, seed and epoch, a pure function says which examples share a row.

Examples of an epoch are shuffled by a keyed permutation, cut into blocks, and each block is packed by first fit. A
row is found by its number alone: the number of rows of each block is counted once for each epoch, and a block is
packed again when one of its rows is asked for. So memory does not grow with the examples, and the state of a loader
is the number of its next row.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from data_pipelines.index import Index
from uniaudio_jax.sequence import frame_count, target_count
from uniaudio_jax.tasks import DRAWN, KINDS, Task

BLOCK = 8192
OPEN_ROWS = 64
BLOCKS_HELD = 4


@dataclass(frozen=True)
class Limits:
    """What a row may hold: frames, counted frames and text vectors; and the frames of a speaker prompt."""

    frames: int
    loss_frames: int
    text_frames: int
    prompt_frames: int
    loss_on: str


class Member(NamedTuple):
    """One example of a row: its record, and the record that its speaker prompt is cut from (-1: none)."""

    record: int
    prompt: int


class Plan:
    """The rows of one task and dataset, endless: epoch after epoch, each shuffled anew.

    skipped: examples that can never be placed (longer than a row, or a speaker without a second utterance), per reason.
    """

    def __init__(self, index: Index, task: Task, limits: Limits, seed: int):
        self.index, self.task, self.limits, self.seed = index, task, limits, seed
        self.prompted = any(stream.source == DRAWN for stream in task.streams)
        self.blocks = -(-len(index) // BLOCK)
        self.counts: list[np.ndarray] = []
        self.cache: OrderedDict[tuple[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]] = OrderedDict()
        self.skipped = {"longer than a row": 0, "speaker with one utterance": 0}
        self._count(0)
        if not self.epoch_rows(0):
            raise ValueError(f"task {task.name}: none of {len(index)} examples fits a row of {limits}; {self.skipped}")

    def epoch_rows(self, epoch: int) -> int:
        """Number of rows of an epoch."""
        while len(self.counts) <= epoch:
            self._count(len(self.counts))
        return int(self.counts[epoch][-1])

    def row(self, number: int) -> list[Member]:
        """The members of row `number`, counted from the first epoch on."""
        epoch = 0
        while number >= self.epoch_rows(epoch):
            number -= self.epoch_rows(epoch)
            epoch += 1
        block = int(np.searchsorted(self.counts[epoch], number, side="right"))
        inside = number - (int(self.counts[epoch][block - 1]) if block else 0)
        records, prompts, starts = self._packed(epoch, block)
        span = slice(starts[inside], starts[inside + 1])
        return [Member(int(r), int(p)) for r, p in zip(records[span], prompts[span], strict=True)]

    def fill(self, epoch: int = 0) -> float:
        """Real frames over all frames of an epoch's rows."""
        used = 0
        for block in range(self.blocks):
            records, prompts, _ = self._packed(epoch, block)
            used += int(self._sizes(records, prompts)[0].sum())
        return used / (self.epoch_rows(epoch) * self.limits.frames)

    def _count(self, epoch: int) -> None:
        """Adds the running number of rows after each block of `epoch`."""
        rows = [len(self._pack(epoch, block, note=epoch == 0)[2]) - 1 for block in range(self.blocks)]
        self.counts.append(np.cumsum(rows))

    def _packed(self, epoch: int, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        key = (epoch, block)
        if key not in self.cache:
            self.cache[key] = self._pack(epoch, block)
            if len(self.cache) > BLOCKS_HELD:
                self.cache.popitem(last=False)
        self.cache.move_to_end(key)
        return self.cache[key]

    def _pack(self, epoch: int, block: int, note: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Records and prompts in row order, and where each row starts, [rows + 1]."""
        places = np.arange(block * BLOCK, min((block + 1) * BLOCK, len(self.index)))
        records = permute(places, len(self.index), mix(self.seed, epoch))
        prompts = self._prompts(records, epoch) if self.prompted else np.full(len(records), -1)
        frames, counted, texts = self._sizes(records, prompts)
        limits = self.limits
        fits = (frames <= limits.frames) & (counted <= limits.loss_frames) & (texts <= limits.text_frames)
        alone = self.prompted & (prompts < 0)
        if note:
            self.skipped["longer than a row"] += int((~fits & ~alone).sum())
            self.skipped["speaker with one utterance"] += int(alone.sum())
        keep = fits & ~alone
        records, prompts = records[keep], prompts[keep]
        sizes = np.stack([frames[keep], counted[keep], texts[keep]], axis=1)
        most = np.array([limits.frames, limits.loss_frames, limits.text_frames])
        rows = first_fit(np.ascontiguousarray(sizes, np.int64), most)
        order = np.argsort(rows, kind="stable")
        starts = np.searchsorted(rows[order], np.arange(rows.max(initial=-1) + 2))
        return records[order], prompts[order], starts

    def _sizes(self, records: np.ndarray, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frames, counted frames and text vectors of each example."""
        lengths = {key: np.asarray(column[records]) for key, column in self.index.lengths.items()}
        if self.prompted:
            of_prompt = self.index.lengths[self.task.target.key][np.maximum(prompts, 0)]
            lengths[DRAWN] = np.minimum(of_prompt, self.limits.prompt_frames)
        frames = frame_count(self.task, lengths)
        texts = [lengths[s.key] for s in self.task.streams if KINDS[s.kind].form == "vectors"]
        counted = frames if self.limits.loss_on == "all" else target_count(self.task, lengths)
        return frames, counted, sum(texts, np.zeros(len(records), np.int64))

    def _prompts(self, records: np.ndarray, epoch: int) -> np.ndarray:
        """For each record another utterance of its speaker, drawn from (seed, epoch, record); -1 if there is none."""
        index = self.index
        speakers = index.speakers[records]
        first = index.starts[speakers].astype(np.int64)
        size = index.starts[speakers + 1] - first
        step = 1 + mix(records, mix(self.seed, epoch)) % np.maximum(size - 1, 1).astype(np.uint64)
        chosen = first + (index.place[records] - first + step.astype(np.int64)) % size
        return np.where(size > 1, index.by_speaker[chosen], -1)


def mix(value: np.ndarray | int, key: np.ndarray | np.uint64 | int) -> Any:
    """Hash of unsigned 64-bit values under a key (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        x = np.asarray(value, np.uint64) + np.asarray(key, np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def permute(places: np.ndarray, size: int, key: np.ndarray | np.uint64 | int) -> np.ndarray:
    """Where a keyed permutation of range(size) sends `places`: a Feistel network, walked until it lands inside."""
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    low = np.uint64((1 << half) - 1)

    def once(x: np.ndarray) -> np.ndarray:
        left, right = x >> np.uint64(half), x & low
        for turn in range(4):
            left, right = right, left ^ (mix(right, mix(turn, key)) & low)
        return (left << np.uint64(half)) | right

    x = once(places.astype(np.uint64))
    while (outside := x >= size).any():
        x[outside] = once(x[outside])
    return x.astype(np.int64)


@njit(cache=True)
def first_fit(sizes: np.ndarray, most: np.ndarray) -> np.ndarray:
    """The row of each example, [n]: the oldest of at most OPEN_ROWS open rows that has room, else a new one.

    sizes: [n, k], what an example takes of each limit; most: [k], what a row may hold.
    """
    rows = np.empty(len(sizes), np.int64)
    opened = np.full(OPEN_ROWS, -1, np.int64)
    used = np.zeros((OPEN_ROWS, len(most)), np.int64)
    count = 0
    for number in range(len(sizes)):
        slot = -1
        for candidate in range(OPEN_ROWS):
            if opened[candidate] < 0 or (slot >= 0 and opened[candidate] > opened[slot]):
                continue
            fits = True
            for limit in range(len(most)):
                fits = fits and used[candidate, limit] + sizes[number, limit] <= most[limit]
            if fits:
                slot = candidate
        if slot < 0:
            slot = 0
            for candidate in range(OPEN_ROWS):
                if opened[candidate] < 0:
                    slot = candidate
                    break
                if used[candidate, 0] > used[slot, 0]:
                    slot = candidate
            opened[slot] = count
            used[slot] = 0
            count += 1
        used[slot] += sizes[number]
        rows[number] = opened[slot]
    return rows
