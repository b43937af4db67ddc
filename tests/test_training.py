"""Laws of the training loop: killed and resumed = uninterrupted, two processes = one, readers change nothing, and clear
refusals."""

import errno
import importlib
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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_run import REPO, environment, finish, free_address, losses, python, write_codec, write_run
from uniaudio_jax import checkpoint, load_run
from uniaudio_jax.checkpoint import CheckpointReader, Checkpoints, remedy, state_items
from uniaudio_jax.locks import FILE, hold
from uniaudio_jax.optim import TrainState, make_optimizer

TRAIN = "uniaudio_jax.train"


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("small"), layout="PAPER")


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


def shown_by_tensorboard(folder: Path) -> list[int]:
    """The steps that TensorBoard shows: a file that was begun at a step hides what earlier files hold from there on."""
    proto: Any = importlib.import_module("tensorboardX.proto.event_pb2")
    steps: list[int] = []
    for path in sorted(folder.glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            event = proto.Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            if event.session_log.status == proto.SessionLog.START:
                steps = [step for step in steps if step < event.step]
            steps += [event.step for value in event.summary.value if value.tag == "loss/all"]
    return steps


def test_killed_and_resumed_equals_uninterrupted_to_the_bit(config, whole):
    run = config.parent / "killed"
    process = python(TRAIN, config, "--out", run)
    wait_for(run / "checkpoints" / "17", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with (run / "metrics.jsonl").open("ab") as file:
        file.write('{"step": 29, "ö'.encode()[:-1])
    out, _ = finish(python(TRAIN, config, "--out", run))
    assert "resuming after step 17" in out
    assert losses(run) == losses(whole)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 31))
    assert shown_by_tensorboard(run / "tensorboard") == list(range(1, 31))
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
    wait_for_metrics(run, process)
    process.send_signal(signal.SIGTERM)
    out, _ = finish(process)
    stopped = re.search(r"stopped by SIGTERM and saved at step (\d+)", out)
    assert stopped and max(losses(run)) <= int(stopped[1]) < 700
    out, _ = finish(python(TRAIN, config, "--out", run, "--train.steps", max(30, int(stopped[1]) + 1)))
    assert f"resuming after step {stopped[1]}" in out
    assert {step: loss for step, loss in losses(run).items() if step <= 30} == losses(whole)


def two_processes(config: Path, run: Path, steps: int, *more: object) -> list[subprocess.Popen]:
    """One training in two processes."""
    words = [TRAIN, config, "--out", run, "--train.steps", steps, *more]
    flags = ["--distributed.coordinator", free_address(), "--distributed.processes", 2, "--distributed.process"]
    return [python(*words, *flags, number) for number in range(2)]


def wait_for_metrics(run: Path, process: subprocess.Popen) -> None:
    """Returns when a training has logged a step."""
    wait_for(run / "metrics.jsonl", process)
    while not (run / "metrics.jsonl").read_text():
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("process", "number"),
    [
        (1, signal.SIGTERM),
        pytest.param(0, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(0, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_one_of_two_processes_stops_both_at_one_step(process, number, config):
    run = config.parent / f"stopped_{process}_{number}"
    processes = two_processes(config, run, 700)
    wait_for_metrics(run, processes[0])
    processes[process].send_signal(number)
    (out, err), (_, other) = [finish(process) for process in processes]
    stopped = re.search(r"stopped by SIGTERM and saved at step (\d+)", out)
    assert stopped and int(stopped[1]) == max(losses(run)) == CheckpointReader(run).latest() != 700
    assert "Traceback" not in err + other


def interrupted(config: Path, run: Path, where: str, *words: object, code: int = 0) -> str:
    """Output of a training that gets a SIGINT just before its function `where` runs; it must end with `code`."""
    script = (
        "import os, signal, sys; from uniaudio_jax import train; from uniaudio_jax.programs import Programs\n"
        f"work, sent = {where}, []\n"
        "def interrupt(*given):\n"
        "    if not sent: sent.append(os.kill(os.getpid(), signal.SIGINT))\n"
        "    return work(*given)\n"
        f"{where} = interrupt; train.main()"
    )
    words = (sys.executable, "-c", script, config, "--out", run, "--train.steps", 700, *words)
    done = subprocess.run([*map(str, words)], cwd=REPO, env=environment(), capture_output=True, text=True)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_a_signal_before_the_first_step_ends_in_order(config):
    run = config.parent / "interrupted"
    assert "stopped by SIGINT before the first step; nothing is saved" in interrupted(
        config, run, "train.open_training_data", code=130
    )
    assert CheckpointReader(run).latest() is None


@pytest.mark.slow
def test_a_signal_while_it_compiles_or_restores_saves_and_ends_in_order(config):
    run = config.parent / "interrupted_later"
    assert "stopped by SIGINT and saved at step 1 of 700" in interrupted(config, run, "Programs.gradients")
    assert "stopped by SIGINT and saved at step 1 of 700" in interrupted(config, run, "train.restore_state")
    assert CheckpointReader(run).latest() == 1


def test_a_second_training_in_a_folder_is_refused_before_it_writes(config, whole):
    before = stamps(whole)
    with hold(whole, ""):
        _, err = finish(python(TRAIN, config, "--out", whole, "--train.steps", 37), code=2)
    assert f"error: {whole}: in use by process {os.getpid()} on {socket.gethostname()} since " in err
    assert {path: time for path, time in stamps(whole).items() if path.name != FILE} == {
        path: time for path, time in before.items() if path.name != FILE
    }


def test_a_training_whose_updates_are_all_skipped_stops_and_keeps_its_checkpoints(config, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    words = ["--train.steps", 60, "--train.save-every-steps", 2, "--train.most-skipped-updates", 7]
    _, err = finish(python(TRAIN, config, "--out", run, *words, "--optim.peak-learning-rate", 1e38), code=2)
    said = re.search(r"error: step (\d+): the last 7 updates were skipped.*loss nan.*most_skipped_updates", err)
    assert said and int(said[1]) < 45 and "Traceback" not in err
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == int(said[1])
    assert (CheckpointReader(run).latest() or 0) <= int(said[1]) - 7
    assert (run / "checkpoints" / "30").exists()


@pytest.mark.parametrize("mesh", ["data", pytest.param("tensor", marks=pytest.mark.slow)])
def test_two_processes_find_the_losses_of_one(mesh, config, whole):
    """Also where the two have the same rows, and half of each weight."""
    run = config.parent / f"two_{mesh}"
    for process in two_processes(config, run, 7, f"--mesh.{mesh}", 2):
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
    done = subprocess.run(words, cwd=REPO, env=environment(), capture_output=True, text=True)
    # Threads of the failed save may write to the same line of standard error.
    errors = [line for line in done.stderr.splitlines() if "error: " in line and "[17, 30] stay" in line]
    assert done.returncode == 2 and len(errors) == 1 and "make room on the disk" in errors[0], done.stderr
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


def stamps(folder: Path) -> dict[Path, int]:
    """Everything below a folder, with the times of the last changes."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_reading_a_run_leaves_everything_in_its_folder_as_it_is(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    half = run / "checkpoints" / "31.orbax-checkpoint-tmp" / "params"
    half.mkdir(parents=True)
    (half / "half").write_text("written")
    before = stamps(run)
    assert load_run(run).step == 30
    assert stamps(run) == before


@pytest.mark.slow
def test_readers_do_not_disturb_a_training(config):
    run = config.parent / "read"
    words = ["--train.steps", 29, "--train.save-every-steps", 1, "--train.keep-checkpoints", 1]
    process = python(TRAIN, config, "--out", run, *words)
    wait_for(run / "checkpoints" / "1", process)
    code = (
        "import sys, uniaudio_jax; from pathlib import Path; run = Path(sys.argv[1])\n"
        "while not (run / 'checkpoints' / '29').exists():\n"
        "    loaded = uniaudio_jax.load_run(run)\n"
        "    _ = loaded.params\n"
        "    print(loaded.step)"
    )
    words = [sys.executable, "-c", code, str(run)]
    done = subprocess.run(words, cwd=REPO, env=environment(), capture_output=True, text=True)
    finish(process)
    steps = [int(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and steps and steps == sorted(steps), done.stderr
    assert load_run(run).step == 29


def test_a_checkpoint_that_is_deleted_while_it_is_read_gives_way_to_the_newest(whole, tmp_path, monkeypatch):
    run, restore, moved = tmp_path / "run", CheckpointReader.restore, []
    shutil.copytree(whole, run)

    def restore_late(self, shapes, step):
        if len(moved) < most:
            (self.folder / str(step)).rename(self.folder / str(step + 1))
            moved.append(step)
        return restore(self, shapes, step)

    monkeypatch.setattr(CheckpointReader, "restore", restore_late)
    most = 3
    loaded = load_run(run)
    assert loaded.step == 30 and loaded.params and loaded.step == 33 and moved == [30, 31, 32]
    most = 100
    with pytest.raises(ValueError, match="its training deleted checkpoint 37 while it was read.*keep-checkpoints"):
        _ = load_run(run).params
    assert len(moved) == 3 + checkpoint.MOST_READS


def test_arrays_that_are_not_finite_are_not_saved(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    checkpoints = Checkpoints(run)
    with pytest.raises(ValueError, match=r"step 31 is not saved, as its weights are not finite; .*\[17, 30\] stay"):
        checkpoints.save(31, {"params": {"bias": jnp.array([1.0, jnp.nan])}}, {})
    checkpoints.close()
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["17", "30"]


def test_without_a_complete_checkpoint_none_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    with pytest.raises(ValueError, match="not finite; none is complete; train with a lower learning rate"):
        checkpoints.save(0, {"params": {"bias": jnp.array([1.0, jnp.nan])}}, {})
    checkpoints.close()


def test_a_folder_that_vanished_is_told_so_and_not_the_disk(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(OSError, match="saving step 3 failed: .*No such file.*put the folder back, which was moved"):
        checkpoints.save(3, {"params": {"bias": jnp.ones(5)}}, {})
    checkpoints.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "full"), "make room on the disk"),
        (ValueError("RESOURCE_EXHAUSTED: write: [OS error 28: No space left on device]"), "make room on the disk"),
        (PermissionError(errno.EACCES, "no"), "give this user the right to write"),
        (ValueError("PERMISSION_DENIED: open: [OS error 13: Permission denied]"), "give this user the right to write"),
        (FileNotFoundError(errno.ENOENT, "gone"), "put the folder back"),
        (RuntimeError("a device was lost"), "mend that"),
    ],
)
def test_a_failed_save_names_the_remedy_of_its_cause(error, words):
    try:
        raise RuntimeError("saving failed") from error
    except RuntimeError as outer:
        assert remedy(outer).startswith(words)
