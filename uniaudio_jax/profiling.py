"""Traces of a training by jax's profiler: of the steps that the config names, and of the next ones after SIGUSR1."""

import signal
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

FOLDER = "profile"
STEPS = 5
"""Steps that are traced after a signal."""


class Profiler:
    """Traces into a folder, in each process what its own host and devices do.

    steps: the first and the last one of a trace, counted from 1. SIGUSR1 is taken from now on until it is closed.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        self.folder, self._steps = folder, steps
        self._asked, self._last = False, 0
        self._before = signal.signal(signal.SIGUSR1, self._note)

    def before(self, step: int) -> None:
        """Begins a trace with this step, if one is due."""
        if self._last:
            return
        if self._steps and self._steps[0] <= step <= self._steps[1]:
            self._last, self._steps = self._steps[1], None
        elif self._asked:
            self._last = step + STEPS - 1
        if self._last:
            self._asked = False
            jax.profiler.start_trace(str(self.folder))

    def after(self, step: int, result: Any) -> None:
        """Ends the trace when this was its last step, whose `result` is waited for."""
        if step == self._last:
            jax.block_until_ready(result)
            self._end()

    def close(self) -> None:
        if self._last:
            self._end()
        signal.signal(signal.SIGUSR1, self._before)

    def _end(self) -> None:
        jax.profiler.stop_trace()
        tqdm.write(
            f"profile up to step {self._last}: {self.folder}; open its newest *.trace.json.gz at "
            f"https://ui.perfetto.dev, or run `xprof {self.folder}` (pip install xprof)"
        )
        self._last = 0

    def _note(self, *_: Any) -> None:
        self._asked = True
