"""What a training reports: losses per task and level, hours seen, and what the device could do."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from uniaudio_jax.clock import FrameClock
from uniaudio_jax.loss import Tally
from uniaudio_jax.sequence import Batch
from uniaudio_jax.sharding import replicated
from uniaudio_jax.tasks import TASKS


def measure_peak_tflops(size: int = 1024) -> float:
    """The best of five float32 matmuls of `size` on the first device, in 1e12 operations per second."""
    x = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    product(x).block_until_ready()
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        product(x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e12


def tally_report(tally: Tally) -> dict[str, float]:
    """Loss and accuracy over all, per task and per task and level, by TensorBoard tag."""
    loss, hits, tokens = (np.asarray(field, np.float64) for field in tally)
    report = {"loss/all": loss.sum() / max(tokens.sum(), 1), "accuracy/all": hits.sum() / max(tokens.sum(), 1)}
    for row, name in enumerate(TASKS):
        if tokens[row].sum():
            levels = loss.shape[1] if TASKS[name].makes_audio else 1  # tokens of an id's frame repeat it
            report[f"loss/{name}"] = loss[row, :levels].sum() / tokens[row, :levels].sum()
            for level in range(levels):
                report[f"loss/{name}/level_{level + 1}"] = loss[row, level] / tokens[row, level]
                report[f"accuracy/{name}/level_{level + 1}"] = hits[row, level] / tokens[row, level]
    return report


class HoursSeen:
    """Hours of audio that a run has trained on, of each of its datasets, over all processes."""

    def __init__(self, names: list[str], clock: FrameClock, mesh: Mesh):
        self.names, self.clock, self.devices = names, clock, mesh.size
        self.frames, self.frames_before = np.zeros(len(names)), 0.0
        self._count = jax.jit(lambda frames: frames.sum(axis=0), out_shardings=replicated(mesh))
        self._waiting: list[jax.Array] = []

    def start_from(self, hours: dict[str, float]) -> None:
        """Goes on from what a checkpoint had counted."""
        self.frames = np.rint(np.array([hours.get(name, 0.0) for name in self.names]) / self.clock.hours(1))
        self.frames_before = float(self.frames.sum())

    def add(self, batches: list[Batch]) -> None:
        """Counts the rows of these batches; nothing waits for it."""
        self._waiting += [self._count(batch.audio_frames) for batch in batches]

    def by_dataset(self) -> dict[str, float]:
        """Hours so far by dataset."""
        self.frames += sum((np.asarray(counts, np.float64) for counts in self._waiting), np.zeros(len(self.names)))
        self._waiting = []
        return dict(zip(self.names, (self.frames * self.clock.hours(1)).tolist(), strict=True))

    def per_chip_hour(self, seconds: float) -> float:
        """Hours of audio for each hour of each device, since the start, which was `seconds` ago."""
        hours = sum(self.by_dataset().values()) - self.clock.hours(self.frames_before)
        return hours / (self.devices * seconds / 3600)

    def report(self) -> dict[str, float]:
        """Hours by dataset and by task, by TensorBoard tag."""
        by_dataset = self.by_dataset()
        report = {f"hours/{name}": hours for name, hours in by_dataset.items()}
        for name, hours in by_dataset.items():
            tag = f"hours/{name.split('/')[0]}"
            report[tag] = report.get(tag, 0.0) + hours
        return report
