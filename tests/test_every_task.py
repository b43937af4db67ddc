"""Every row of the task table trains in one run, and what it makes is audio or text."""

import json

import numpy as np
import pytest

from data_pipelines.heldout import HeldOut
from data_pipelines.tokenizers.labels import LABELS
from tests.small_run import APPENDED, finish, python, write_run
from uniaudio_jax import load_run
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.tasks import KINDS, TASKS, get_task


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("every")
    config = write_run(folder, tasks=tuple(TASKS), steps=3)
    ranges = [word for name, size in APPENDED.items() for word in (name, size)]
    ids = ("--model.appended", *ranges)
    tasks = [word for name in TASKS for word in (name, 1)]
    finish(
        python(
            "uniaudio_jax.train",
            config,
            "--out",
            folder / "run",
            *ids,
            "--data.tasks",
            *tasks,
            "--data.rows",
            len(TASKS),
        )
    )
    return load_run(folder / "run")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_was_trained_on_and_generates_its_kind_of_target(name, run):
    task = get_task(name)
    steps = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    losses = [step[f"loss/{name}"] for step in steps if f"loss/{name}" in step]  # of steps with its target tokens
    assert len(steps) == 3 and losses and np.isfinite(losses).all()
    examples = HeldOut(run.config, name, run.codec.passport()).examples(1)
    ((_, made),) = run.results_like(name, [example.streams for example in examples], Sampling(min_frames=1))
    kind = KINDS[task.target.kind]
    if task.makes_audio:
        assert made.shape[1] == 3 and len(run.codec.decode(made)) == 320 * len(made)
    else:
        assert made.ndim == 1 and (made >= 0).all() and (made < len(run.vocabulary.span(kind.span))).all()
        text = run.text_of(name, made)
        assert isinstance(text, str) and (name != "audio_tagging" or set(text.split(", ")) <= set(LABELS))
    assert np.issubdtype(made.dtype, np.integer) and len(made)
