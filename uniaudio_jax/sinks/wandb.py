"""Metrics for Weights & Biases (extra package `wandb`; WANDB_MODE=offline keeps them on this machine)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uniaudio_jax.sinks.base import AppendOnlySink


class WandbSink(AppendOnlySink):
    """A run of the project uniaudio_jax, named as the run folder; its files are in RUN/wandb."""

    name = "wandb"

    def open(self, run: Path, run_id: str | None) -> str:
        self._run = self.package.init(project="uniaudio_jax", name=run.name, id=run_id, dir=str(run), resume="allow")
        return self._run.id

    def send(self, step: int, values: Mapping[str, Any]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
