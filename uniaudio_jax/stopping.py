"""Signals that ask a training to save and leave."""

import os
import signal
from typing import Any, Protocol

from jax.experimental import multihost_utils


def exit_code(asked_by: str) -> int:
    """What a command ends with after the signal of this name, where nothing is saved: 130 after SIGINT."""
    return 128 + signal.Signals[asked_by]


class Stop(Protocol):
    """What a training loop asks before each step; asked_by names the signal, once one has come."""

    @property
    def asked_by(self) -> str | None: ...

    def before(self, step: int) -> bool: ...


class StopOnSignal:
    """Notes SIGTERM and SIGINT (Ctrl-C), so that a loop can save and leave in order; a second SIGINT ends at once.

    Several processes, joined before this is made, all stop before the same step, whichever of them gets the signal:
    jax, which then handles SIGTERM, lets them agree on one. SIGINT is passed on to it as SIGTERM.
    """

    def __init__(self, processes: int):
        self._alone = processes == 1
        self._asked_by: str | None = None
        signal.signal(signal.SIGINT, self._note)
        if self._alone:
            signal.signal(signal.SIGTERM, self._note)

    @property
    def asked_by(self) -> str | None:
        return self._asked_by

    def before(self, step: int) -> bool:
        """Whether to stop before this step. Each process must ask before each of its steps."""
        if not self._alone and multihost_utils.reached_preemption_sync_point(step):
            self._asked_by = signal.SIGTERM.name
        return self._asked_by is not None

    def _note(self, number: int, *_: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._alone:
            self._asked_by = signal.Signals(number).name
        else:
            os.kill(os.getpid(), signal.SIGTERM)
