"""Train the language model.

    python -m uniaudio_jax.train configs/quickstart.py --out runs/mine --train.steps 1000

Any field of the config can be given on the command line. A run folder that holds checkpoints is resumed, exactly;
SIGTERM and Ctrl-C save and exit with 0, or with 143 and 130 where nothing is saved. `configs/finetune.py` goes on from
a finished run, with new tasks.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from tqdm import tqdm

from data_pipelines.batches import BatchStream, TrainingData, open_training_data
from data_pipelines.heldout import HeldOut
from uniaudio_jax.checkpoint import Checkpoints, describe, restore_state, state_items
from uniaudio_jax.cli import main_guard, parse_with_config, use_compile_cache
from uniaudio_jax.clock import FrameClock
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import RunConfig, check_codec
from uniaudio_jax.distributed import DistributedOptions, ProcessInfo, join
from uniaudio_jax.flops import forward_flops
from uniaudio_jax.growth import first_state
from uniaudio_jax.locks import hold_run
from uniaudio_jax.loss import Tally, add_tallies
from uniaudio_jax.optim import SkippedInARow, TrainState
from uniaudio_jax.programs import Metrics, Programs
from uniaudio_jax.schedules import make_schedule
from uniaudio_jax.sequence import Batch
from uniaudio_jax.sharding import check_rows, make_mesh, place_batch, row_share
from uniaudio_jax.sinks import Log
from uniaudio_jax.stopping import Stop, StopOnSignal, exit_code
from uniaudio_jax.tasks import get_task
from uniaudio_jax.telemetry import HoursSeen, measure_peak_tflops, tally_report
from uniaudio_jax.validation import heldout_tally, losses_of


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train the language model of a config file."""

    config: tyro.conf.Positional[Path]
    """A Python file whose get_config() returns a RunConfig."""
    out: Path
    """The run folder."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    distributed: DistributedOptions = field(default_factory=DistributedOptions)


class Window:
    """What was measured since the last report."""

    def __init__(self, step: int):
        self.tally: Tally | None = None
        self.step, self.start = step, time.perf_counter()

    def add(self, tally: Tally) -> None:
        self.tally = tally if self.tally is None else add_tallies(self.tally, tally)


class Trainer:
    """A run: its programs, data, checkpoints and log."""

    def __init__(self, config: RunConfig, out: Path, process: ProcessInfo):
        self.config, self.process = config, process
        codec = load_codec(config.codec_of_tokens()).passport()
        check_codec(config.model, codec)
        self.mesh = make_mesh(config.mesh)
        check_rows(self.mesh, config.data.rows, "data.rows")
        self.programs = Programs(config.model, config.train, config.optim, self.mesh)
        self.data = self._open_data(codec)
        self.heldout = self._open_heldout(codec)
        self.meta = describe(config, codec)
        self.meta["datasets"] = {view.name: view.passport for view in self.data.views}
        self.checkpoints = Checkpoints(out, config.train.keep_checkpoints)
        self.resumed_from = self.checkpoints.latest()  # 0 for imported weights, None for a fresh start
        self.log = Log(config.train.sinks, out, self.resumed_from or 0, process.is_first)
        self.learning_rate = make_schedule(config.optim, config.train.steps)
        self.flops = 3 * forward_flops(config.model, *self._frames_of_step(), config.data.row_frames)
        self.peak = config.train.peak_tflops or measure_peak_tflops()
        names = [view.name for view in self.data.views]
        self.hours = HoursSeen(names, FrameClock.from_passport(codec), self.mesh)
        self.skipped = SkippedInARow(min(config.train.most_skipped_updates, config.train.steps))

    def _open_data(self, codec: dict[str, Any]) -> TrainingData:
        config = self.config
        model, loss_on = config.model, config.train.loss_on
        return open_training_data(config.data, loss_on, model.ids, model.text_width, codec, *row_share(self.mesh))

    def _open_heldout(self, codec: dict[str, Any]) -> dict[str, HeldOut]:
        """The held-out examples of each task, where the config asks for their losses."""
        if self.config.train.evaluate_every_steps is None:
            return {}
        return {task: HeldOut(self.config, task, codec, *row_share(self.mesh)) for task in self.config.data.tasks}

    def start(self) -> TrainState:
        """The newest checkpoint's state, or a fresh one, or one with the weights of another run."""
        if self.resumed_from is not None:
            meta = self.checkpoints.read_meta()
            self.hours.start_from(meta.get("hours_seen", {}))
            if "plan" in meta:
                self.data.rows.plan.start_at(meta["plan"])
            return restore_state(self.checkpoints, self.programs.state_shapes(), self.meta)
        return first_state(self.config, self.meta, self.programs)

    def run(self, stop: Stop) -> TrainState:
        """Trains to the last step or to a signal; the state is saved either way.

        On the way nothing is saved after a skipped update, so that a training that goes wrong does not push out the
        checkpoints from before. Raises ValueError, without saving, when too many updates in a row were skipped.
        """
        train, state = self.config.train, self.start()
        first = step = saved = int(state.step)
        stream, window = self._stream(step * train.accumulate), Window(step)
        with self._bar(step) as bar, closing(self.log), closing(self.checkpoints):
            if not step and not stop.asked_by:
                self._evaluate(0, state, bar)
            while step < train.steps and not stop.before(step):
                batches = [next(stream) for _ in range(train.accumulate)]
                state, metrics = self.programs.step(state, batches)
                self.hours.add(batches)
                self.skipped.add(metrics.skipped)
                window.add(metrics.tally)
                step += 1
                bar.update()
                if step % train.log_every_steps == 0 or step in (first + 1, train.steps):
                    self._report(step, state, metrics, window, bar)
                    window = Window(step)
                if step % train.save_every_steps == 0 and not self.skipped.in_a_row():
                    self._save(step, state)
                    saved = step
                if train.evaluate_every_steps and (step % train.evaluate_every_steps == 0 or step == train.steps):
                    self._evaluate(step, state, bar)
                    window.start = time.perf_counter()
            if step != saved:
                self._save(step, state)
        return state

    def _bar(self, step: int) -> tqdm:
        steps = self.config.train.steps
        hidden = not self.process.is_first
        return tqdm(
            total=steps, initial=step, desc="train", unit="step", disable=hidden, mininterval=1.0, dynamic_ncols=True
        )

    def _report(self, step: int, state: TrainState, metrics: Metrics, window: Window, bar: tqdm) -> None:
        """Logs the losses and the speed of a window, and shows them in the bar."""
        report = tally_report(jax.device_get(window.tally))
        report |= self._speed(step - window.step, time.perf_counter() - window.start) | self.hours.report()
        report["gradient_norm"] = float(metrics.gradient_norm)
        report["skipped_updates"] = int(state.skipped)
        report["learning_rate"] = float(self.learning_rate(np.float32(step - 1)))
        self.log.scalars(step, report)
        bar.set_postfix_str(f"loss {report['loss/all']:.3f}, {report['frames_per_second']:.0f} frames/s")
        self.skipped.check(step, f"loss {report['loss/all']:.4g}, gradient norm {report['gradient_norm']:.4g}")

    def _save(self, step: int, state: TrainState) -> None:
        row = step * self.config.train.accumulate * self.config.data.rows
        progress = {"hours_seen": self.hours.by_dataset(), "plan": self.data.rows.plan.anchor_of(row)}
        self.checkpoints.save(step, state_items(state), self.meta | progress)

    def _evaluate(self, step: int, state: TrainState, bar: tqdm) -> None:
        """Logs the held-out loss of every task, and prints them as one line."""
        report, batches = {}, self.config.train.evaluate_batches
        for name, heldout in self.heldout.items():
            tally = heldout_tally(self.programs, state.weights, heldout.batches(), most_batches=batches)
            report[f"heldout/{name}"] = losses_of(get_task(name), tally)["loss"]
        if report:
            self.log.scalars(step, report)
            if self.process.is_first:
                losses = ", ".join(f"{tag.removeprefix('heldout/')} {value:.3f}" for tag, value in report.items())
                bar.write(f"held out at step {step}: {losses}")

    def _stream(self, batch: int) -> Iterator[Batch]:
        """Batches on the mesh from number `batch` on; the next one is made while the step before it runs."""
        source = BatchStream(self.data.batches, batch)
        while True:
            yield place_batch(next(source), self.mesh)

    def _frames_of_step(self) -> tuple[int, int]:
        """All frames of a step, and those that the local stack learns from, padding included."""
        data, train = self.config.data, self.config.train
        counted = train.local_frames(data.row_frames if train.loss_on == "all" else data.target_frames)
        return data.rows * data.row_frames * train.accumulate, data.rows * counted * train.accumulate

    def _speed(self, steps: int, seconds: float) -> dict[str, float]:
        rate = steps / seconds
        used = self.flops * rate / (self.peak * 1e12 * self.mesh.size)
        return {"frames_per_second": self._frames_of_step()[0] * rate, "model_flop_utilisation": used}


def main() -> None:
    with main_guard():
        options = parse_with_config(TrainOptions, "run", "base.py", __doc__)
        use_compile_cache()
        process = join(options.distributed, options.out, options.run)
        stop = StopOnSignal(process.count)
        with hold_run(options.out, process):
            trainer = Trainer(options.run, options.out, process)
            if process.is_first:
                print(opening_line(trainer))
            state = trainer.run(stop)
        if process.is_first:
            print(closing_line(trainer, state, options.out, stop))
    sys.stdout.flush()
    if stop.asked_by and nothing_saved(trainer, state):
        raise SystemExit(exit_code(stop.asked_by))


def opening_line(trainer: Trainer) -> str:
    """What the run trains on, and with."""
    data, resumed = trainer.data, trainer.resumed_from
    frames, full = trainer.config.data.row_frames, data.rows.plan.fill(1)
    start = "a fresh start" if resumed is None else f"resuming after step {resumed}"
    return (
        f"{start} on {trainer.mesh.size} {jax.devices()[0].platform} device(s); {len(data.views)} datasets in rows of "
        f"{frames} frames, {full:.0%} full; {data.skipped} examples fit no row"
    )


def nothing_saved(trainer: Trainer, state: TrainState) -> bool:
    """Whether the run has no checkpoint, as no step was made and there was none before."""
    return not int(state.step) and trainer.resumed_from is None


def closing_line(trainer: Trainer, state: TrainState, out: Path, stop: Stop) -> str:
    """Where the run stands, and where its results are."""
    if stop.asked_by and nothing_saved(trainer, state):
        return f"stopped by {stop.asked_by} before the first step; nothing is saved"
    end = f"stopped by {stop.asked_by} and saved at" if stop.asked_by else "trained to"
    count = int(state.skipped)
    skipped = f", {count} updates skipped for a loss or gradient that was not finite" if count else ""
    metrics = f", {out}/metrics.jsonl" if "jsonl" in trainer.config.train.sinks else ""
    return f"{end} step {int(state.step)} of {trainer.config.train.steps}{skipped}; {out}/checkpoints{metrics}"


if __name__ == "__main__":
    main()
