"""Signals that ask a training to save and leave."""

import signal
from typing import Any


class StopOnSignal:
    """Notes SIGTERM and SIGINT (Ctrl-C), so that a loop can save and leave in order; a second SIGINT ends at once."""

    def __init__(self):
        self.asked_by: str | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    @property
    def asked(self) -> bool:
        return self.asked_by is not None

    def _note(self, number: int, *_: Any) -> None:
        self.asked_by = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)
