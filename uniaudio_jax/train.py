"""Train the language model.

    python -m uniaudio_jax.train configs/quickstart.py --out runs/mine --train.steps 1000

Any field of the config can be given on the command line. A run folder that holds checkpoints is resumed, exactly;
SIGTERM and Ctrl-C save and exit with 0, or with 143 and 130 where nothing is saved; SIGUSR1 traces the next steps.
`configs/finetune.py` goes on from a finished run, with new tasks.
"""

import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from tqdm import tqdm

from data_pipelines.batches import BatchStream, TrainingData, open_training_data, rows_of_batch
from data_pipelines.heldout import HeldOut
from uniaudio_jax.blackbox import BlackBox
from uniaudio_jax.checkpoint import Checkpoints, describe, restore_state, state_items
from uniaudio_jax.cli import main_guard, parse_with_config, use_compile_cache
from uniaudio_jax.clock import FrameClock
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import RunConfig, check_codec
from uniaudio_jax.copies import folder_here
from uniaudio_jax.distributed import DistributedOptions, ProcessInfo, join
from uniaudio_jax.evaluation.listening import Listener
from uniaudio_jax.flops import forward_flops
from uniaudio_jax.goodput import Goodput
from uniaudio_jax.growth import first_state
from uniaudio_jax.guard import Guard, Rise
from uniaudio_jax.locks import hold_run
from uniaudio_jax.loss import Tally, add_tallies
from uniaudio_jax.optim import SkippedInARow, TrainState
from uniaudio_jax.paths import Place, PlaceOption
from uniaudio_jax.profiling import FOLDER as PROFILE
from uniaudio_jax.profiling import Profiler
from uniaudio_jax.programs import Metrics, Programs
from uniaudio_jax.schedules import make_schedule
from uniaudio_jax.sequence import Batch
from uniaudio_jax.sharding import check_rows, make_mesh, place_batch, row_share, rows_sharding
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
    out: PlaceOption
    """The run folder; may be in a bucket: gs://BUCKET/… or s3://BUCKET/…."""
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

    def __init__(self, config: RunConfig, out: Place, process: ProcessInfo):
        self.config, self.process, self.goodput = config, process, Goodput()
        own = "" if process.count == 1 else f"process_{process.index}"  # processes of one host would share a file
        self.profiler = Profiler(folder_here(out) / PROFILE / own, config.train.profile_steps)
        codec = load_codec(config.codec_of_tokens()).passport()
        check_codec(config.model, codec)
        self.mesh = make_mesh(config.mesh)
        check_rows(self.mesh, config.data.rows, "data.rows")
        self.programs = Programs(config.model, config.train, config.optim, self.mesh, config.lora)
        self.data = self._open_data(codec)
        self.meta = describe(config, codec)
        self.meta["datasets"] = {view.name: view.passport for view in self.data.views}
        self.checkpoints = Checkpoints(out, config.train.keep_checkpoints)
        self.resumed_from = self.checkpoints.latest()  # 0 for imported weights, None for a fresh start
        self.guard = Guard(config, None if self.resumed_from is None else self.checkpoints.read_meta())
        self.checkpoints.good = self.guard.good
        self.programs.set_rate(self.guard.rate)
        self.heldout = self._open_heldout(codec)
        self.log = Log(config.train.sinks, out, self.resumed_from or 0, process.is_first)
        self.listener = Listener(out, config, self.meta, self.programs, self.log)
        self.learning_rate = make_schedule(config.optim, config.train.steps)
        self.flops = 3 * forward_flops(config.model, *self._frames_of_step(), config.data.row_frames)
        self.peak = config.train.peak_tflops or measure_peak_tflops()
        names = [view.name for view in self.data.views]
        self.hours = HoursSeen(names, FrameClock.from_passport(codec), self.mesh)
        self.skipped = SkippedInARow(min(config.train.most_skipped_updates, config.train.steps))
        self.box = BlackBox(config, out, self.programs, process, self._batches_of, self._rows_of, self.data.examples)

    def _open_data(self, codec: dict[str, Any]) -> TrainingData:
        config = self.config
        model, loss_on = config.model, config.train.loss_on
        return open_training_data(config.data, loss_on, model.ids, model.text_width, codec, *row_share(self.mesh))

    def _open_heldout(self, codec: dict[str, Any]) -> dict[str, HeldOut]:
        """The held-out examples of each task and each that is guarded, where the config asks for their losses."""
        if self.config.train.evaluate_every_steps is None:
            return {}
        tasks = dict.fromkeys([*self.config.data.tasks, *self.guard.first])
        return {task: HeldOut(self.config, task, codec, *row_share(self.mesh)) for task in tasks}

    def start(self) -> TrainState:
        """The newest checkpoint's state, or a fresh one, or one with the weights of another run."""
        with self.goodput.part("restore"):
            if self.resumed_from is None:
                return first_state(self.config, self.meta, self.programs)
            meta = self.checkpoints.read_meta()
            self.hours.start_from(meta.get("hours_seen", {}))
            if "plan" in meta:
                self.data.rows.plan.start_at(meta["plan"])
            return restore_state(self.checkpoints, self.programs.state_shapes(), self.meta)

    def run(self, stop: Stop) -> TrainState:
        """Trains to the last step, to a signal or until the guard ends it; the state is saved in any case.

        On the way nothing is saved after a skipped update, so that a training that goes wrong does not push out the
        checkpoints from before, but for what the guard has allowed. Raises ValueError, without saving, when too many
        updates in a row were skipped.
        """
        train, state = self.config.train, self.start()
        first = step = saved = int(state.step)
        stream, window = self._stream(step), Window(step)
        with (
            closing(self.goodput),
            closing(self.profiler),
            closing(stream),
            self._bar(step) as bar,
            closing(self.log),
            closing(self.checkpoints),
        ):
            if not step and not stop.asked_by:
                self._evaluate(0, state, bar)
                if self._is_guarded(0) and self.resumed_from is None:
                    self._save(0, state)
            while step < train.steps and not self.guard.is_spent and not stop.before(step):
                step += 1
                self.profiler.before(step)
                state, metrics = self._step(step, state, stream)
                self.profiler.after(step, metrics)
                window.add(metrics.tally)
                bar.update()
                if step % train.log_every_steps == 0 or step in (first + 1, train.steps):
                    self._report(step, state, metrics, window, bar)
                    window = Window(step)
                if self._is_evaluated(step):
                    if rise := self._evaluate(step, state, bar):
                        self.box.look_back(state, self.log)
                        del state
                        state = self._go_back(step, rise, bar)
                    window.start = time.perf_counter()
                if self._is_due(step, train.generate_every_steps):
                    with self.goodput.part("evaluation"):
                        self.listener.listen(step, state.weights)
                    window.start = time.perf_counter()
                if self._is_guarded(step) or (step % train.save_every_steps == 0 and not self.skipped.in_a_row()):
                    self._save(step, state)
                    saved = step
            self.box.look_back(state, self.log)
            if step != saved:
                self._save(step, state)
        return state

    def _is_evaluated(self, step: int) -> bool:
        return self._is_due(step, self.config.train.evaluate_every_steps)

    def _is_due(self, step: int, every: int | None) -> bool:
        """Whether something that is done every so many steps, and after the last, is done after this one."""
        return every is not None and (step % every == 0 or step == self.config.train.steps)

    def _is_guarded(self, step: int) -> bool:
        """Whether the guard looks at this step; its state is then within the margin, as measured or as gone back to."""
        return self.guard.is_on and self._is_evaluated(step)

    def _step(self, step: int, state: TrainState, stream: Iterator[list[Batch]]) -> tuple[TrainState, Metrics]:
        """Update number `step`. While its gradients are computed, the host looks whether the one before was skipped."""
        with self.goodput.part("input"):
            batches = next(stream)
        with self.goodput.part("step"):
            measured = self.programs.measure(state.params, state.step, batches)
            if self.box.is_due():
                del measured  # the incident is measured in its place
                with self.goodput.part("other"):
                    self.box.look_back(state, self.log)
                measured = self.programs.measure(state.params, state.step, batches)
            state, metrics = self.programs.apply(state, *measured)
        self.goodput.working_on(metrics.skipped)
        self.box.expect(step, metrics)
        self.skipped.add(metrics.skipped)
        self.hours.add(batches)
        return state, metrics

    def _bar(self, step: int) -> tqdm:
        steps = self.config.train.steps
        hidden = not self.process.is_first
        return tqdm(
            total=steps, initial=step, desc="train", unit="step", disable=hidden, mininterval=1.0, dynamic_ncols=True
        )

    def _report(self, step: int, state: TrainState, metrics: Metrics, window: Window, bar: tqdm) -> None:
        """Logs the losses and the speed of a window, and shows them in the bar; a skipped update gets its incident."""
        self.box.look_back(state, self.log)
        report = tally_report(jax.device_get(window.tally))
        report |= self._speed(step - window.step, time.perf_counter() - window.start) | self.hours.report()
        report |= {f"goodput/{part}": share for part, share in self.goodput.shares().items()}
        report["audio_hours_per_chip_hour"] = self.hours.per_chip_hour(self.goodput.total_seconds)
        report["gradient_norm"] = float(metrics.gradient_norm)
        report["skipped_updates"] = int(state.skipped)
        report["learning_rate"] = self.guard.rate * float(self.learning_rate(np.float32(step - 1)))
        self.log.scalars(step, report)
        bar.set_postfix_str(f"loss {report['loss/all']:.3f}, {report['frames_per_second']:.0f} frames/s")
        self.skipped.check(step, f"loss {report['loss/all']:.4g}, gradient norm {report['gradient_norm']:.4g}")

    def _save(self, step: int, state: TrainState) -> None:
        self.log.upload()  # first: a resumed run repeats what was logged after its checkpoint, and nothing before it
        row = step * self.config.train.accumulate * self.config.data.rows
        progress = {"hours_seen": self.hours.by_dataset(), "plan": self.data.rows.plan.anchor_of(row)}
        if self._is_guarded(step):
            self.guard.good = self.checkpoints.good = step
        if self.guard.is_on:
            progress["guard"] = self.guard.as_json()
        with self.goodput.part("save"):
            self.checkpoints.save(step, state_items(state), self.meta | progress)

    def _evaluate(self, step: int, state: TrainState, bar: tqdm) -> Rise | None:
        """Logs the held-out loss of every task, and prints them as one line; returns what the guard does not allow."""
        losses, batches = {}, self.config.train.evaluate_batches
        with self.goodput.part("evaluation"):
            for name, heldout in self.heldout.items():
                tally = heldout_tally(self.programs, state.weights, heldout.batches(), most_batches=batches)
                losses[name] = losses_of(get_task(name), tally)["loss"]
        if not losses:
            return None
        if not step:
            self.guard.begin(losses)
        self.log.scalars(step, {f"heldout/{name}": loss for name, loss in losses.items()} | self.guard.report(losses))
        self.log.upload()
        if self.process.is_first:
            words = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
            bar.write(f"held out at step {step}: {words}")
        return self.guard.breach(losses)

    def _go_back(self, step: int, rise: Rise, bar: tqdm) -> TrainState:
        """The last state that the guard allowed, at this step and with a lower learning rate from now on."""
        good, told = self.guard.good, self.guard.go_back(rise, step)
        if self.process.is_first:
            bar.write(told)
        self.checkpoints.wait()
        with self.goodput.part("restore"):
            state = restore_state(self.checkpoints, self.programs.state_shapes(), self.meta, good)
        self.programs.set_rate(self.guard.rate)
        return state.at(step)

    def _stream(self, update: int) -> Generator[list[Batch], None, None]:
        """The batches of each update on the mesh, from number `update` on, counted from 0; the next ones are made while
        a step runs."""
        accumulate = self.config.train.accumulate
        with BatchStream(self.data.batches, update * accumulate) as source:
            while True:
                yield [place_batch(next(source), self.mesh) for _ in range(accumulate)]

    def _batches_of(self, update: int) -> list[Batch]:
        """The batches of an update once more."""
        with closing(self._stream(update)) as stream:
            return next(stream)

    def _rows_of(self, update: int) -> list[jax.Array]:
        """The numbers of the rows in each of these batches."""
        accumulate, place = self.config.train.accumulate, rows_sharding(self.mesh)
        hosts = (self.config.data.rows, *row_share(self.mesh))
        numbers = [rows_of_batch(update * accumulate + each, *hosts) for each in range(accumulate)]
        return [jax.make_array_from_process_local_data(place, each.astype(np.int32)) for each in numbers]

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
            audio = trainer.hours.per_chip_hour(trainer.goodput.total_seconds)
            print(f"{trainer.goodput.in_words()}; {audio:.3g} hours of audio per device and hour")
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


def closing_line(trainer: Trainer, state: TrainState, out: Place, stop: Stop) -> str:
    """Where the run stands, and where its results are."""
    if stop.asked_by and nothing_saved(trainer, state):
        return f"stopped by {stop.asked_by} before the first step; nothing is saved"
    end = f"stopped by {stop.asked_by} and saved at" if stop.asked_by else "trained to"
    end = "stopped by the guard, within its margin, at" if trainer.guard.is_spent else end
    count, reason = int(state.skipped), "a loss or gradient that was not finite or a spike of the loss"
    skipped = f", {count} updates skipped for {reason}" if count else ""
    metrics = f", {out}/metrics.jsonl" if "jsonl" in trainer.config.train.sinks else ""
    return f"{end} step {int(state.step)} of {trainer.config.train.steps}{skipped}; {out}/checkpoints{metrics}"


if __name__ == "__main__":
    main()
