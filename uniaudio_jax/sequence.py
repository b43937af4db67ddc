"""Task and streams to frames and back, and frames to packed batches.

`<start> <TASK_task> {<kind_start> … <kind_end>} … <end>`, one frame of Q tokens for each item: an audio frame is its
Q codes, any other token is repeated Q times, and a text vector takes a frame of `<continuous_token>` (arXiv
2310.00704 section 2.2). The target span, from its start token to `<end>`, is what the loss counts. Where conditions
are dropped, their marks stay, with nothing between them.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from uniaudio_jax.tasks import KINDS, TASK_NUMBERS, Stream, Task, get_task
from uniaudio_jax.vocab import CONTINUOUS, END, SPECIAL_IDS, SPECIAL_TOKENS, START, Vocabulary

MASK_CODE = -1
"""Stands for the mask id in the codes of an audio stream (speech editing)."""


SPOILT_RUN = 10
"""Frames of audio that are spoilt together."""
HIDDEN = -2
"""Stands for the text slot of a frame that later frames do not see; below it, HIDDEN - 1 - s says that they see frame s
of the row in its place."""


class Frames(NamedTuple):
    """One example as frames.

    tokens: [T, Q] ids; target: [T], whether the frame belongs to the target span; text_slots: [T], row of
    `text_vectors` that replaces the frame's embedding, or -1; text_vectors: [M, W]; task: row of TASKS.
    """

    tokens: Int[np.ndarray, "T Q"]
    target: Bool[np.ndarray, " T"]
    text_slots: Int[np.ndarray, " T"]
    text_vectors: Float[np.ndarray, "M W"]
    task: int


class Batch(NamedTuple):
    """Packed rows, numpy on the host and sharded arrays in the programs.

    tokens: [B, T, Q]; segments: [B, T], 0 is padding, 1… number the examples of a row; positions: [B, T], from 0 in
    each segment; loss_frames: [B, N], indices of the frames that count; loss_weights: [B, N], how much each counts, 0
    for unused entries; task: [B, N], the row of TASKS that each belongs to; text_slots: [B, T], index into
    text_vectors, -1, or HIDDEN and below; text_vectors: [B, M, W]; audio_frames: [B, S], frames of audio that the row's
    examples of each of the run's S datasets hold.
    """

    tokens: Any
    segments: Any
    positions: Any
    loss_frames: Any
    loss_weights: Any
    task: Any
    text_slots: Any
    text_vectors: Any
    audio_frames: Any


def unscored(tokens: Any, segments: Any, positions: Any, text_slots: Any, text_vectors: Any) -> Batch:
    """Rows of which nothing is counted."""
    return Batch(tokens, segments, positions, None, None, None, text_slots, text_vectors, None)


def frame_count(task: Task, lengths: Mapping[str, Any]) -> Any:
    """Frames of an example whose streams have these lengths (numbers or arrays of numbers): items + 2 each, + 3."""
    return 3 + sum(lengths[stream.key] + 2 for stream in task.streams)


def target_count(task: Task, lengths: Mapping[str, Any]) -> Any:
    """Frames of the target span: the items, the two marks around them, and `<end>`."""
    return lengths[task.target.key] + 3


def audio_frames(task: Task, lengths: Mapping[str, Any]) -> Any:
    """The length of an example's audio in frames: that of its longest timed stream, 0 without any."""
    timed = [lengths[stream.key] for stream in task.streams if KINDS[stream.kind].timed and stream.key in lengths]
    return functools.reduce(np.maximum, timed, 0)


def to_frames(task: Task, streams: Mapping[str, np.ndarray], vocabulary: Vocabulary, text_width: int) -> Frames:
    """The example as frames. Raises ValueError when a stream is missing, misshapen or out of its range."""
    spans = [_special(task.token, vocabulary)]
    vectors: list[np.ndarray] = []
    for stream in task.streams:
        items = _items(task, stream, streams, vocabulary, text_width)
        if KINDS[stream.kind].form == "vectors":
            vectors.append(items)
            items = np.full((len(items), vocabulary.codebooks), CONTINUOUS, np.int32)
        spans.append(_wrap(items, stream.kind, vocabulary))
    target_frames = len(spans[-1]) + 1
    tokens = np.concatenate([_special("<start>", vocabulary), *spans, _special("<end>", vocabulary)])
    is_text = tokens[:, 0] == CONTINUOUS
    return Frames(
        tokens=tokens,
        target=np.arange(len(tokens)) >= len(tokens) - target_frames,
        text_slots=np.where(is_text, np.cumsum(is_text) - 1, -1).astype(np.int32),
        text_vectors=np.concatenate(vectors) if vectors else np.zeros((0, text_width), np.float32),
        task=TASK_NUMBERS[task.name],
    )


def to_prefix(task: Task, streams: Mapping[str, np.ndarray], vocabulary: Vocabulary, text_width: int) -> Frames:
    """Frames up to and with the target's start token: what generation goes on from."""
    empty = empty_streams([task.target], vocabulary, text_width)
    return cut(to_frames(task, {**streams, **empty}, vocabulary, text_width), -2)


def empty_streams(streams: Iterable[Stream], vocabulary: Vocabulary, text_width: int) -> dict[str, np.ndarray]:
    """These streams with nothing in them: what becomes of conditions that are dropped, in training and in guidance."""
    return {stream.key: np.zeros(_shape(stream, 0, vocabulary, text_width), np.float32) for stream in streams}


def cut(frames: Frames, end: int) -> Frames:
    """The frames before `end`."""
    return frames._replace(tokens=frames.tokens[:end], target=frames.target[:end], text_slots=frames.text_slots[:end])


def from_frames(frames: Frames, vocabulary: Vocabulary) -> tuple[Task, dict[str, np.ndarray]]:
    """The task and streams that `to_frames` was given. Raises ValueError where the grammar is broken."""
    first = frames.tokens[:, 0]
    task = next((t for t in map(get_task, TASK_NUMBERS) if len(first) > 1 and SPECIAL_IDS[t.token] == first[1]), None)
    if task is None or first[0] != START or first[-1] != END:
        raise ValueError(
            f"frames start with {_names(first[:2])} and end with {_names(first[-1:])}; wanted <start>, "
            "a task token … <end>"
        )
    streams, at = {}, 2
    for stream in task.streams:
        begin, end = (SPECIAL_IDS[f"<{stream.kind}_{mark}>"] for mark in ("start", "end"))
        stops = np.flatnonzero(first[at:] == end)
        if first[at] != begin or not len(stops):
            raise ValueError(
                f"task {task.name}, frame {at}: got {_names(first[at : at + 1])}, wanted "
                f"<{stream.kind}_start> … <{stream.kind}_end>"
            )
        span = slice(at + 1, at + int(stops[0]))
        streams[stream.key] = _raw(frames, span, stream, vocabulary)
        at = span.stop + 1
    return task, streams


def pack(
    examples: Sequence[Frames],
    frames: int,
    loss_frames: int,
    text_frames: int,
    loss_on: str,
    weights: Mapping[str, float] | None = None,
) -> Batch:
    """One row (no batch axis) of `frames` frames with these examples one after the other.

    loss_on "target" counts the target spans, "items" those without their marks, "all" every frame; weights: how much a
    counted frame of a task counts, 1 where none is given. Raises ValueError when they do not fit into `frames`,
    `loss_frames` or `text_frames`.
    """
    names = list(TASK_NUMBERS)
    lengths = [len(example.tokens) for example in examples]
    counts = np.concatenate([_counted(example, loss_on) for example in examples])
    vectors = np.concatenate([example.text_vectors for example in examples])
    for what, got, most in (
        ("frames", sum(lengths), frames),
        ("counted frames", int(counts.sum()), loss_frames),
        ("text vectors", len(vectors), text_frames),
    ):
        if got > most:
            told = ", ".join(sorted({names[example.task] for example in examples}))
            raise ValueError(f"a row of {len(examples)} examples of {told}: got {got} {what}, at most {most}")
    used = sum(lengths)
    row = Batch(
        tokens=np.zeros((frames, examples[0].tokens.shape[1]), np.int32),
        segments=np.zeros(frames, np.int32),
        positions=np.zeros(frames, np.int32),
        loss_frames=np.zeros(loss_frames, np.int32),
        loss_weights=np.zeros(loss_frames, np.float32),
        task=np.zeros(loss_frames, np.int32),
        text_slots=np.full(frames, -1, np.int32),
        text_vectors=np.zeros((text_frames, vectors.shape[1]), np.float32),
        audio_frames=np.zeros(1, np.int32),
    )
    row.tokens[:used] = np.concatenate([example.tokens for example in examples])
    row.segments[:used] = np.repeat(np.arange(len(examples)) + 1, lengths)
    row.positions[:used] = np.concatenate([np.arange(length) for length in lengths])
    counted = np.flatnonzero(counts)
    tasks = np.array([example.task for example in examples])[row.segments[counted] - 1]
    row.loss_frames[: len(counted)] = counted
    row.task[: len(counted)] = tasks
    row.loss_weights[: len(counted)] = _of_tasks(weights or {}, 1.0)[tasks]
    before = np.cumsum([0] + [len(example.text_vectors) for example in examples])
    slots = [np.where(e.text_slots >= 0, e.text_slots + b, -1) for e, b in zip(examples, before, strict=False)]
    row.text_slots[:used] = np.concatenate(slots)
    row.text_vectors[: len(vectors)] = vectors
    return row


def spoil_history(row: Batch, audio: range, shares: Mapping[str, float], rng: np.random.Generator) -> Batch:
    """The row with a share of each task's counted frames of audio spoilt for later ones, in runs of SPOILT_RUN frames.

    Half of the runs are hidden; in place of the others stands other audio of the row, as after a mistake. shares: of
    each task, 0 where none is given.
    """
    is_audio = (row.loss_weights > 0) & np.isin(row.tokens[row.loss_frames, 0], audio)
    counted, share = row.loss_frames[is_audio], _of_tasks(shares, 0.0)[row.task[is_audio]]
    if not share.any():
        return row
    count = len(counted) // SPOILT_RUN + 2
    drawn, first = rng.random(count), int(rng.integers(SPOILT_RUN))
    run = np.repeat(np.arange(count), SPOILT_RUN)[first:][: len(counted)]
    other = counted[(np.arange(len(counted)) + rng.integers(len(counted), size=count)[run]) % len(counted)]
    spoilt = np.where(drawn[run] < share / 2, HIDDEN, HIDDEN - 1 - other)
    slots = row.text_slots.copy()
    slots[counted] = np.where(drawn[run] < share, spoilt, slots[counted])
    return row._replace(text_slots=slots)


def _of_tasks(values: Mapping[str, float], otherwise: float) -> Float[np.ndarray, " N"]:
    """The value of each task in the order of TASK_NUMBERS."""
    return np.array([values.get(name, otherwise) for name in TASK_NUMBERS])


def _counted(example: Frames, loss_on: str) -> Bool[np.ndarray, " T"]:
    """The frames of an example that the loss counts."""
    if loss_on == "all":
        return np.ones(len(example.tokens), bool)
    counted = example.target.copy()
    if loss_on == "items":
        counted[[np.argmax(counted), -2, -1]] = False
    return counted


def _items(task: Task, stream: Stream, streams: Mapping[str, np.ndarray], vocabulary: Vocabulary, text_width: int):
    """The stream as ids [n, Q], or as vectors [n, W]."""
    where = f"task {task.name}, stream {stream.key!r}"
    if stream.key not in streams:
        raise ValueError(f"{where}: missing; wanted {[s.key for s in task.streams]}, got {sorted(streams)}")
    values, kind, codebooks = np.asarray(streams[stream.key]), KINDS[stream.kind], vocabulary.codebooks
    shape = _shape(stream, len(values), vocabulary, text_width)
    if values.shape != shape:
        raise ValueError(f"{where}: got shape {values.shape}, wanted {shape}")
    if kind.span is None:
        return values.astype(np.float32)
    lowest, entries = 0, len(vocabulary.span(kind.span))
    if kind.form == "codes":
        lowest, entries = MASK_CODE, vocabulary.entries
    if len(values) and not (values.min() >= lowest and values.max() < entries):
        raise ValueError(f"{where}: got values {values.min()} to {values.max()}, wanted {lowest} to {entries - 1}")
    values = values.astype(np.int32)
    if kind.form == "ids":
        return np.repeat(values[:, None] + vocabulary.span(kind.span).start, codebooks, axis=1)
    starts = [vocabulary.level(level).start for level in range(codebooks)]
    return np.where(values == MASK_CODE, vocabulary.audio_mask, values + np.array(starts, np.int32)).astype(np.int32)


def _shape(stream: Stream, items: int, vocabulary: Vocabulary, text_width: int) -> tuple[int, ...]:
    """The shape of a stream of so many items."""
    widths = {"codes": (vocabulary.codebooks,), "ids": (), "vectors": (text_width,)}
    return items, *widths[KINDS[stream.kind].form]


def _raw(frames: Frames, span: slice, stream: Stream, vocabulary: Vocabulary) -> np.ndarray:
    """The inverse of `_items` for the frames of one span."""
    tokens, kind = frames.tokens[span], KINDS[stream.kind]
    if kind.span is None:
        return frames.text_vectors[frames.text_slots[span]]
    if kind.form == "ids":
        return tokens[:, 0] - vocabulary.span(kind.span).start
    starts = np.array([vocabulary.level(level).start for level in range(vocabulary.codebooks)], np.int32)
    return np.where(tokens == vocabulary.audio_mask, MASK_CODE, tokens - starts).astype(np.int32)


def _special(token: str, vocabulary: Vocabulary) -> np.ndarray:
    return np.full((1, vocabulary.codebooks), SPECIAL_IDS[token], np.int32)


def _wrap(items: Int[Array, "n Q"] | np.ndarray, kind: str, vocabulary: Vocabulary) -> np.ndarray:
    return np.concatenate([_special(f"<{kind}_start>", vocabulary), items, _special(f"<{kind}_end>", vocabulary)])


def _names(ids: np.ndarray) -> str:
    return " ".join(SPECIAL_TOKENS[i] if i < len(SPECIAL_TOKENS) else str(i) for i in ids) or "nothing"
