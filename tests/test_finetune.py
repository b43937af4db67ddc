"""A finished run goes on with new tasks and new ids; the mixture follows the hours; hours are counted."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from data_pipelines.batches import BatchStream, open_training_data
from data_pipelines.heldout import HeldOut
from data_pipelines.store import column_folder
from data_pipelines.views import View
from tests.small_run import APPENDED, finish, python, write_run
from uniaudio_jax import load_run
from uniaudio_jax.clock import FrameClock
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import RunConfig
from uniaudio_jax.config_files import load_config
from uniaudio_jax.sequence import audio_frames
from uniaudio_jax.tasks import get_task

NEW = ("--model.appended", "language", 5)
TASKS = ("--data.tasks", "tts", 1, "enhancement", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("finetune")


@pytest.fixture(scope="module")
def config(folder):
    return write_run(folder, tasks=("tts", "enhancement", "language_recognition", "asr"), steps=3)


@pytest.fixture(scope="module")
def old(folder, config):
    finish(python("uniaudio_jax.train", config, "--out", folder / "old", *TASKS))
    return folder / "old"


@pytest.fixture(scope="module")
def tuned(folder, config, old):
    words = ["--start-from", old, "--train.evaluate-every-steps", 2, *NEW, *TASKS, "language_recognition", 2]
    out, _ = finish(python("uniaudio_jax.train", config, "--out", folder / "tuned", *words))
    return folder / "tuned", out


def log_of(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_grown_run_begins_with_the_old_weights_and_old_losses(folder, config, old, tuned):
    finish(
        python(
            "uniaudio_jax.train",
            config,
            "--out",
            folder / "start",
            "--start-from",
            old,
            *NEW,
            *TASKS,
            "--optim.peak-learning-rate",
            1e-30,
            "--optim.weight-decay",
            0,
            "--train.steps",
            1,
        )
    )
    one, other = load_run(old), load_run(folder / "start")
    tokens = np.random.default_rng(0).integers(0, 4212, (2, 7, 3))
    want = np.asarray(one.logits(tokens))
    np.testing.assert_allclose(np.asarray(other.logits(tokens))[..., :4212], want, rtol=1e-5, atol=1e-5)
    run, out = tuned
    first, *later = [line for line in log_of(run) if "heldout/tts" in line]
    assert first["step"] == 0 and [line["step"] for line in later] == [2, 3]
    assert {"heldout/enhancement", "heldout/language_recognition"} < set(first)
    finish(python("uniaudio_jax.evaluate", "--run", old, "--count", 1))
    entry = json.loads((old / "evaluation.json").read_text())["tasks"]["tts"]
    # The five new ids take their share of the softmax, about log(1 + 5 / 4212) nats, and nothing else changes.
    assert 0 < first["heldout/tts"] - entry["loss"] < 2 * np.log(1 + 5 / 4212)
    assert "held out at step 0: tts " in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model.vocabulary", 4212 + 5), "range 'language'"),
        ((*NEW, "--model.global-stack.layers", 3), "start_from has another model"),
        pytest.param(("--model.vocabulary", 4300, "--model.appended", "language", 4), None, marks=pytest.mark.slow),
    ],
)
def test_only_what_was_appended_may_differ(folder, config, old, words, said, tmp_path):
    new = (*TASKS, "language_recognition", 1) if said and "range" in said else TASKS
    process = python("uniaudio_jax.train", config, "--out", tmp_path, "--start-from", old, *words, *new)
    _, err = finish(process, 0 if said is None else 2)
    assert said is None or said in err


@pytest.mark.slow
def test_ids_that_moved_are_refused(folder, config, tuned, tmp_path):
    run, _ = tuned
    moved = ("--model.appended", "text", 23, "language", 5)
    _, err = finish(python("uniaudio_jax.train", config, "--out", tmp_path, "--start-from", run, *moved, *TASKS), 2)
    assert "start_from has the ids" in err and "may only be appended" in err


def shares(config, **changes) -> dict[str, float]:
    """Share of the rows' frames that goes to each task."""
    run = load_config(config, RunConfig)
    run = replace(
        run,
        data=replace(run.data, tasks={"tts": 1.0, "asr": 1.0}, **changes),
        model=replace(run.model, appended={"text": APPENDED["text"]}),
    )
    codec = load_codec(run.codec or "").passport()
    plan = open_training_data(run.data, "target", run.model.ids, run.model.text_width, codec, 0, 1).rows.plan
    frames = [quota * source.mean_frames for quota, source in zip(plan.quota, plan.sources, strict=True)]
    return {of.task.name: float(one / sum(frames)) for of, one in zip(plan.sources, frames, strict=True)}


def test_the_mixture_follows_the_hours_by_its_power(config, folder):
    run = load_config(config, RunConfig)
    codec = load_codec(run.codec or "").passport()
    data = open_training_data(
        replace(run.data, tasks={"tts": 1.0, "enhancement": 1.0}), "target", run.model.ids, 7, codec, 0, 1
    )
    hours = {view.task.name: view.hours(FrameClock(16000, 320)) for view in data.views}
    lengths = np.load(column_folder(folder / "tokens", "random", "audio") / "index/train/lengths.npy")
    assert np.isclose(hours["tts"], lengths.sum() / 50 / 3600)
    assert shares(config) == pytest.approx({"tts": 0.5, "asr": 0.5})
    asr = View(folder / "tokens", "random", get_task("asr"), "train")
    more = audio_frames(get_task("asr"), asr.index.lengths).sum() / lengths.sum()
    skewed = shares(config, hours_power=0.3)
    assert skewed["asr"] / skewed["tts"] == pytest.approx(more**0.3) != 1


@pytest.mark.slow
def test_hours_seen_are_those_of_the_rows_and_survive_a_resume(folder, config):
    words = [config, *TASKS, "--train.save-every-steps", 2]
    finish(python("uniaudio_jax.train", *words, "--out", folder / "whole", "--train.steps", 5))
    for steps in (2, 5):
        finish(python("uniaudio_jax.train", *words, "--out", folder / "parts", "--train.steps", steps))
    whole, parts = (log_of(folder / name)[-1] for name in ("whole", "parts"))
    tags = ("hours/tts", "hours/tts/random", "hours/enhancement/random")
    assert all(np.isclose(whole[tag], parts[tag]) and whole[tag] > 0 for tag in tags)
    run = load_config(config, RunConfig)
    data = replace(run.data, tasks={"tts": 1.0, "enhancement": 1.0})
    codec = load_codec(run.codec or "").passport()
    opened = open_training_data(data, "target", run.model.ids, 7, codec, 0, 1)
    assert opened.views[0].task.name == "tts"
    stream, seen = BatchStream(opened.batches), 0
    for batch in (next(stream) for _ in range(5)):
        seen += int(batch.audio_frames[:, 0].sum())
    assert np.isclose(whole["hours/tts"], seen / 50 / 3600)
    assert load_run(folder / "parts").meta["hours_seen"]["tts/random"] == pytest.approx(whole["hours/tts"])


def test_every_heldout_item_counts_once(config):
    run = load_config(config, RunConfig)
    heldout = HeldOut(run, "tts", load_codec(run.codec or "").passport())
    batches = list(heldout.batches())
    counted = np.concatenate([batch.loss_weights.sum(axis=1) for batch in batches])
    assert len(counted) % run.data.rows == 0 and counted[-1] == 0 < counted[0]
    assert counted.sum() == sum(len(example.streams["audio"]) for example in heldout.examples(10**6)) > 0


@pytest.mark.slow
def test_heldout_losses_of_two_processes_are_those_of_one(folder, config):
    words = ("uniaudio_jax.train", config, "--train.evaluate-every-steps", 2, "--train.steps", 2, *TASKS)
    finish(python(*words, "--out", folder / "alone", devices=2))
    port = 20000 + jax.process_index() + np.random.default_rng().integers(20000)
    both = ("--distributed.coordinator", f"127.0.0.1:{port}", "--distributed.processes", 2, "--distributed.process")
    processes = [python(*words, "--out", folder / "two", *both, number) for number in range(2)]
    for process in processes:
        finish(process)
    tags = ("heldout/tts", "heldout/enhancement", "hours/tts")
    alone, two = (
        {(line["step"], tag): line[tag] for line in log_of(folder / name) for tag in tags if tag in line}
        for name in ("alone", "two")
    )
    assert {tag for _, tag in alone} == set(tags)
    assert two == pytest.approx(alone, abs=1e-4)
