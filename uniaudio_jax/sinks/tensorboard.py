"""Metrics, audio and pictures for TensorBoard, without PyTorch or TensorFlow."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uniaudio_jax.sinks.base import Sink


class TensorboardSink(Sink):
    """RUN/tensorboard; TensorBoard hides what an earlier start logged after `last_step`."""

    def __init__(self, run: Path, last_step: int):
        self._writer = open_writer(run / "tensorboard", last_step + 1 if last_step else 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def audio(self, step: int, tag: str, wav: np.ndarray, rate_hz: int) -> None:
        self._writer.add_audio(tag, np.clip(wav, -1, 1), step, rate_hz)

    def image(self, step: int, tag: str, pixels: np.ndarray) -> None:
        self._writer.add_image(tag, pixels, step, dataformats="HW")

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def open_writer(folder: Path, purge_step: int) -> Any:
    """A tensorboardX SummaryWriter.

    Where PyTorch is installed tensorboardX imports it, only to look at its types: it is hidden meanwhile.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter(str(folder), purge_step=purge_step)
