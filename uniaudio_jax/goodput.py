"""Goodput: what the wall time of a training is spent on."""

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from jax import monitoring

PARTS = ("step", "input", "save", "restore", "compile", "evaluation", "other")
"""input is the wait for batches, restore the making or reading of the first state."""
COMPILING = "/jax/core/compile/"
"""How the names begin of the durations that jax tells of tracing, lowering and compiling."""


class Goodput:
    """The seconds of each part since it was made; each moment belongs to one part.

    What the host does while the devices work on a step is no loss and counts as step, whatever it is; only the rest
    counts as what the host says it does. What jax compiles in this thread counts as compile.
    """

    def __init__(self):
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._part, self._since = "other", time.perf_counter()
        self._ready: Future[float] | None = None
        self._waiter = ThreadPoolExecutor(1, "goodput")
        self._open = True
        self._thread, self._compiled = threading.get_ident(), list[tuple[float, float]]()
        monitoring.register_event_duration_secs_listener(self._note)

    def close(self) -> None:
        """Counts no more."""
        self._turn(self._part)
        self._open = False
        monitoring.unregister_event_duration_listener(self._note)
        self._waiter.shutdown()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The time of the block belongs to this part."""
        before = self._part
        self._turn(name)
        try:
            yield
        finally:
            self._turn(before)

    def working_on(self, result: jax.Array) -> None:
        """Notes that the devices work until this result of a step is ready; nothing waits for it here."""
        self._ready = self._waiter.submit(_when_ready, result)

    def shares(self) -> dict[str, float]:
        """The share of each part so far; their sum is 1."""
        self._turn(self._part)
        total = self.total_seconds
        return {name: seconds / total for name, seconds in self.seconds.items()}

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())

    def in_words(self) -> str:
        """The shares as one line."""
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.shares().items())
        return f"{self.total_seconds:.1f} s of wall time: {shares}"

    def _turn(self, part: str) -> None:
        """Ends what was done since the last turn; from now on it is this part."""
        if not self._open:
            return
        now, since = time.perf_counter(), self._since
        compiling = min(sum(seconds for _, seconds in self._compiled), now - since)
        ready = since if self._ready is None else self._ready.result() if self._ready.done() else now
        working = min(max(ready - since, 0.0), now - since - compiling)
        self.seconds["compile"] += compiling
        self.seconds["step"] += working
        self.seconds[self._part] += now - since - compiling - working
        self._part, self._since = part, now
        self._compiled.clear()

    def _note(self, event: str, duration_secs: float, **_: Any) -> None:
        if not event.startswith(COMPILING) or threading.get_ident() != self._thread:
            return
        start = time.perf_counter() - duration_secs
        while self._compiled and self._compiled[-1][0] >= start:  # it was part of this one
            self._compiled.pop()
        self._compiled.append((start, duration_secs))


def _when_ready(result: jax.Array) -> float:
    jax.block_until_ready(result)
    return time.perf_counter()
