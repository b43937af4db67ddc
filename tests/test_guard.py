"""Laws of the guard for old tasks: the last state is within the margin, however often the training was stopped."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from tests.small_run import write_run
from tests.training_in_process import NEVER, make_trainer, small_config, stopping, train_in_process
from uniaudio_jax.checkpoint import CheckpointReader
from uniaudio_jax.config import GuardConfig, RunConfig
from uniaudio_jax.guard import Guard, Rise
from uniaudio_jax.sinks.jsonl import read_metrics
from uniaudio_jax.tasks import get_task
from uniaudio_jax.train import closing_line
from uniaudio_jax.validation import heldout_tally, losses_of

MARGIN = 0.05
GUARD = GuardConfig(margin=MARGIN, rate_factor=1e-3)
TOO_FAST = 0.1
"""A learning rate that ruins the old task within two updates, and not when it is lowered by the guard's factor."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("guard")


@pytest.fixture(scope="module")
def config(folder) -> RunConfig:
    """A run that learns one task, and the config of one that learns only another from it, far too fast."""
    config = small_config(write_run(folder, ("tts", "language_recognition"), layout="PAPER"), steps=2)
    config = replace(config, data=replace(config.data, tasks={"tts": 1.0}))
    train_in_process(config, folder / "start")
    return replace(
        config,
        start_from=str(folder / "start"),
        model=replace(config.model, appended={"language": 5}),
        data=replace(config.data, tasks={"language_recognition": 1.0}),
        train=replace(
            config.train, steps=7, save_every_steps=1, keep_checkpoints=1, evaluate_every_steps=2, guard=GUARD
        ),
        optim=replace(config.optim, peak_learning_rate=TOO_FAST),
    )


@pytest.fixture(scope="module")
def whole(folder, config) -> SimpleNamespace:
    """A run of the config without interruption, and its last state."""
    trainer = make_trainer(config, folder / "whole")
    return SimpleNamespace(out=folder / "whole", trainer=trainer, state=trainer.run(NEVER))


def loss_of(trainer: Any, weights: Any, task: str) -> float:
    return losses_of(get_task(task), heldout_tally(trainer.programs, weights, trainer.heldout[task].batches()))["loss"]


def test_a_training_that_ruins_an_old_task_goes_back_and_ends_within_the_margin(whole):
    lines = {line["step"]: line for line in read_metrics(whole.out / "metrics.jsonl") if "guard/returns" in line}
    assert {step: line["guard/returns"] for step, line in lines.items()} == {0: 0, 2: 0, 4: 1, 6: 1, 7: 1}
    rises = {step: line["heldout/tts"] - lines[0]["heldout/tts"] for step, line in lines.items()}
    assert rises == pytest.approx({step: line["guard/worst_rise"] for step, line in lines.items()})
    assert rises[2] > 2 * MARGIN and max(rises[step] for step in (4, 6, 7)) < MARGIN
    assert loss_of(whole.trainer, whole.state.weights, "tts") - lines[0]["heldout/tts"] == pytest.approx(rises[7])
    assert lines[7]["heldout/language_recognition"] < lines[0]["heldout/language_recognition"]


def test_after_it_went_back_the_learning_rate_is_lower_and_the_step_goes_on(whole):
    rates = {
        line["step"]: line["learning_rate"] for line in read_metrics(whole.out / "metrics.jsonl") if "loss/all" in line
    }
    wanted = {step: TOO_FAST * min(step / 5, (5 / step) ** 0.5) * (1 if step <= 2 else 1e-3) for step in range(1, 8)}
    assert rates == pytest.approx(wanted)
    counts = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(whole.state.optimizer) if "count" in str(path)]
    assert int(whole.state.step) == 7 and {int(count) for count in counts} == {7}


def test_a_guarded_training_stopped_before_and_after_it_goes_back_equals_an_uninterrupted_one(whole, config, folder):
    for last in (1, 3):
        make_trainer(config, folder / "parts").run(stopping(lambda step, last=last: step > last))
    state = make_trainer(config, folder / "parts").run(NEVER)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(whole.state))
    tags = ("loss/all", "heldout/tts", "guard/worst_rise", "learning_rate")
    one, other = (
        [(line["step"], tag, line[tag]) for line in read_metrics(out / "metrics.jsonl") for tag in tags if tag in line]
        for out in (whole.out, folder / "parts")
    )
    assert one == other


def test_a_guard_that_is_spent_ends_the_training_with_the_start_weights(config, folder, capsys):
    config = replace(config, train=replace(config.train, guard=replace(GUARD, most_returns=0)))
    trainer = make_trainer(config, folder / "spent")
    start = jax.device_get(make_trainer(config, folder / "fresh").run(stopping(lambda _: True, "SIGTERM")).params)
    state = trainer.run(NEVER)
    assert int(state.step) == 2
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), start)
    ended = "stopped by the guard, within its margin, at step 2 of 7;"
    assert closing_line(trainer, state, folder / "spent", NEVER).startswith(ended)
    told = capsys.readouterr().out
    assert "guard at step 2: tts is " in told
    assert "wanted at most 0.05; back to the weights of step 0, with which the training ends" in told
    assert int(make_trainer(config, folder / "spent").run(NEVER).step) == 2
    assert CheckpointReader(folder / "spent").latest() == 2


def test_a_guard_cannot_be_added_to_a_training_that_was_begun_without_one(config, folder):
    bare = replace(config, train=replace(config.train, steps=1, guard=GuardConfig()))
    train_in_process(bare, folder / "bare")
    with pytest.raises(ValueError, match="train.guard.margin: got a training that was begun without a guard.* --out"):
        make_trainer(config, folder / "bare")


def test_a_loss_that_is_no_number_is_the_worst_rise_and_breaks_any_margin(config):
    guard = Guard(config, {"guard": {"first": {"tts": 5.0, "enhancement": 3.0}, "good": 7, "returns": 2}})
    assert guard.rate == pytest.approx(1e-6) and not guard.is_spent
    assert guard.breach({"tts": 5.04, "enhancement": 3.01}) is None
    assert guard.breach({"tts": 5.1, "enhancement": 3.2}) == Rise("enhancement", 3.2 - 3.0)
    broken = guard.breach({"tts": float("nan"), "enhancement": 9.0})
    assert broken is not None and broken.task == "tts"
    assert guard.as_json() == {"first": {"tts": 5.0, "enhancement": 3.0}, "good": 7, "returns": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_from": None}, "RunConfig.train.guard.margin: got 0.05 with start_from=None"),
        ({"train": {"evaluate_every_steps": None}}, "evaluate_every_steps=None, wanted a start run and evaluations"),
    ],
)
def test_a_guard_needs_a_start_run_and_evaluations(changes, message, config):
    train = replace(config.train, **changes.pop("train", {}))
    with pytest.raises(ValueError, match=message):
        replace(config, train=train, **changes)


@pytest.mark.parametrize(
    ("field", "value"), [("margin", -0.1), ("rate_factor", 0.0), ("rate_factor", 1.0), ("most_returns", -1)]
)
def test_a_guard_of_no_sense_is_refused(field, value):
    with pytest.raises(ValueError, match=f"GuardConfig.{field}: got {value}, wanted "):
        GuardConfig(**{field: value})
