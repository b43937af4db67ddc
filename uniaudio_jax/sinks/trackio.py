"""Metrics for Trackio (extra package `trackio`), which keeps them on this machine."""

from collections.abc import Mapping
from pathlib import Path

from uniaudio_jax.sinks.base import AppendOnlySink, load_package


class TrackioSink(AppendOnlySink):
    """A run of the project uniaudio_jax, named as the run folder; a resumed training goes on with the same run."""

    name = "trackio"

    def open(self, run: Path) -> None:
        self._trackio = load_package("trackio")
        self._trackio.init(project="uniaudio_jax", name=run.name, resume="allow")

    def send(self, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        self._trackio.finish()
