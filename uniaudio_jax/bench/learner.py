"""Rivals that learn from the same data in turns, in one process, and their held-out losses on the way.

Schedules need to know their steps beforehand: a calibration times a few steps of each rival side by side, which gives
the number that each one then trains for. They take turns, so that a busy machine slows all of them alike.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Protocol

import jax
from tqdm import tqdm

from data_pipelines.batches import BatchStream, open_training_data
from data_pipelines.heldout import HeldOut
from uniaudio_jax.bench.timing import side_by_side
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import RunConfig, check_codec
from uniaudio_jax.metrics.plots import draw_metrics
from uniaudio_jax.optim import TrainState
from uniaudio_jax.sequence import Batch
from uniaudio_jax.tasks import Task, get_task

CALIBRATION_STEPS = 41
"""Measured steps of each rival."""


class Trainee(Protocol):
    """Something that learns from the batches of a run."""

    state: TrainState

    def start(self) -> None:
        """Takes fresh weights."""
        ...

    def step(self, batches: Sequence[Batch]) -> None:
        """Makes one update of the state from host batches."""
        ...

    def loss(self, task: Task, batches: Iterable[Batch]) -> float:
        """Nats per counted token of a task's held-out host batches."""
        ...


MakeTrainee = Callable[[RunConfig, Iterable[Batch]], Trainee]
"""(the run, with the steps that it will make; all batches that will come) → what learns."""


class Learner:
    """One rival in training for `steps` updates; its programs are compiled, and its time is kept.

    milestones: steps after which the held-out losses are measured for the `curve`.
    """

    def __init__(self, config: RunConfig, make: MakeTrainee, steps: int, milestones: Collection[int] = ()):
        codec = load_codec(config.codec_of_tokens()).passport()
        model, data, train = config.model, config.data, replace(config.train, steps=steps)
        check_codec(model, codec)
        self.config = replace(config, train=train)
        self.data = open_training_data(data, train.loss_on, model.ids, model.text_width, codec, 0, 1)
        self.heldout = {task: HeldOut(config, task, codec) for task in data.tasks}
        self.trainee = make(self.config, self._coming())
        self.milestones: Collection[int] = ()
        self._start()
        self.train(1)
        self._start()
        self.milestones = milestones

    def _coming(self) -> Iterator[Batch]:
        train = self.config.train
        yield from (self.data.batches[number] for number in range(train.steps * train.accumulate))
        for heldout in self.heldout.values():
            yield from heldout.batches()

    def _start(self) -> None:
        self.trainee.start()
        self.stream = BatchStream(self.data.batches)
        self.steps, self.seconds = 0, 0.0
        self.curve: list[dict[str, float]] = []

    def train(self, last: int) -> None:
        """Trains until `last` steps are made in all, and measures at the milestones on the way."""
        for stop in sorted({last, *(step for step in self.milestones if self.steps < step < last)}):
            self._train(stop)
            if stop in self.milestones:
                self.curve.append({"steps": stop, "seconds": self.seconds, **self.losses()})

    def _train(self, last: int) -> None:
        start = time.perf_counter()
        for _ in range(last - self.steps):
            self.trainee.step([next(self.stream) for _ in range(self.config.train.accumulate)])
        jax.block_until_ready(self.trainee.state)
        self.steps, self.seconds = last, self.seconds + time.perf_counter() - start

    def losses(self) -> dict[str, float]:
        """The mean of the tasks' held-out losses, and each of them."""
        losses = {name: self.trainee.loss(get_task(name), heldout.batches()) for name, heldout in self.heldout.items()}
        return {"mean loss": fmean(losses.values()), **losses}

    def result(self) -> dict[str, float]:
        """The held-out losses, and what was done for them."""
        data = self.config.data
        frames = self.steps * self.config.train.accumulate * data.rows * data.row_frames
        return {
            **self.losses(),
            "steps": self.steps,
            "skipped updates": int(self.trainee.state.skipped),
            "seconds of training": self.seconds,
            "frames/s": frames / self.seconds,
        }


def steps_in(seconds: float, make: Mapping[str, Callable[[int], Learner]]) -> dict[str, int]:
    """The steps that each rival makes in so many seconds, by the median of some that are made in turns.

    make: a learner for a number of steps, by rival.
    """
    learners = {
        name: make_one(CALIBRATION_STEPS + 1) for name, make_one in tqdm(make.items(), desc="compile", unit="rival")
    }
    rivals = {name: lambda one=one: one.train(one.steps + 1) for name, one in learners.items()}
    times = side_by_side(rivals, CALIBRATION_STEPS)
    return {name: max(1, round(seconds / median(each))) for name, each in times.items()}


def take_turns(learners: Mapping[str, Learner], turns: int) -> None:
    """Trains each for the steps of its config, in so many turns."""
    for turn in tqdm(range(1, turns + 1), desc="learn", unit="turn"):
        for learner in learners.values():
            learner.train(learner.config.train.steps * turn // turns)


def with_tokens(config: RunConfig, where: str) -> RunConfig:
    """The config. Raises ValueError, which begins with `where`, when its tokens are not there."""
    if not Path(config.data.root).is_dir():
        raise ValueError(
            f"{where}: the folder of tokens {config.data.root} is not there; `bash launch/quickstart.sh` makes that "
            "of the quickstart, `python -m data_pipelines.builder` any; or name another by --root"
        )
    return config


def evenly(steps: int, parts: int) -> set[int]:
    """The steps after which each of so many equal parts of a training ends."""
    return {max(1, steps * part // parts) for part in range(1, parts + 1)}


def draw_curves(path: Path, curves: dict[str, list[dict[str, float]]]) -> Path | None:
    """Writes a picture of the held-out losses over the seconds of training; None without matplotlib."""
    lines = [
        {"seconds": point["seconds"], name: point["mean loss"]} for name, curve in curves.items() for point in curve
    ]
    return draw_metrics(path, lines, {"held-out nats per token of target codes": list(curves)}, by="seconds")
