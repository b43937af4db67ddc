"""Metrics for Trackio (extra package `trackio`), which keeps them on this machine."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uniaudio_jax.sinks.base import AppendOnlySink


class TrackioSink(AppendOnlySink):
    """A run of the project uniaudio_jax; its name is the run folder's with a random ending."""

    name = "trackio"

    def open(self, run: Path, run_id: str | None) -> str:
        name = run_id or f"{run.name}-{uuid.uuid4().hex[:8]}"
        self.package.init(project="uniaudio_jax", name=name, resume="allow")
        return name

    def send(self, step: int, values: Mapping[str, Any]) -> None:
        self.package.log(dict(values), step=step)

    def to_audio(self, wav: np.ndarray, rate_hz: int) -> Any:
        return super().to_audio(np.round(wav * 32767).astype(np.int16), rate_hz)

    def close(self) -> None:
        self.package.finish()
