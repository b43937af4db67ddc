"""Signals that ask a training to save and leave."""

import signal
from typing import Any, Protocol


class Stop(Protocol):
    """What a training loop asks before each step; asked_by names the signal, once one has come."""

    @property
    def asked(self) -> bool: ...

    @property
    def asked_by(self) -> str | None: ...


class StopOnSignal:
    """Notes SIGTERM and SIGINT (Ctrl-C), so that a loop can save and leave in order; a second SIGINT ends at once."""

    def __init__(self):
        self._asked_by: str | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    @property
    def asked(self) -> bool:
        return self._asked_by is not None

    @property
    def asked_by(self) -> str | None:
        return self._asked_by

    def _note(self, number: int, *_: Any) -> None:
        self._asked_by = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)
