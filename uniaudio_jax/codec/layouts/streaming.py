"""Streams: a codec applied piece by piece, with the results of the whole recording and memory for a few pieces.

A codec is a chain of two kinds of stages. A frame of a `Windowed` stage depends on a bounded number of frames to each
side: the stage keeps that many past frames, waits for that many later ones, and drops results too close to a cut. A
`Recurrent` stage carries a state. In a causal layout no frame depends on a later one, so the push that brings a frame
returns its result (but for the first few, which the mirror at the start needs).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Stage(Protocol):
    """One link of a chain."""

    def push(self, x: np.ndarray, last: bool) -> np.ndarray:
        """The results that the frames so far determine; with `last` all that remain."""
        ...


class Windowed:
    """Applies `run`, a function from [frames × enter, …] to [frames × leave, …], window by window.

    left, right: frames on each side that an output frame depends on. start: frames that the first window needs for
    its left edge to equal that of the whole. enter, leave: items in and out per frame; the very last frame may have
    fewer items.
    """

    def __init__(
        self, run: Callable[[np.ndarray], Any], *, left: int, right: int, start: int = 1, enter: int = 1, leave: int = 1
    ):
        self.run, self.left, self.right, self.start, self.enter, self.leave = run, left, right, start, enter, leave
        self.held: np.ndarray | None = None
        self.low = self.done = 0  # number of the first held frame, and of the next frame to return

    def push(self, x: np.ndarray, last: bool) -> np.ndarray:
        if len(x):
            self.held = x if self.held is None else np.concatenate([self.held, x])
        if self.held is None:
            return x
        end = self.low + (-(-len(self.held) // self.enter) if last else len(self.held) // self.enter)
        ready = end if last else end - self.right
        if ready <= self.done or (end < self.start and not last):
            return self.held[:0]
        window = self.held if last else self.held[: (end - self.low) * self.enter]
        out = np.asarray(self.run(window))[(self.done - self.low) * self.leave : (ready - self.low) * self.leave]
        keep = max(self.low, ready - self.left - 1)  # one more, as the mirror at the end turns on the last frame
        self.held, self.low, self.done = self.held[(keep - self.low) * self.enter :], keep, ready
        return out


class Recurrent:
    """Applies `run`, a function from (frames, state) to (frames, state); the first state is None."""

    def __init__(self, run: Callable[[np.ndarray, Any], tuple[Any, Any]]):
        self.run, self.state = run, None

    def push(self, x: np.ndarray, last: bool) -> np.ndarray:
        if not len(x):
            return x
        y, self.state = self.run(x, self.state)
        return np.asarray(y)


class Chain:
    """Stages one after the other: `push` frames as they come, or iterate over a stream with `through`."""

    def __init__(self, stages: list[Stage]):
        self.stages = stages

    def push(self, x: np.ndarray, last: bool = False) -> np.ndarray:
        """The results that the frames so far determine; after `last` nothing more may be pushed."""
        for stage in self.stages:
            x = stage.push(x, last)
        return x

    def through(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The results for a stream of pieces, as they are ready; empty ones are left out."""
        waiting: np.ndarray | None = None
        for piece in pieces:
            if waiting is not None and len(out := self.push(waiting)):
                yield out
            waiting = piece
        if waiting is not None and len(out := self.push(waiting, last=True)):
            yield out
