"""Listening to a training: what it makes of the same held-out examples, time and again, as audio and metrics."""

from functools import cached_property
from typing import Any

import jax
from tqdm import tqdm

from data_pipelines.heldout import HeldOut
from uniaudio_jax.checkpoint import Saved
from uniaudio_jax.config import RunConfig
from uniaudio_jax.evaluation.examples import Judged, judged_examples
from uniaudio_jax.evaluation.rows import GENERATED, judge, rows_of
from uniaudio_jax.metrics.judges import Judges
from uniaudio_jax.metrics.registry import Metrics, make_metrics
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.paths import Place
from uniaudio_jax.programs import Programs
from uniaudio_jax.run import Run
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sharding import replicated
from uniaudio_jax.sinks import Log
from uniaudio_jax.tasks import Task, get_task, metrics_of


class Listener:
    """Generates, on the first process of a training, for the first held-out examples of each task, and logs that."""

    def __init__(self, out: Place, config: RunConfig, meta: dict[str, Any], programs: Programs, log: Log):
        self.out, self.config, self.meta, self.programs, self.log = out, config, meta, programs, log
        self.tasks = [get_task(name) for name in config.data.tasks]
        self.judged: dict[Task, Judged] = {}
        self._whole = jax.jit(lambda params: params, out_shardings=replicated(programs.mesh))

    @cached_property
    def metrics(self) -> Metrics:
        return make_metrics(metrics_of(self.tasks), Judges())

    def listen(self, step: int, weights: Params) -> None:
        """Logs `generated/TASK/METRIC` and the audio of each task's first example. All processes call it at once, as
        the weights are gathered from all devices."""
        whole = self._whole(self.programs.merged(weights))
        if jax.process_index():
            return
        weights = jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)
        run = Run(self.out, Saved(step, self.config, self.meta, weights, {}))
        for task in self.tasks:
            try:
                self._listen_to(run, task, step)
            except Exception as error:  # of whatever kind, it costs this task alone and no training
                tqdm.write(f"{task.name} was not listened to at step {step}: {type(error).__name__}: {error}")

    def _listen_to(self, run: Run, task: Task, step: int) -> None:
        is_first = task not in self.judged
        if is_first:
            count = self.config.train.generate_count
            heldout = HeldOut(self.config, task.name, run.codec.passport())
            self.judged[task] = judged_examples(run, task, heldout, heldout.examples(count), count)
        judged = self.judged[task]
        if not judged.samples:
            return
        streams = [example.streams for example in judged.examples]
        rows = rows_of(run, task, judged, dict(run.results_like(task.name, streams, Sampling())))
        metrics = {name: metric for name, metric in self.metrics.items() if name in task.metrics}
        values, _ = judge({GENERATED: rows[GENERATED]}, metrics)
        numbers = {name: entry["value"] for name, entry in values[GENERATED].items()}
        self.log.scalars(step, {f"generated/{task.name}/{k}": v for k, v in numbers.items() if v is not None})
        if task.makes_audio:
            sample = rows[GENERATED][0]
            if is_first:
                self.log.audio(step, f"{task.name}/reference", sample.reference, sample.sample_rate_hz)
            self.log.audio(step, f"{task.name}/generated", sample.estimate, sample.sample_rate_hz)
