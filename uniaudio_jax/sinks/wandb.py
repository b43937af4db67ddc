"""Metrics for Weights & Biases (extra package `wandb`; WANDB_MODE=offline keeps them on this machine)."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from uniaudio_jax.sinks.base import AppendOnlySink, load_package


class WandbSink(AppendOnlySink):
    """A run of the project uniaudio_jax, named as the run folder; a resumed training goes on with the same run."""

    name = "wandb"

    def open(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self._run = load_package("wandb").init(
            project="uniaudio_jax", name=run.name, id=run_id(run), dir=str(run), resume="allow"
        )

    def send(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def run_id(run: Path) -> str:
    """A name for a run folder that is the same at every resume."""
    return hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]
