"""Metrics for Aim (extra package `aim`), in a repository within the run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uniaudio_jax.sinks.base import AppendOnlySink


class AimSink(AppendOnlySink):
    """A run in the repository RUN/.aim."""

    name = "aim"

    def open(self, run: Path, run_id: str | None) -> str:
        self._run = self.package.Run(repo=str(run), run_hash=run_id)
        return self._run.hash

    def send(self, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self._run.track(value, name=name, step=step)

    def to_audio(self, wav: np.ndarray, rate_hz: int) -> Any:
        return self.package.Audio(wav, rate=rate_hz, format="wav")

    def close(self) -> None:
        self._run.close()
