"""A guard for old tasks: a training that goes on from another run goes back where one of its tasks gets worse.

At each evaluation the held-out losses of the start run's tasks are compared with those before the first step. Where one
has risen by more than the margin, the weights and moments are again those of the evaluation before, and the learning
rate is lowered. The step goes on nevertheless: data, schedule, logs and checkpoints are functions of the step that only
move forward, so that no batch is learned from a second time, and a resumed training is exact.
"""

import math
from typing import Any, NamedTuple

from uniaudio_jax.checkpoint import read_newest
from uniaudio_jax.config import RunConfig
from uniaudio_jax.shipped import place_of_run


class Rise(NamedTuple):
    """How much the held-out loss of an old task is above its start, in nats per token."""

    task: str
    nats: float


class Guard:
    """The losses of the old tasks before the first step, the step of the last state within the margin, and how often
    the training went back.

    meta: the JSON part of the checkpoint that the training resumes from. Raises ValueError where a guard is wanted that
    it does not know.
    """

    def __init__(self, config: RunConfig, meta: dict[str, Any] | None):
        self.config = config.train.guard
        self.first, self.returns = dict[str, float](), 0
        self.good: int | None = None
        if self.config.margin is None or config.start_from is None:
            return
        if meta is None:
            self.first = dict.fromkeys(read_newest(place_of_run(config.start_from)).config.data.tasks, float("nan"))
        elif "guard" in meta:
            self.first, self.good, self.returns = (meta["guard"][name] for name in ("first", "good", "returns"))
        else:
            raise ValueError(
                "train.guard.margin: got a training that was begun without a guard, whose losses before the first step "
                "are not known; wanted a fresh one; use another --out, or leave the margin out"
            )

    @property
    def is_on(self) -> bool:
        return bool(self.first)

    @property
    def rate(self) -> float:
        """What the learning rate is multiplied by."""
        return self.config.rate_factor**self.returns

    @property
    def is_spent(self) -> bool:
        """Whether the training went back once more than it may go on from."""
        return self.returns > self.config.most_returns

    def begin(self, losses: dict[str, float]) -> None:
        """Takes the losses of all tasks before the first step as those to keep."""
        self.first = {task: losses[task] for task in self.first}

    def worst(self, losses: dict[str, float]) -> Rise:
        """The old task that has got worse the most; a loss that is not a number counts as the worst."""
        rises = [Rise(task, losses[task] - first) for task, first in self.first.items()]
        return max(rises, key=lambda rise: (math.isnan(rise.nats), rise.nats))

    def breach(self, losses: dict[str, float]) -> Rise | None:
        """The old task that has got worse the most, where that is more than the margin."""
        if not self.is_on or self.config.margin is None:
            return None
        rise = self.worst(losses)
        return None if rise.nats <= self.config.margin else rise

    def report(self, losses: dict[str, float]) -> dict[str, float]:
        """What is logged of the guard at an evaluation, by tag."""
        return {"guard/worst_rise": self.worst(losses).nats, "guard/returns": self.returns} if self.is_on else {}

    def go_back(self, rise: Rise, step: int) -> str:
        """Notes that the training goes back at this step; says why, and how it goes on."""
        self.returns += 1
        end = "with which the training ends" if self.is_spent else f"learning rate x {self.rate:g}"
        return (
            f"guard at step {step}: {rise.task} is {rise.nats:.3f} nats above its start, wanted at most "
            f"{self.config.margin:g}; back to the weights of step {self.good}, {end}"
        )

    def as_json(self) -> dict[str, Any]:
        """The guard's part of a checkpoint."""
        return {"first": self.first, "good": self.good, "returns": self.returns}
