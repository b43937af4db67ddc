"""Laws of the training loop: killed and resumed = uninterrupted, two processes = one, and clear refusals."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_run import environment, finish, losses, python, write_codec, write_run
from uniaudio_jax import load_run
from uniaudio_jax.checkpoint import Checkpoints, state_items
from uniaudio_jax.optim import TrainState, make_optimizer

TRAIN = "uniaudio_jax.train"


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def whole(config) -> Path:
    """A run of 30 steps without interruption."""
    run = config.parent / "whole"
    finish(python(TRAIN, config, "--out", run))
    return run


def wait_for(path: Path, process) -> None:
    limit = time.time() + 200
    while not path.exists():
        assert process.poll() is None and time.time() < limit, process.communicate()
        time.sleep(0.02)


def test_killed_and_resumed_equals_uninterrupted_to_the_bit(config, whole):
    run = config.parent / "killed"
    process = python(TRAIN, config, "--out", run)
    wait_for(run / "checkpoints" / "17", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    out, _ = finish(python(TRAIN, config, "--out", run))
    assert "resuming after step 17" in out
    assert losses(run) == losses(whole)
    one, other = load_run(whole).params, load_run(run).params
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_training_goes_on_from_imported_weights(config, whole):
    """An imported run holds a checkpoint of step 0."""
    trained, run = load_run(whole), config.parent / "imported"
    optimizer, zero = make_optimizer(trained.config.optim, 30), jnp.zeros((), jnp.int32)
    state = TrainState(trained.params, optimizer.init(trained.params), zero, zero)
    checkpoints = Checkpoints(run)
    checkpoints.save(0, state_items(state), {key: trained.meta[key] for key in ("config", "vocabulary", "codec")})
    checkpoints.close()
    still = ["--optim.peak-learning-rate", 1e-30, "--optim.weight-decay", 0, "--train.steps", 1]
    out, _ = finish(python(TRAIN, config, "--out", run, *still))
    assert "resuming after step 0" in out
    jax.tree.map(np.testing.assert_array_equal, load_run(run).params, trained.params)


def test_sigterm_saves_and_exits_with_zero(config, whole):
    run = config.parent / "terminated"
    process = python(TRAIN, config, "--out", run, "--train.steps", 700)
    wait_for(run / "metrics.jsonl", process)
    while not (run / "metrics.jsonl").read_text():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, _ = finish(process)
    stopped = re.search(r"stopped by SIGTERM and saved at step (\d+)", out)
    assert stopped and max(losses(run)) <= int(stopped[1]) < 700
    out, _ = finish(python(TRAIN, config, "--out", run, "--train.steps", max(30, int(stopped[1]) + 1)))
    assert f"resuming after step {stopped[1]}" in out
    assert {step: loss for step, loss in losses(run).items() if step <= 30} == losses(whole)


def two_processes(config: Path, run: Path, steps: int) -> list[subprocess.Popen]:
    """One training in two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [TRAIN, config, "--out", run, "--train.steps", steps]
    flags = ["--distributed.coordinator", address, "--distributed.processes", 2, "--distributed.process"]
    return [python(*words, *flags, number) for number in range(2)]


def test_a_signal_to_one_of_two_processes_stops_both_at_one_step(config):
    run = config.parent / "stopped"
    processes = two_processes(config, run, 700)
    wait_for(run / "metrics.jsonl", processes[0])
    while not (run / "metrics.jsonl").read_text():
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    (out, _), _ = [finish(process) for process in processes]
    stopped = re.search(r"stopped by SIGTERM and saved at step (\d+)", out)
    checkpoints = Checkpoints(run)
    latest = checkpoints.latest()
    checkpoints.close()
    assert stopped and int(stopped[1]) == max(losses(run)) == latest != 700


def test_two_processes_find_the_losses_of_one(config, whole):
    run = config.parent / "two"
    for process in two_processes(config, run, 7):
        finish(process)
    wanted = losses(whole)
    assert losses(run).keys() == set(range(1, 8))
    for step, loss in losses(run).items():
        assert abs(loss - wanted[step]) < 1e-5 * wanted[step]


def test_metrics_name_each_task_and_level(whole):
    last = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    for tag in (
        "loss/tts/level_1",
        "accuracy/tts/level_3",
        "frames_per_second",
        "model_flop_utilisation",
        "skipped_updates",
        "gradient_norm",
        "learning_rate",
    ):
        assert tag in last
    assert list((whole / "tensorboard").glob("events*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--model.context-frames", "152"], "model is {'context_frames': 151}, the run's is {'context_frames': 152}"),
        (["--data.tasks", "tts", "1", "singing", "1"], "no corpus for task 'singing'"),
        (["--data.tasks", "ttss", "1"], "did you mean 'tts'"),
        (["--train.step", "3"], "--train.steps"),
        (["--train.steps", "0"], "TrainConfig.steps: got 0"),
        (["--codec", "tiny16k"], "tiny_16k"),
        (["--mesh.fsdp", "3"], "got 1 devices"),
    ],
)
def test_a_users_mistake_gets_one_clear_error(change, message, config, whole):
    before = sorted(p.name for p in (whole / "checkpoints").iterdir())
    _, err = finish(python(TRAIN, config, "--out", whole, *change), code=2)
    assert message in err and "Traceback" not in err
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == before


def test_tokens_of_another_codec_are_refused(config, whole):
    other = write_codec(config.parent / "other_codec", name="other", seed=1)
    _, err = finish(python(TRAIN, config, "--out", config.parent / "x", "--codec", other), code=2)
    assert "tokens were made by codec 'random'" in err and "wants 'other'" in err


def test_a_shard_cut_in_half_is_refused(config, tmp_path):
    tokens = tmp_path / "tokens"
    shutil.copytree(config.parent / "tokens", tokens)
    shard = sorted(tokens.glob("random/audio/*/*train.array_record*"))[0]
    size = shard.stat().st_size
    os.truncate(shard, size // 2)
    _, err = finish(python(TRAIN, config, "--out", tmp_path / "x", "--data.root", tokens), code=2)
    assert f"{shard}: got {size // 2} bytes, wanted {size} bytes" in err


def test_a_write_that_fails_keeps_the_last_good_checkpoint(config, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)); "
        "sys.argv = sys.argv[1:]; runpy.run_module('uniaudio_jax.train', run_name='__main__')"
    )
    words = [sys.executable, "-c", limited, "train", str(config), "--out", str(run), "--train.steps", "33"]
    done = subprocess.run(words, cwd=Path(__file__).parents[1], env=environment(), capture_output=True, text=True)
    # Threads of the failed save may write to the same line of standard error.
    errors = [line for line in done.stderr.splitlines() if "error: " in line and "[17, 30] stay" in line]
    assert done.returncode == 2 and len(errors) == 1, done.stderr
    jax.tree.map(np.testing.assert_array_equal, load_run(run).params, load_run(whole).params)


def test_a_full_disk_is_told_before_anything_is_written(whole, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    checkpoints, loaded = Checkpoints(run), load_run(run)
    state = TrainState(loaded.params, (), jnp.int32(31), jnp.int32(0))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(OSError, match=r"saving step 31 failed: \d+ MB are needed and 1 MB are free; .*\[17, 30\] stay"):
        checkpoints.save(31, state_items(state), {})
    checkpoints.close()
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["17", "30"]
