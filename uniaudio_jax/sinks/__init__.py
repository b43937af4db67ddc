"""Where a training's metrics go. A new sink is a file here and a line in SINKS."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from uniaudio_jax.copies import Spool
from uniaudio_jax.errors import did_you_mean
from uniaudio_jax.paths import Place
from uniaudio_jax.sinks.aim import AimSink
from uniaudio_jax.sinks.base import Sink
from uniaudio_jax.sinks.jsonl import JsonlSink
from uniaudio_jax.sinks.tensorboard import TensorboardSink
from uniaudio_jax.sinks.trackio import TrackioSink
from uniaudio_jax.sinks.wandb import WandbSink

SINKS: dict[str, Callable[[Path, int], Sink]] = {
    "jsonl": JsonlSink,
    "tensorboard": TensorboardSink,
    "wandb": WandbSink,
    "aim": AimSink,
    "trackio": TrackioSink,
}
"""Name of a sink → what opens it, given the run folder and the last step that the run keeps."""


class Log:
    """All sinks of a run; in a process that is not the first one it writes nothing.

    last_step: the step of the checkpoint that the run goes on from; 0 before any training, where step 0 is logged anew.
    What was logged after it is taken back, or not logged a second time, so that each step stands once in every curve.
    """

    def __init__(self, names: Iterable[str], run: Place, last_step: int, active: bool = True):
        check_sinks(names)
        self.spool = Spool(run) if active else None
        self.sinks = [SINKS[name](self.spool.folder, last_step) for name in names] if self.spool else []

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for sink in self.sinks:
            sink.scalars(step, values)

    def audio(self, step: int, tag: str, wav: np.ndarray, rate_hz: int) -> None:
        """A waveform [S] of -1 to 1."""
        for sink in self.sinks:
            sink.audio(step, tag, wav, rate_hz)

    def image(self, step: int, tag: str, pixels: np.ndarray) -> None:
        """A grey picture [rows, columns] of 0 to 255."""
        for sink in self.sinks:
            sink.image(step, tag, pixels)

    def upload(self) -> None:
        """Copies what was logged so far into the bucket of a run that is in one. Raises OSError where that fails."""
        if self.spool:
            for sink in self.sinks:
                sink.flush()
            self.spool.upload()

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()
        if self.spool:
            self.spool.upload()


def check_sinks(names: Iterable[str]) -> None:
    """Raises ValueError for a name that is not in SINKS."""
    for name in names:
        if name not in SINKS:
            raise ValueError(f"sinks: got {name!r}, wanted some of {', '.join(SINKS)}{did_you_mean(name, SINKS)}")
