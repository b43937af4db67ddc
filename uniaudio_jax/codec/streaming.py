"""A codec piece by piece: what comes out equals the work on the whole, with memory for a few pieces alone.

A codec is a chain of two kinds of stages. A `Windowed` stage looks a bounded number of frames to each side: it keeps
that much of its past, waits for that much of its future, and throws away what it computed too close to a cut. A
`Recurrent` stage carries a state. Causal layouts look at no future, so each frame comes out as soon as it went in
(after the first few, which the mirror at the start needs).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np


class Stage(Protocol):
    """One link of a chain: frames in, frames out, some of them later."""

    def push(self, x: np.ndarray, last: bool) -> np.ndarray: ...


class Windowed:
    """`run`, a function of [frames × enter, …] to [frames × leave, …], worked out window by window.

    left, right: frames on each side that an output frame depends on. start: frames that the first window must have
    for its left edge to come out as that of the whole. enter, leave: items in and out per frame; the very last
    frame may have fewer items.
    """

    def __init__(
        self, run: Callable[[np.ndarray], Any], *, left: int, right: int, start: int, enter: int = 1, leave: int = 1
    ):
        self.run, self.left, self.right, self.start, self.enter, self.leave = run, left, right, start, enter, leave
        self.held: np.ndarray | None = None
        self.low = self.done = 0  # number of the first held frame, and of the next one to come out

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
    """`run`, a function of (frames, state) to (frames, state); the state before the first frames is None."""

    def __init__(self, run: Callable[[np.ndarray, Any], tuple[Any, Any]]):
        self.run, self.state = run, None

    def push(self, x: np.ndarray, last: bool) -> np.ndarray:
        if not len(x):
            return x
        y, self.state = self.run(x, self.state)
        return np.asarray(y)


class Chain:
    """Stages one after the other: `push` frames, or whole streams by `through`."""

    def __init__(self, stages: list[Stage]):
        self.stages = stages

    def push(self, x: np.ndarray, last: bool = False) -> np.ndarray:
        """What can come out now; after `last` nothing more may be pushed."""
        for stage in self.stages:
            x = stage.push(x, last)
        return x

    def through(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The outputs for a stream of pieces, empty ones left out."""
        waiting: np.ndarray | None = None
        for piece in pieces:
            if waiting is not None and len(out := self.push(waiting)):
                yield out
            waiting = piece
        if waiting is not None and len(out := self.push(waiting, last=True)):
            yield out
