"""A training of the small run inside the test's own process, on one device, whose rows a test may spoil."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from uniaudio_jax import train
from uniaudio_jax.config import RunConfig
from uniaudio_jax.config_files import load_config
from uniaudio_jax.distributed import ProcessInfo
from uniaudio_jax.optim import TrainState
from uniaudio_jax.sequence import Batch
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.train import Trainer

Spoil = Callable[[Batch], Batch]


def stopping(before: Callable[[int], bool], asked_by: str | None = None) -> Any:
    """What stops a training before a step for which `before` is true."""
    return SimpleNamespace(asked_by=asked_by, before=before)


NEVER = stopping(lambda _: False)


def small_config(path: Path, **changes: Any) -> RunConfig:
    """The config of the small run with these changes to its training."""
    config = load_config(path, RunConfig)
    return replace(config, train=replace(config.train, sinks=("jsonl",), **changes))


def make_trainer(config: RunConfig, out: Path, spoilt: dict[int, Spoil] | None = None) -> Trainer:
    """A trainer on the first device; the rows of batch K, counted from 0, are `spoilt` by the function under K."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_mesh", lambda mesh: make_mesh(mesh, jax.devices()[:1]))
        trainer = Trainer(config, out, ProcessInfo(0, 1, "single"))
    rows, row, count = trainer.data.rows, trainer.data.rows.row, config.data.rows

    def spoilt_row(members: Any) -> Batch:
        for batch, spoil in (spoilt or {}).items():
            if members in [rows.plan.row(number) for number in range(batch * count, (batch + 1) * count)]:
                return spoil(row(members))
        return row(members)

    rows.row = spoilt_row
    return trainer


def train_in_process(config: RunConfig, out: Path, spoilt: dict[int, Spoil] | None = None) -> TrainState:
    """The state after the training."""
    return make_trainer(config, out, spoilt).run(NEVER)
