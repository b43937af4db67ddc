"""Train the language model.

    python -m uniaudio_jax.train configs/quickstart.py --out runs/mine --train.steps 1000

Any field of the config can be given on the command line. A run folder that holds checkpoints is resumed, exactly;
SIGTERM saves and exits with 0. `configs/finetune.py` goes on from a finished run, with new tasks.
"""

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from tqdm import tqdm

from data_pipelines.batches import BatchStream, open_training_data
from data_pipelines.heldout import HeldOut
from uniaudio_jax.checkpoint import Checkpoints, describe
from uniaudio_jax.cli import main_guard, parse_with_config, use_compile_cache
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import RunConfig, check_codec
from uniaudio_jax.distributed import DistributedOptions, ProcessInfo, join
from uniaudio_jax.growth import start_weights
from uniaudio_jax.loss import Tally, add_tallies
from uniaudio_jax.optim import TrainState, learning_rate
from uniaudio_jax.programs import Programs
from uniaudio_jax.sequence import Batch
from uniaudio_jax.sharding import check_rows, make_mesh, place_batch
from uniaudio_jax.tasks import get_task
from uniaudio_jax.telemetry import HoursSeen, Log, forward_flops, measure_peak_tflops, tally_report
from uniaudio_jax.validation import heldout_tally, losses_of

LOOKED_AT = 1000
"""Rows whose fill is told when a training begins."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """out: the run folder. distributed: how several processes find each other; SLURM and TPU pods need no flags."""

    config: tyro.conf.Positional[Path]
    out: Path
    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    distributed: DistributedOptions = field(default_factory=DistributedOptions)


class StopOnSignal:
    """Notes SIGTERM, so that the loop can save and leave in order."""

    def __init__(self):
        self.asked = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: Any) -> None:
        self.asked = True


class Trainer:
    """A run: its programs, data, checkpoints and log."""

    def __init__(self, config: RunConfig, out: Path, process: ProcessInfo):
        if config.codec is None:
            raise ValueError(
                "RunConfig.codec: got None, wanted the codec that made the tokens, such as --codec tiny_16k"
            )
        self.config, self.process = config, process
        codec = load_codec(config.codec).passport()
        check_codec(config.model, codec)
        self.mesh = make_mesh(config.mesh)
        check_rows(self.mesh, config.data.rows, "data.rows")
        self.programs = Programs(config.model, config.train, config.optim, self.mesh)
        self.frames_per_hour = codec["sample_rate_hz"] / codec["hop_samples"] * 3600
        self.batches, self.rows, self.datasets = open_training_data(
            config.data,
            config.train.loss_on,
            config.model.ids,
            config.model.text_width,
            codec,
            process.index,
            process.count,
        )
        self.heldout = {}
        if config.train.evaluate_every_steps is not None:
            self.heldout = {
                task: HeldOut(config, task, codec, process.index, process.count) for task in config.data.tasks
            }
        self.meta = describe(config, codec)
        self.meta["datasets"] = {str(dataset.folder): dataset.passport for dataset in self.datasets}
        self.checkpoints = Checkpoints(out, config.train.keep_checkpoints)
        self.log = Log(out, process.index)
        self.flops = 3 * forward_flops(config.model, *self._frames_of_step(), config.data.row_frames)
        self.peak = config.train.peak_tflops or measure_peak_tflops()
        self.hours = HoursSeen([dataset.name for dataset in self.datasets], self.frames_per_hour, self.mesh)

    def start(self) -> TrainState:
        """The newest checkpoint's state, or a fresh one, or one with the weights of another run."""
        if self.checkpoints.latest() is not None:
            self.hours.start_from(self.checkpoints.read_meta().get("hours_seen", {}))
            return self.checkpoints.restore(self.programs.state_shapes(), self.meta)
        state = self.programs.init(jax.random.key(self.config.train.seed))
        if self.config.start_from is None:
            return state
        known = start_weights(
            Path(self.config.start_from), self.meta, self.programs.definition, state.params, self.mesh
        )
        return state._replace(params=known)

    def run(self, stop: StopOnSignal) -> TrainState:
        """Trains to the last step or to a SIGTERM; the state is saved either way."""
        train, state = self.config.train, self.start()
        first = step = int(state.step)
        stream = self._stream(step * train.accumulate)
        bar = tqdm(
            total=train.steps,
            initial=step,
            desc="train",
            unit="step",
            disable=self.process.index > 0,
            mininterval=1.0,
            dynamic_ncols=True,
        )
        if not step:
            self._evaluate(0, state, bar)
        window: Tally | None = None
        since, start = step, time.perf_counter()
        while step < train.steps and not stop.asked:
            batches = [next(stream) for _ in range(train.accumulate)]
            state, metrics = self.programs.step(state, batches)
            self.hours.add(batches)
            step += 1
            window = metrics.tally if window is None else add_tallies(window, metrics.tally)
            bar.update()
            if step % train.log_every_steps == 0 or step in (first + 1, train.steps):
                report = tally_report(jax.device_get(window))
                seconds, start = time.perf_counter() - start, time.perf_counter()
                report |= (
                    self._speed(step - since, seconds)
                    | self.hours.report()
                    | {
                        "gradient_norm": float(metrics.gradient_norm),
                        "skipped_updates": int(state.skipped),
                        "learning_rate": float(learning_rate(self.config.optim, np.float32(step - 1))),
                    }
                )
                self.log.write(step, report)
                bar.set_postfix_str(f"loss {report['loss/all']:.3f}, {report['frames_per_second']:.0f} frames/s")
                window, since = None, step
            if step % train.save_every_steps == 0:
                self._save(step, state)
            if train.evaluate_every_steps and (step % train.evaluate_every_steps == 0 or step == train.steps):
                self._evaluate(step, state, bar)
                start = time.perf_counter()
        bar.close()
        if step != first and step % train.save_every_steps:
            self._save(step, state)
        self.checkpoints.close()
        self.log.close()
        return state

    def _save(self, step: int, state: TrainState) -> None:
        self.checkpoints.save(step, state, {**self.meta, "hours_seen": self.hours.by_dataset()})

    def _evaluate(self, step: int, state: TrainState, bar: tqdm) -> None:
        """Logs the held-out loss of every task, and prints them as one line."""
        report = {}
        for name, heldout in self.heldout.items():
            tally = heldout_tally(self.programs, state.params, heldout, most_batches=self.config.train.evaluate_batches)
            report[f"heldout/{name}"] = losses_of(get_task(name), tally)["loss"]
        if report:
            self.log.write(step, report)
            if self.process.index == 0:
                told = ", ".join(f"{tag.removeprefix('heldout/')} {value:.3f}" for tag, value in report.items())
                bar.write(f"held out at step {step}: {told}")

    def _stream(self, batch: int) -> Iterator[Batch]:
        """Batches on the mesh from number `batch` on; the next one is made while the step before it runs."""
        source = BatchStream(self.batches, batch)
        while True:
            yield place_batch(next(source), self.mesh)

    def _frames_of_step(self) -> tuple[int, int]:
        """All frames and counted frames of a step, padding included."""
        data, train = self.config.data, self.config.train
        counted = data.row_frames if train.loss_on == "all" else data.target_frames
        return data.rows * data.row_frames * train.accumulate, data.rows * counted * train.accumulate

    def _speed(self, steps: int, seconds: float) -> dict[str, float]:
        rate = steps / seconds
        used = self.flops * rate / (self.peak * 1e12 * self.mesh.size)
        return {"frames_per_second": self._frames_of_step()[0] * rate, "model_flop_utilisation": used}


def main() -> None:
    with main_guard():
        options = parse_with_config(TrainOptions, "run", "configs/base.py", __doc__)
        use_compile_cache()
        process = join(options.distributed)
        stop = StopOnSignal()
        trainer = Trainer(options.run, options.out, process)
        before = trainer.checkpoints.latest()
        if process.index == 0:
            print(_opening(trainer, before))
        state = trainer.run(stop)
        if process.index == 0:
            print(_closing(trainer, state, options.out, stop.asked))
    sys.stdout.flush()


def _opening(trainer: Trainer, before: int | None) -> str:
    config, rows = trainer.config, trainer.rows
    skipped = sum(sum(source.examples.skipped.values()) for source in rows.sources)
    place = "a fresh start" if before is None else f"resuming after step {before}"
    return (
        f"{place} on {trainer.mesh.size} {jax.devices()[0].platform} device(s); {len(rows.sources)} datasets in "
        f"rows of {config.data.row_frames} frames, {rows.plan.fill(LOOKED_AT):.0%} full; {skipped} examples skipped"
    )


def _closing(trainer: Trainer, state: TrainState, out: Path, stopped: bool) -> str:
    end = "stopped by SIGTERM and saved at" if stopped else "trained to"
    skipped = f", {int(state.skipped)} updates skipped for a non-finite gradient" if int(state.skipped) else ""
    return (
        f"{end} step {int(state.step)} of {trainer.config.train.steps}{skipped}; {out}/checkpoints, {out}/metrics.jsonl"
    )


if __name__ == "__main__":
    main()
