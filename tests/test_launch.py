"""Laws of the launch scripts: they parse, dry runs print the commands in order, mistakes end with one clear line."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from uniaudio_jax.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("launch/*.sh"), *ROOT.glob("launch/*.sbatch")))
POD = ("--name", "uni", "--zone", "us-west4-a", "--dry-run")


def bash(
    *arguments: str, folder: Path = ROOT, path: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The finished run of a script in `folder`, outside any SLURM job."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")} | variables
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        ["/bin/bash", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def commands(run: subprocess.CompletedProcess[str]) -> list[str]:
    """The commands that a dry run printed."""
    assert run.returncode == 0, run.stderr
    return [line.removeprefix("+ ") for line in run.stdout.splitlines() if line.startswith("+ ")]


@pytest.mark.parametrize("script", [*SCRIPTS, Path(".ci/run")], ids=str)
def test_every_script_parses(script):
    assert bash("-n", str(script)).returncode == 0


def copy_with_fake_python(folder: Path, exit_codes: dict[str, int]) -> Path:
    """Returns the log of the fake install.sh and Python that it puts, with copies of the scripts, into `folder`.

    They only log their arguments. A call of Python fails with the code in `exit_codes` whose key the arguments contain.
    """
    shutil.copytree(ROOT / "launch", folder / "launch")
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    log, python = folder / "log", folder / ".venv/bin/python"
    cases = "".join(f"*{shlex.quote(word)}*) exit {code} ;;\n" for word, code in exit_codes.items())
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/bash\necho "$*" >>{log}\ncase "$*" in\n{cases}esac\n')
    python.chmod(0o755)
    (folder / "launch/install.sh").write_text(f'echo "install $*" >>{log}\n')
    return log


def test_continuous_integration_runs_every_check_and_fails_with_the_first_failure(tmp_path):
    log = copy_with_fake_python(tmp_path, {"ruff format": 7, "pyright": 5})
    run = bash(".ci/run", folder=tmp_path)
    assert run.returncode == 7 and run.stdout.endswith("failed: ruff-format pyright\n")
    checks = ["install test", "-m ruff check .", "-m ruff format --check .", "-m pyright", "-m pytest"]
    calls = log.read_text().splitlines()
    assert [call.startswith(check) for call, check in zip(calls, checks, strict=True)] == [True] * 5


def test_the_quickstart_builds_and_generates_the_eleven_tasks_of_the_paper(tmp_path):
    log = copy_with_fake_python(tmp_path, {})
    run = bash("launch/quickstart.sh", folder=tmp_path, RUN="results")
    assert run.returncode == 0 and f"results in {tmp_path / 'results'}" in run.stdout
    calls = [shlex.split(call) for call in log.read_text().splitlines()]
    modules = ["data_pipelines.synthetic", "data_pipelines.builder"]
    modules += [f"uniaudio_jax.{name}" for name in ("train", "generate", "evaluate", "export_torch")]
    assert calls[0] == ["install", "quickstart", "torch"]
    assert list(dict.fromkeys(call[1] for call in calls[1:])) == modules
    for module in ("data_pipelines.builder", "uniaudio_jax.generate"):
        words = [word for call in calls if call[1] == module for word in call]
        assert {word.rpartition(":")[2] for word in words} & set(TASKS) == set(list(TASKS)[:11])


def test_a_failed_stage_of_the_quickstart_is_named_and_ends_it(tmp_path):
    log = copy_with_fake_python(tmp_path, {"uniaudio_jax.train": 3})
    run = bash("launch/quickstart.sh", folder=tmp_path)
    assert run.returncode == 3 and run.stderr.startswith("error: stage 3/6 train failed")
    assert "uniaudio_jax.train" in log.read_text().splitlines()[-1]


def test_a_pod_is_created_filled_and_started_in_this_order():
    train = ("python", "-m", "uniaudio_jax.train", "configs/paper.py", "--out", "gs://b/a run")
    printed = commands(bash("launch/tpu_pod.sh", "all", *POD, "--project", "p", "--spot", "--", *train))
    gcloud = [line for line in printed if line.startswith("gcloud")]
    assert [" ".join(line.split()[3:5]) for line in gcloud] == ["tpu-vm create", "tpu-vm scp", *["tpu-vm ssh"] * 4]
    assert "git" in printed[1] and "archive" in printed[1]
    assert "--accelerator-type=v5litepod-256" in gcloud[0] and "--spot" in gcloud[0]
    assert all("uni" in line and "--zone=us-west4-a --project=p" in line for line in gcloud)
    assert all("--worker=all" in line for line in gcloud[1:])
    assert "launch/install.sh tpu" in gcloud[-2]
    assert "UNIAUDIO_DISTRIBUTED=auto" in gcloud[-1] and r"gs://b/a\ run" in gcloud[-1]


def test_a_queued_pod_is_waited_for():
    printed = commands(
        bash("launch/tpu_pod.sh", "create", *POD, "--queued", "--type", "v5p-64", "--version", "v2-alpha-tpuv5")
    )
    assert [" ".join(line.split()[3:5]) for line in printed] == ["queued-resources create", "queued-resources describe"]
    assert "--accelerator-type=v5p-64 --runtime-version=v2-alpha-tpuv5" in printed[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("status",), "tpu-vm describe uni"),
        (("status", "--queued"), "queued-resources describe uni"),
        (("delete",), "tpu-vm delete uni --quiet"),
        (("delete", "--queued"), "queued-resources delete uni --force --quiet"),
    ],
)
def test_status_and_delete_follow_the_way_of_creation(arguments, expected):
    assert commands(bash("launch/tpu_pod.sh", *arguments, *POD)) == [
        f"gcloud compute tpus {expected} --zone=us-west4-a"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*POD,), "which action?"),
        (("start", *POD), "unknown action 'start'"),
        (("create", "copy", *POD), "one action at a time: got 'create' and 'copy'"),
        (("create", "--name", "uni", "--dry-run"), "--zone is missing"),
        (("create", "--zone", "z", "--dry-run"), "--name is missing"),
        (("create", *POD, "--zones", "z"), "unknown option '--zones'"),
        (("create", *POD, "--type"), "--type needs a value"),
        (("create", "--name", "--zone", "z"), "--name needs a value"),
        (("run", *POD), "'run' needs a command after --"),
        (("create", *POD, "--", "true"), "'create' takes no command"),
    ],
)
def test_a_mistake_in_pod_options_is_one_line(arguments, message):
    run = bash("launch/tpu_pod.sh", *arguments)
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1 and message in run.stderr


def test_a_pod_without_gcloud_is_refused(tmp_path):
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    run = bash("launch/tpu_pod.sh", "status", "--name", "uni", "--zone", "z", path=str(tmp_path))
    assert run.returncode == 2 and "gcloud is not installed" in run.stderr


def test_slurm_installs_then_runs_one_task_per_gpu(tmp_path):
    config = tmp_path / "c.py"
    config.touch()
    printed = commands(bash("launch/gpu_slurm.sbatch", "--dry-run", str(config), "--out", "RUN", "--train.steps", "7"))
    assert printed[0] == "bash launch/install.sh cuda"
    assert printed[1].startswith("srun ") and "--gpu-bind=none" in printed[1]
    assert printed[1].endswith(f"-m uniaudio_jax.train {config} --out RUN --train.steps 7")
    script = (ROOT / "launch/gpu_slurm.sbatch").read_text()
    header = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", script, re.MULTILINE))
    assert header["ntasks-per-node"] == header["gpus-per-node"]


def test_a_slurm_job_runs_in_the_folder_it_was_submitted_from(tmp_path):
    script = shutil.copy(ROOT / "launch/gpu_slurm.sbatch", tmp_path / "slurm_script")
    words = (str(script), "--dry-run", "configs/paper.py", "--out", "RUN")
    run = bash(*words, folder=tmp_path, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(ROOT))
    assert commands(run)[0] == "bash launch/install.sh cuda"
    run = bash(*words, folder=tmp_path, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(tmp_path))
    assert run.returncode == 2 and run.stderr.startswith(f"error: {tmp_path} is not the checkout")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dry-run",), "no config"),
        (("--dry-run", "nowhere.py"), "nowhere.py: no such config file"),
        (("nowhere.py",), "not in a SLURM job; submit it"),
    ],
)
def test_a_mistake_in_a_slurm_job_is_one_line(arguments, message):
    run = bash("launch/gpu_slurm.sbatch", *arguments)
    assert run.returncode == 2 and run.stdout == "" and message in run.stderr and run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("launch/install.sh", "tests"),
            "unknown extra 'tests'; known: quickstart torch test dev voices metrics plan plan_gpu wandb aim trackio "
            "beam tpu cuda",
        ),
        (("launch/quickstart.sh", "--cleen"), "unknown option '--cleen'; known: --install-only --clean"),
    ],
)
def test_an_unknown_word_names_the_known_ones(arguments, message):
    run = bash(*arguments)
    assert run.returncode != 0 and run.stderr == f"error: {message}\n"


@pytest.mark.parametrize(("folder", "holds"), [(".", "checkout"), ("..", "checkout"), ("../home", "home")])
def test_clean_never_deletes_the_checkout_or_home(tmp_path, folder, holds):
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "launch", checkout / "launch")
    (tmp_path / "home").mkdir()
    run = bash("launch/quickstart.sh", "--clean", folder=checkout, RUN=folder, HOME=str(tmp_path / "home"))
    assert run.returncode != 0 and f"which holds {'this' if holds == 'checkout' else 'your'} {holds}" in run.stderr
    assert (checkout / "launch/quickstart.sh").exists() and (tmp_path / "home").exists()


def test_every_package_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    files = [(ROOT / name).read_text().splitlines() for name in ("requirements.txt", "launch/no_deps.txt")]
    extras = project["project"]["optional-dependencies"].values()
    lines = [
        line for group in (*files, *extras) for line in group if line and not line.startswith(("#", "uniaudio_jax["))
    ]
    assert len(lines) > 80
    assert [line for line in lines if "==" not in line.split(";")[0]] == []


BUILD = ("--", "--corpus", "a corpus", "--task", "tts", "--out", "tokens")


def test_each_beam_runner_gets_its_own_options():
    runners = {
        ("direct", "--workers", "3"): ("DirectRunner", "--direct_num_workers=3"),
        ("dataflow", "--project", "p", "--region", "r", "--bucket", "gs://b", "--image", "i"): (
            "DataflowRunner",
            "--project=p",
            "--temp_location=gs://b/temp",
            "--sdk_container_image=i",
        ),
        ("flink", "--master", "h:8081", "--image", "i"): ("FlinkRunner", "--flink_master=h:8081"),
        ("spark", "--master", "h:8099", "--image", "i"): ("PortableRunner", "--job_endpoint=h:8099"),
    }
    for arguments, wanted in runners.items():
        (command,) = commands(bash("launch/encode_beam.sh", *arguments, "--dry-run", *BUILD))
        words = shlex.split(command)
        assert words[1:11] == ["-m", "data_pipelines.builder", *BUILD[1:], "--runner", wanted[0]]
        assert set(wanted[1:]) <= {word.removeprefix("--beam-options=") for word in words}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dataflow", "--project", "p", *BUILD), "dataflow needs --region"),
        (("direct",), "no options of the builder"),
        (("beam", *BUILD), "unknown word 'beam'"),
    ],
)
def test_a_mistake_with_beam_is_one_clear_line(arguments, message):
    run = bash("launch/encode_beam.sh", *arguments)
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and message in run.stderr
