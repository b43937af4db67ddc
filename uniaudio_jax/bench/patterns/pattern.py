"""What a pattern is: which codes of an example are predicted at which position, and packed rows laid out so.

A position predicts all that it holds at once, from the positions before it. A frame that holds no codes (a mark, a
phone, a text vector, masked audio) is one token, of level 1.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from uniaudio_jax.sequence import Batch
from uniaudio_jax.vocab import Vocabulary

ABSENT = -1
MULTIPLE = 32
"""Sizes of rows are multiples of this, so that a few steps of a training need no other programs than all of it."""

Pattern = Callable[[Bool[np.ndarray, " T"], int], Int[np.ndarray, "P Q"]]
"""(which frames of an example are codes, Q) → its cells: the frame whose token of each level a position holds, or
ABSENT."""


class Positions(NamedTuple):
    """Rows of positions, numpy on the host and arrays in the programs.

    tokens: [B, P, Q], or ABSENT; segments: [B, P], 0 is padding; positions: [B, P], from 0 in each segment; frames,
    levels: [B, P], the first cell's frame in its example, and its level; text_slots: [B, P], index into text_vectors or
    -1; text_vectors: [B, M, W]; counted: [B, N], indices of the positions that hold tokens which count; weights:
    [B, N, Q], how much each of these counts.
    """

    tokens: Any
    segments: Any
    positions: Any
    frames: Any
    levels: Any
    text_slots: Any
    text_vectors: Any
    counted: Any
    weights: Any


class Sizes(NamedTuple):
    """Positions of a row, and how many of them may count."""

    positions: int
    counted: int


def is_codes(tokens: Int[np.ndarray, "T Q"], vocabulary: Vocabulary) -> Bool[np.ndarray, " T"]:
    """Which frames are codes."""
    first = vocabulary.level(0)
    return (tokens[:, 0] >= first.start) & (tokens[:, 0] < first.stop)


def to_positions(cells: Int[np.ndarray, "P Q"], values: Shaped[np.ndarray, "T Q"]) -> Shaped[np.ndarray, "P Q"]:
    """The value of each cell, or ABSENT."""
    return np.where(cells >= 0, np.take_along_axis(values, np.maximum(cells, 0), axis=0), ABSENT)


def to_frames(
    cells: Int[np.ndarray, "P Q"], values: Shaped[np.ndarray, "P Q"], frames: int
) -> Shaped[np.ndarray, "T Q"]:
    """The values of cells by frame and level; what no cell holds is that of level 1."""
    by_frame = np.full((frames, cells.shape[1]), ABSENT, values.dtype)
    place, level = np.nonzero(cells >= 0)
    by_frame[cells[place, level], level] = values[place, level]
    return np.where(by_frame == ABSENT, by_frame[:, :1], by_frame)


def row_cells(
    pattern: Pattern, tokens: Int[np.ndarray, "T Q"], segments: Int[np.ndarray, " T"], vocabulary: Vocabulary
) -> tuple[Int[np.ndarray, "P Q"], Int[np.ndarray, " S"]]:
    """The cells of a packed row by frame of the row, example after example, and the positions of each example."""
    codes, parts = is_codes(tokens, vocabulary), []
    for segment in range(1, segments.max() + 1):
        frames = np.flatnonzero(segments == segment)
        cells = pattern(codes[frames], tokens.shape[1])
        parts.append(np.where(cells >= 0, cells + frames[0], ABSENT))
    return np.concatenate(parts), np.array([len(part) for part in parts])


def sizes_of(pattern: Pattern, batches: Iterable[Batch], vocabulary: Vocabulary) -> Sizes:
    """The fewest positions that hold every row of these batches, rounded up."""
    most = Sizes(0, 0)
    for batch in batches:
        for row in range(len(batch.tokens)):
            cells, _ = row_cells(pattern, batch.tokens[row], batch.segments[row], vocabulary)
            counts = int((_weights(batch, row, cells) > 0).any(axis=1).sum())
            most = Sizes(max(most.positions, len(cells)), max(most.counted, counts))
    return Sizes(*(-(-size // MULTIPLE) * MULTIPLE for size in most))


def lay_out(pattern: Pattern, batch: Batch, vocabulary: Vocabulary, sizes: Sizes) -> Positions:
    """The rows of a host batch by positions."""
    rows = [_lay_out_row(pattern, batch, row, vocabulary, sizes) for row in range(len(batch.tokens))]
    return Positions(*(np.stack(field) for field in zip(*rows, strict=True)))


def _lay_out_row(pattern: Pattern, batch: Batch, row: int, vocabulary: Vocabulary, sizes: Sizes) -> Positions:
    tokens, segments = batch.tokens[row], batch.segments[row]
    cells, lengths = row_cells(pattern, tokens, segments, vocabulary)
    held = cells >= 0
    levels = held.argmax(axis=1)
    first = cells[np.arange(len(cells)), levels]
    weights = _weights(batch, row, cells)
    counted = np.flatnonzero((weights > 0).any(axis=1))
    behind, unused = (0, sizes.positions - len(cells)), (0, sizes.counted - len(counted))
    return Positions(
        tokens=np.pad(to_positions(cells, tokens), (behind, (0, 0)), constant_values=ABSENT).astype(np.int32),
        segments=np.pad(segments[first], behind),
        positions=np.pad(np.concatenate([np.arange(length) for length in lengths]), behind).astype(np.int32),
        frames=np.pad(batch.positions[row][first], behind),
        levels=np.pad(levels, behind).astype(np.int32),
        text_slots=np.pad(np.where(held[:, 0], batch.text_slots[row][cells[:, 0]], -1), behind, constant_values=-1),
        text_vectors=batch.text_vectors[row],
        counted=np.pad(counted, unused).astype(np.int32),
        weights=np.pad(weights[counted], (unused, (0, 0))).astype(np.float32),
    )


def _weights(batch: Batch, row: int, cells: Int[np.ndarray, "P Q"]) -> np.ndarray:
    """How much each cell counts, [P, Q]."""
    if batch.loss_frames is None:
        return np.zeros(cells.shape)
    weights = np.zeros(len(batch.tokens[row]))
    np.add.at(weights, batch.loss_frames[row], batch.loss_weights[row])
    return np.where(cells >= 0, weights[cells], 0)
