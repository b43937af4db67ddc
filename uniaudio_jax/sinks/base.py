"""What a sink of metrics does."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uniaudio_jax.files import read_json, write_json
from uniaudio_jax.packages import load_package


class Sink:
    """One place that metrics go to; what a sink cannot show, it leaves out."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs these values by name."""

    def audio(self, step: int, tag: str, wav: np.ndarray, rate_hz: int) -> None:
        """Logs a waveform [S] of -1 to 1."""

    def image(self, step: int, tag: str, pixels: np.ndarray) -> None:
        """Logs a grey picture [rows, columns] of 0 to 255."""

    def flush(self) -> None:
        """Writes what is still waiting."""

    def close(self) -> None:
        """Writes what is still waiting, and ends."""


class AppendOnlySink(Sink, ABC):
    """A sink that cannot take back what it has logged: after a resume it stays silent up to the last logged step.

    A resumed run repeats those steps with the same values. RUN/sinks/<name>.json keeps the last logged step, and the
    id by which the package knows the run; a fresh start gets a new one.
    """

    name: str

    def __init__(self, run: Path, last_step: int):
        self.package = load_package(self.name, f"sink {self.name!r}", f"bash launch/install.sh {self.name}")
        self._file = run / "sinks" / f"{self.name}.json"
        wanted = "the sink's last logged step; delete it to log as a new run"
        known = read_json(self._file, wanted) if last_step and self._file.is_file() else {}
        self._silent_until = known.get("last_step", last_step or -1)
        run.mkdir(parents=True, exist_ok=True)
        try:
            self._id = self.open(run, known.get("id"))
        except Exception as error:
            raise ValueError(f"sink {self.name!r}: {self.name} could not open a run: {error}") from error

    @abstractmethod
    def open(self, run: Path, run_id: str | None) -> str:
        """Goes on with the package's run of this id, or with a new one; returns its id."""

    @abstractmethod
    def send(self, step: int, values: Mapping[str, Any]) -> None:
        """Logs numbers, or the package's own audio and pictures, of a step that was not logged before."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if step > self._silent_until:
            self.send(step, values)
            write_json(self._file, {"last_step": step, "id": self._id})

    def audio(self, step: int, tag: str, wav: np.ndarray, rate_hz: int) -> None:
        if step > self._silent_until:
            self.send(step, {tag: self.to_audio(np.clip(wav, -1, 1), rate_hz)})

    def image(self, step: int, tag: str, pixels: np.ndarray) -> None:
        if step > self._silent_until:
            self.send(step, {tag: self.package.Image(pixels)})

    def to_audio(self, wav: np.ndarray, rate_hz: int) -> Any:
        """The package's own object for a waveform."""
        return self.package.Audio(wav, sample_rate=rate_hz)
