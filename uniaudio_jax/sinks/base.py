"""What a sink of metrics does."""

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uniaudio_jax.files import atomic_write


class Sink:
    """One place that metrics go to; what a sink cannot show, it leaves out."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs these values by name."""

    def audio(self, step: int, tag: str, wav: np.ndarray, rate_hz: int) -> None:
        """Logs a waveform [S] of -1 to 1."""

    def image(self, step: int, tag: str, pixels: np.ndarray) -> None:
        """Logs a grey picture [rows, columns] of 0 to 255."""

    def close(self) -> None:
        """Writes what is still waiting."""


class AppendOnlySink(Sink, ABC):
    """A sink that cannot take back what it has logged: after a resume it stays silent up to the last logged step.

    A resumed run repeats the same steps with the same values, so nothing is lost. The last logged step is kept in
    RUN/sinks/<name>.json.
    """

    name: str

    def __init__(self, run: Path, last_step: int):
        self._file = run / "sinks" / f"{self.name}.json"
        self._silent_until = -1
        if last_step:
            self._silent_until = json.loads(self._file.read_text())["last_step"] if self._file.is_file() else last_step
        self.open(run)

    @abstractmethod
    def open(self, run: Path) -> None:
        """Connects to the package, or raises ValueError with the command that installs it."""

    @abstractmethod
    def send(self, step: int, values: Mapping[str, float]) -> None:
        """Logs values of a step that was not logged before."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if step > self._silent_until:
            self.send(step, values)
            with atomic_write(self._file) as partial:
                partial.write_text(json.dumps({"last_step": step}))


def load_package(name: str) -> Any:
    """The optional package of a sink. Raises ValueError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"sink {name!r}: got no package ({error}), wanted {name}; run `pip install {name}`") from error
