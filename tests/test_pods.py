"""Laws of the launchers while they run: preempted slices come back, connections may break, SLURM's tasks are one run.

tests/stand_ins/ holds programs that stand in for those of a cloud or a cluster; each says what it does.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.small_run import REPO, environment, finish, losses, write_run

STAND_INS = REPO / "tests/stand_ins"
ON = ("--name", "uni", "--zone", "z")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A committed checkout that holds the launch scripts alone, beside the folders of two workers."""
    folder = tmp_path / "checkout"
    shutil.copytree(REPO / "launch", folder / "launch")
    (folder / ".gitignore").write_text("runs\n")
    for words in (("init", "-q"), ("add", "."), ("-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "all")):
        subprocess.run(["git", *words], cwd=folder, check=True)
    for worker in range(2):
        (tmp_path / str(worker)).mkdir()
    return folder


def start(checkout: Path, *words: str, **variables: str) -> subprocess.Popen:
    """Starts a command in the checkout, where the programs of a cloud or a cluster are those of tests/stand_ins."""
    clean = {name: value for name, value in environment().items() if not name.startswith("SLURM_")}
    path = os.pathsep.join([str(STAND_INS), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        list(words),
        cwd=checkout,
        env=clean | {"PATH": path, "SLICE": str(checkout.parent), **variables},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def pod(checkout: Path, action: str, *words: str, code: int = 0, options: tuple[str, ...] = ()) -> str:
    """The output of launch/tpu_pod.sh, which must end with `code`."""
    command = ("--", *words) if words else ()
    out, err = finish(start(checkout, "bash", "launch/tpu_pod.sh", action, *ON, *options, *command), code=code)
    return out + err


def calls(checkout: Path) -> list[str]:
    """What gcloud was asked to change or to run, without what each run needs: copies and installations."""
    lines = (checkout.parent / "calls").read_text().splitlines()
    short = {"tpu-vm create": "create", "tpu-vm delete": "delete"}
    return [short.get(line, "run") for line in lines if line in short or "tpu_worker.sh run" in line]


def plan(checkout: Path, *ends: str) -> None:
    """How the next runs end; see tests/stand_ins/gcloud."""
    (checkout.parent / "ends").write_text("".join(f"{end}\n" for end in ends))


def test_a_command_runs_from_the_copy_on_every_worker_of_a_new_slice(checkout):
    out = pod(checkout, "all", "bash", "-c", "echo ran in $PWD as $UNIAUDIO_DISTRIBUTED")
    assert calls(checkout) == ["create", "run"]
    ran = [f"ran in {checkout.parent / worker / 'uniaudio_jax'} as auto" for worker in "01"]
    assert [line for line in out.splitlines() if line.startswith("ran in ")] == ran
    assert (checkout.parent / "removed").read_text() == "-f /tmp/libtpu_lockfile\n" * 2
    pod(checkout, "logs")
    for worker in "01":
        (log,) = checkout.glob(f"runs/logs/uni/{worker}/*.log")
        assert log.read_text() == f"{ran[int(worker)]}\n"


def test_a_slice_that_is_there_is_taken(checkout):
    (checkout.parent / "state").write_text("READY\n")
    pod(checkout, "all", "true")
    assert calls(checkout) == ["run"]


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED", "SUSPENDED", "FAILED"])
def test_what_is_left_of_a_lost_slice_is_replaced(checkout, state):
    (checkout.parent / "state").write_text(f"{state}\n")
    pod(checkout, "create")
    assert calls(checkout) == ["delete", "create"]


def test_a_slice_whose_state_cannot_be_asked_is_left_alone(checkout):
    (checkout.parent / "state").write_text("offline\n")
    assert "ERROR: the network cannot be reached" in pod(checkout, "create", code=1)
    assert calls(checkout) == []


def test_a_loop_runs_until_the_command_has_finished(checkout):
    plan(checkout, "255 134 PREEMPTED", "134 134 gone", "75 0 READY", "0 0 READY")
    pod(checkout, "loop", "train")
    assert calls(checkout) == ["create", "run", "delete", "create", "run", "create", "run", "run"]


def test_a_loop_knows_a_queued_resource(checkout):
    plan(checkout, "255 255 SUSPENDED", "0 0 READY")
    pod(checkout, "loop", "train", options=("--queued",))
    lines = (checkout.parent / "calls").read_text().splitlines()
    assert [line.split()[1] for line in lines if re.search("create|delete", line)] == ["create", "delete", "create"]
    assert all(line.startswith("queued-resources") for line in lines if re.search("create|delete", line))


def test_a_mistake_of_the_user_ends_a_loop(checkout):
    plan(checkout, "2 2 READY")
    pod(checkout, "loop", "train", code=2)
    assert calls(checkout) == ["create", "run"]


def test_a_2_beside_another_code_is_no_mistake_of_the_user(checkout):
    plan(checkout, "2 255 READY", "0 0 READY")
    pod(checkout, "loop", "train")
    assert calls(checkout) == ["create", "run", "run"]


def test_a_loop_without_progress_gives_up(checkout):
    plan(checkout, *["134 134 READY resuming after step 17"] * 4)
    out = pod(checkout, "loop", "train", code=134, options=("--retries", "2"))
    assert calls(checkout) == ["create", "run", "run", "run"]
    assert out.endswith("error: ended with 134, 3 times without a later checkpoint; last: resuming after step 17\n")


def test_each_later_checkpoint_gives_a_loop_all_its_retries_again(checkout):
    steps = (17, 17, 34, 34, 51)
    plan(checkout, *[f"134 134 READY resuming after step {step}" for step in steps], "0 0 READY")
    pod(checkout, "loop", "train", options=("--retries", "2"))
    assert calls(checkout) == ["create", *["run"] * 6]


def test_a_device_that_stays_busy_costs_the_slice(checkout):
    plan(checkout, "1 1 READY open(/dev/vfio/0): Device or resource busy", "0 0 READY")
    pod(checkout, "loop", "train")
    assert calls(checkout) == ["create", "run", "delete", "create", "run"]


def wait_for(path: Path, text: str) -> None:
    limit = time.monotonic() + 200
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < limit, f"{path} never said {text!r}"
        time.sleep(0.02)


@pytest.mark.parametrize(("on_term", "code"), [("exit 3", 3), ("", -signal.SIGKILL)])
def test_who_holds_the_tpu_is_asked_to_end_and_then_made_to(checkout, on_term, code):
    (checkout.parent / "dev").mkdir()
    script = f"trap '{on_term}' TERM; touch begun; while true; do sleep 1; done"
    holder = start(checkout, "bash", "-c", f"exec 7>{checkout.parent}/dev/accel0; {script}")
    other = start(checkout, "sleep", "1")
    wait_for(checkout / "begun", "")
    finish(start(checkout, "bash", "launch/tpu_worker.sh", "clean"))
    finish(holder, code=code)
    finish(other)
    assert (checkout.parent / "removed").read_text() == "-f /tmp/libtpu_lockfile\n"


def test_a_command_outlives_its_connection_and_is_shown_again(checkout):
    script = "echo begun; until [[ -e go ]]; do sleep 1; done; echo ended; exit 7"
    words = ("bash", "launch/tpu_worker.sh", "run", "--attempt", "a", "--", "bash", "-c", script)
    connection = start(checkout, *words)
    wait_for(checkout / "runs/worker/a.log", "begun")
    os.killpg(connection.pid, signal.SIGKILL)
    connection.communicate()
    again = start(checkout, *words)
    (checkout / "go").touch()
    out, _ = finish(again, code=7)
    assert out.splitlines() == ["begun", "ended"]


@pytest.mark.parametrize(
    ("task", "on_term", "code"), [("", "exit 0", 75), ("1", "exit 0", 0), ("", "exit 2", 2), ("", "exit 134", 134)]
)
def test_a_command_that_was_stopped_is_told_from_one_that_has_finished(checkout, task, on_term, code):
    script = f"trap '{on_term}' TERM; touch begun; while true; do sleep 1; done"
    process = start(
        checkout, "python", "launch/worker.py", "bash", "-c", script, **({"SLURM_PROCID": task} if task else {})
    )
    wait_for(checkout / "begun", "")
    process.send_signal(signal.SIGTERM)
    finish(process, code=code)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 2", 2), ("kill -ABRT $$", 134)])
def test_a_command_that_ends_by_itself_keeps_its_code(checkout, script, code):
    finish(start(checkout, "python", "launch/worker.py", "bash", "-c", script), code=code)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no command; usage: python launch/worker.py COMMAND …"),
        (("trian",), "trian cannot be started: No such file"),
    ],
)
def test_a_command_that_cannot_start_is_a_mistake_of_the_user(checkout, words, message):
    _, err = finish(start(checkout, "python", "launch/worker.py", *words), code=2)
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


def slurm(checkout: Path, python: str, *words: object) -> subprocess.Popen:
    """A job of two tasks, in which this script stands for all of Python but launch/worker.py; nothing is installed."""
    (checkout / "launch/install.sh").write_text('[[ $* == cuda ]] && echo "installed"\n')
    program = checkout / ".venv/bin/python"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f'#!/bin/bash\n[[ $1 != launch/worker.py ]] || exec {sys.executable} "$@"\n{python}\n')
    program.chmod(0o755)
    for package in ("uniaudio_jax", "configs"):
        if not (checkout / package).exists():
            (checkout / package).symlink_to(REPO / package)
    job = {"SLURM_JOB_ID": str(free_job()), "SLURM_NTASKS": "2", "SLURM_SUBMIT_DIR": str(checkout)}
    return start(checkout, "bash", "launch/gpu_slurm.sbatch", *map(str, words), **job)


def free_job() -> int:
    """The number of a job for which jax takes a free port."""
    for port in range(2**16 - 2**12, 2**16):
        with socket.socket() as place:
            if place.connect_ex(("127.0.0.1", port)):
                return port - (2**16 - 2**12)
    raise AssertionError("no port is free")


@pytest.mark.slow
def test_the_tasks_of_a_slurm_job_are_one_training(checkout):
    config = write_run(checkout.parent / "small", ("tts",), steps=3)
    run = checkout.parent / "run"
    out, _ = finish(slurm(checkout, f'exec {sys.executable} "$@"', config, "--out", run, "--data.tasks", "tts", 1))
    assert out.startswith("+ bash launch/install.sh cuda\ninstalled\n+ srun ")
    assert out.count("a fresh start on 2 cpu device(s)") == out.count("trained to step 3") == 1
    assert list(losses(run)) == [1, 2, 3]


@pytest.mark.slow
def test_a_training_that_slurm_stopped_goes_on_when_its_job_starts_again(checkout):
    config, run = write_run(checkout.parent / "small", ("tts",), steps=700), checkout.parent / "run"
    words = (config, "--out", run, "--data.tasks", "tts", 1)
    job = slurm(checkout, f'exec {sys.executable} "$@"', *words)
    wait_for(run / "metrics.jsonl", "loss")
    os.kill(int((checkout.parent / "srun").read_text()), signal.SIGUSR1)
    out, _ = finish(job, code=75)
    (step,) = re.findall(r"stopped by SIGTERM and saved at step (\d+)", out)
    assert "+ scontrol requeue " in out
    last = int(step) + 1
    out, _ = finish(slurm(checkout, f'exec {sys.executable} "$@"', *words, "--train.steps", last))
    assert f"resuming after step {step} on 2 cpu device(s)" in out and list(losses(run)) == list(range(1, last + 1))


def test_a_slurm_job_that_was_stopped_goes_back_into_the_queue(checkout):
    job = slurm(
        checkout, "trap 'exit 0' TERM; touch begun-$SLURM_PROCID; while true; do sleep 1; done", "configs/base.py"
    )
    for task in range(2):
        wait_for(checkout / f"begun-{task}", "")
    os.kill(int((checkout.parent / "srun").read_text()), signal.SIGUSR1)
    out, _ = finish(job, code=75)
    (number,) = re.findall(r"\+ scontrol requeue (\d+)\n", out)
    assert (checkout.parent / "scontrol").read_text() == f"requeue {number}\n"


@pytest.mark.parametrize("code", [1, 2, 134])
def test_a_slurm_job_that_failed_is_not_repeated(checkout, code):
    words = ("--module", "uniaudio_jax.evaluate", "--run", "run")
    finish(slurm(checkout, f"echo $SLURM_NTASKS >>tasks; exit {code}", *words), code=code)
    assert (checkout / "tasks").read_text() == "1\n" and not (checkout.parent / "scontrol").exists()
