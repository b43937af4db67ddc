"""Laws of the launch scripts: dry runs print what was recorded, mistakes end with one clear line, files are whole.

tests/golden/launch/ holds a file for each recorded dry run: a command, and all that it prints. After a change that is
meant, `python -m tests.test_launch` records them again; a file with a new command alone adds one.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from uniaudio_jax.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
STAND_INS = ROOT / "tests/stand_ins"
SCRIPTS = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("launch/*.sh"), *ROOT.glob("launch/*.sbatch")))
RECORDED = sorted(ROOT.glob("tests/golden/launch/*.txt"))
POD = "--name uni --zone us-west4-a --dry-run"
GKE = "--name uni --cluster c --zone z --image i --dry-run"


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


def dry_run(command: str) -> str:
    """What a file of tests/golden/launch/ holds: the command and its output, with neutral names of folders."""
    run = bash("-c", command, TMPDIR="/tmp")
    assert run.returncode == 0, run.stderr
    output = re.sub(r"/tmp/tmp\.\w+", "SCRATCH", run.stdout)
    return f"$ {command}\n{output.replace(str(ROOT), 'CHECKOUT')}"


def recorded_command(path: Path) -> str:
    return path.read_text().partition("\n")[0].removeprefix("$ ")


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_dry_run_prints_what_was_recorded(path):
    assert dry_run(recorded_command(path)) == path.read_text()


def test_every_action_of_every_launcher_is_recorded():
    commands = "\n".join(recorded_command(path) for path in RECORDED)
    assert {str(script) for script in SCRIPTS if "--dry-run" in (ROOT / script).read_text()} - {
        "launch/common.sh"
    } == set(re.findall(r"launch/\w+\.(?:sh|sbatch)", commands))
    for script in ("tpu_pod", "tpu_worker", "gke_xpk"):
        (words,) = re.findall(r"which action\? one of: (.*)\"", (ROOT / f"launch/{script}.sh").read_text())
        assert set(words.split()) == set(re.findall(rf"launch/{script}\.sh (\w+)", commands))


def test_every_script_passes_shellcheck():
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shellcheck = shutil.which("shellcheck", path=places)
    assert shellcheck, "there is no shellcheck; install the extra test: bash launch/install.sh test"
    scripts = [*SCRIPTS, Path(".ci/run"), *(path for path in STAND_INS.iterdir() if path.name != "srun")]
    run = subprocess.run([shellcheck, *scripts], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


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


def test_the_quickstart_is_heard_first_and_then_learns_a_voice(tmp_path):
    log = copy_with_fake_python(tmp_path, {})
    run = bash("launch/quickstart.sh", "--text", "It's mine.", folder=tmp_path)
    assert run.returncode == 0 and "results in runs/quickstart" in run.stdout
    calls = [call.split(" ") for call in log.read_text().splitlines()]
    modules = ["uniaudio_jax.tour", "data_pipelines.synthetic", "data_pipelines.builder"]
    modules += [f"uniaudio_jax.{name}" for name in ("train", "evaluate", "report", "export_torch")]
    assert [call[1] for call in calls[1:]] == modules
    assert calls[1][2:5] == ["--text", "It's", "mine."] and "configs/new_voice.py" in calls[4]


def test_the_quickstart_from_scratch_builds_and_generates_the_eleven_tasks_of_the_paper(tmp_path):
    log = copy_with_fake_python(tmp_path, {})
    run = bash("launch/quickstart.sh", "--from-scratch", folder=tmp_path, RUN="results")
    assert run.returncode == 0 and f"results in {tmp_path / 'results'}" in run.stdout
    calls = [shlex.split(call) for call in log.read_text().splitlines()]
    modules = ["data_pipelines.synthetic", "data_pipelines.builder"]
    modules += [f"uniaudio_jax.{name}" for name in ("train", "generate", "evaluate", "report", "export_torch")]
    assert calls[0] == ["install", "quickstart", "report", "metrics"]
    assert list(dict.fromkeys(call[1] for call in calls[1:])) == modules
    for module in ("data_pipelines.builder", "uniaudio_jax.generate"):
        words = [word for call in calls if call[1] == module for word in call]
        assert {word.rpartition(":")[2] for word in words} & set(TASKS) == set(list(TASKS)[:11])


def test_a_failed_stage_of_the_quickstart_is_named_and_ends_it(tmp_path):
    log = copy_with_fake_python(tmp_path, {"uniaudio_jax.train": 3})
    run = bash("launch/quickstart.sh", folder=tmp_path)
    assert run.returncode == 3 and run.stderr.startswith("error: stage 4/7 train failed")
    assert "uniaudio_jax.train" in log.read_text().splitlines()[-1]


MISTAKES = {
    f"tpu_pod.sh {POD}": "which action?",
    f"tpu_pod.sh start {POD}": "unknown action 'start'",
    f"tpu_pod.sh create copy {POD}": "one action at a time: got 'create' and 'copy'",
    "tpu_pod.sh create --name uni --dry-run": "--zone is missing",
    "tpu_pod.sh create --zone z --dry-run": "--name is missing",
    f"tpu_pod.sh create {POD} --zones z": "unknown option '--zones'",
    f"tpu_pod.sh create {POD} --type": "--type needs a value",
    "tpu_pod.sh create --name --zone z": "--name needs a value",
    f"tpu_pod.sh run {POD}": "'run' needs a command after --",
    f"tpu_pod.sh create {POD} -- true": "'create' takes no command",
    f"tpu_pod.sh loop {POD} --retries many -- true": "--retries: got 'many', wanted a whole number",
    "tpu_worker.sh": "which action?",
    "tpu_worker.sh start": "unknown action 'start'",
    "tpu_worker.sh run --dry-run -- true": "--attempt is missing",
    "tpu_worker.sh run --dry-run --attempt A": "'run' needs a command after --",
    f"gke_xpk.sh {GKE}": "which action?",
    f"gke_xpk.sh start {GKE}": "unknown action 'start'",
    f"gke_xpk.sh create {GKE}": "'create' needs a command after --",
    f"gke_xpk.sh logs {GKE} -- true": "'logs' takes no command",
    "gke_xpk.sh create --name uni --image i --dry-run -- true": "'create' needs --cluster",
    "gke_xpk.sh manifest --name uni --dry-run -- true": "'manifest' needs --image",
    f"gke_xpk.sh create {GKE} --slices 0 -- true": "--slices: got '0', wanted a whole number from 1",
    f"gke_xpk.sh manifest {GKE} --topology 16 -- true": "--topology: got '16', wanted such as 16x16",
    f"gke_xpk.sh manifest {GKE} --topology 3x3 -- true": "3x3 does not divide into hosts of 4 chips",
    "gpu_slurm.sbatch --dry-run": "no config",
    "gpu_slurm.sbatch --dry-run nowhere.py": "nowhere.py: no such config file",
    "gpu_slurm.sbatch configs/paper.py": "not in a SLURM job; submit it",
    "gpu_slurm.sbatch --dry-run --module": "there is no module ''",
    "gpu_slurm.sbatch --dry-run --module uniaudio_jax.trian configs/paper.py": "no module 'uniaudio_jax.trian'",
    "encode_beam.sh dataflow --project p -- --corpus c": "dataflow needs --region",
    "encode_beam.sh direct": "no options of the builder",
    "encode_beam.sh beam -- --corpus c": "unknown word 'beam'",
    "install.sh tests": "unknown extra 'tests'; known: quickstart torch ",
    "quickstart.sh --cleen": "unknown option '--cleen'; known: --text --install-only --clean --from-scratch",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line(words):
    run = bash("-c", f"bash launch/{words}")
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1 and MISTAKES[words] in run.stderr


@pytest.mark.parametrize(
    ("words", "program"),
    [
        ("tpu_pod.sh status --name uni --zone z", "gcloud"),
        ("gke_xpk.sh status --name uni --cluster c --zone z", "xpk"),
        ("gke_xpk.sh logs --name uni", "kubectl"),
    ],
)
def test_a_launcher_without_its_program_is_refused(tmp_path, words, program):
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    script, *arguments = words.split()
    run = bash(f"launch/{script}", *arguments, path=str(tmp_path))
    assert run.returncode == 2 and run.stderr.startswith(f"error: {program} is not installed; install ")


def test_a_slurm_job_runs_in_the_folder_it_was_submitted_from(tmp_path):
    script = shutil.copy(ROOT / "launch/gpu_slurm.sbatch", tmp_path / "slurm_script")
    words = (str(script), "--dry-run", "configs/paper.py", "--out", "RUN")
    run = bash(*words, folder=tmp_path, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(ROOT))
    assert run.stdout.startswith("+ bash launch/install.sh cuda\n")
    run = bash(*words, folder=tmp_path, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(tmp_path))
    assert run.returncode == 2 and run.stderr.startswith(f"error: {tmp_path} is not the checkout")


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
    files = [
        (ROOT / name).read_text().splitlines()
        for name in ("requirements.txt", "launch/no_deps.txt", "launch/judges.txt")
    ]
    extras = project["project"]["optional-dependencies"].values()
    lines = [
        line for group in (*files, *extras) for line in group if line and not line.startswith(("#", "uniaudio_jax["))
    ]
    assert len(lines) > 80
    assert [line for line in lines if "==" not in line.split(";")[0]] == []


def test_slurm_gives_each_task_a_gpu_and_takes_a_stopped_job_back():
    script = (ROOT / "launch/gpu_slurm.sbatch").read_text()
    header = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", script, re.MULTILINE))
    assert header["ntasks-per-node"] == header["gpus-per-node"]
    assert header["signal"] == "TERM@120" and "requeue" in header


def manifest(*words: str, topology: str = "16x16") -> dict[str, Any]:
    """The JobSet for a command of these words."""
    arguments = ("manifest", "--name", "uni", "--image", "i", "--slices", "3", "--topology", topology, "--", *words)
    run = bash("launch/gke_xpk.sh", *arguments)
    assert run.returncode == 0, run.stderr
    return yaml.safe_load(run.stdout)


@pytest.mark.parametrize(("topology", "hosts"), [("2x2", 1), ("16x16", 64), ("4x4x8", 32)])
def test_a_jobset_restarts_slices_that_were_preempted_and_not_mistakes(topology, hosts):
    spec = manifest("true", topology=topology)["spec"]
    assert spec["failurePolicy"]["maxRestarts"] == 50
    assert spec["failurePolicy"]["rules"] == [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]
    (slices,) = spec["replicatedJobs"]
    job = slices["template"]["spec"]
    assert slices["replicas"] == 3 and job["completions"] == job["parallelism"] == hosts and job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    (rule,) = job["podFailurePolicy"]["rules"]
    codes = {"containerName": container["name"], "operator": "In", "values": [2]}
    assert rule == {"action": "FailJob", "onExitCodes": codes} and pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == 120
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology
    assert container["command"] == ["python", "launch/worker.py"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}


def test_a_jobset_passes_each_word_on_as_it_is():
    words = ["python", "a run", 'a "quoted" one', "back\\slash", "$HOME ${NAME} & | ; '", "{x: [1]}"]
    (slices,) = manifest(*words)["spec"]["replicatedJobs"]
    (container,) = slices["template"]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == words


def test_the_variables_of_the_jobset_are_those_that_its_head_names():
    text = (ROOT / "launch/jobset.yaml").read_text()
    head, _, body = text.partition("apiVersion")
    assert set(re.findall(r"\$\{(\w+)\}", body)) == set(re.findall(r"\b([A-Z]+)=", head))


@pytest.mark.parametrize(
    ("platform", "nodes", "place"),
    [
        ("tpu", "1", ""),
        ("cuda", "1", ""),
        ("cuda", "2", "--distributed.coordinator 10.0.0.3:8476 --distributed.processes 2 --distributed.process 1"),
    ],
)
def test_skypilot_runs_the_command_and_tells_nodes_their_place(tmp_path, platform, nodes, place):
    job = yaml.safe_load((ROOT / "launch/skypilot.yaml").read_text())
    assert job["resources"]["use_spot"] and {75, 134} <= set(job["resources"]["job_recovery"]["recover_on_exit_codes"])
    assert job["envs"] == {"COMMAND": None, "PLATFORM": "tpu", "EXTRAS": ""}
    assert job["setup"].endswith("bash launch/install.sh $PLATFORM $EXTRAS\n")
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    (tmp_path / "launch/tpu_worker.sh").write_text('[[ $* == clean ]] && echo "$*" >cleaned\n')
    variables = {"SKYPILOT_NUM_NODES": nodes, "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.3\n10.0.0.5"}
    shown = r"""bash -c 'printf "%s\n" "$UNIAUDIO_DISTRIBUTED" "$@"' bash 'a b'"""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    run = bash("-c", job["run"], folder=tmp_path, path=path, COMMAND=shown, PLATFORM=platform, **variables)
    assert run.stdout.splitlines() == [{"tpu": "auto", "cuda": ""}[platform], "a b", *place.split()], run.stderr
    assert (tmp_path / "cleaned").exists() == (platform == "tpu")


def test_the_image_needs_only_what_is_copied_into_it():
    """Docker itself is not asked: each file, extra and variable that the Dockerfile names is there."""
    steps = re.sub(r"\\\n", "", (ROOT / "launch/docker/Dockerfile").read_text())
    lines = [line for line in steps.splitlines() if line and not line.startswith("#")]
    left_out = set((ROOT / ".dockerignore").read_text().split("\n")[1:])
    assert [line.split()[0] for line in lines] == "FROM ARG ARG RUN WORKDIR COPY RUN ENV ENTRYPOINT CMD".split()
    assert not {path.split("/")[0] for path in re.findall(r"launch/\S+?\.sh", steps)} & left_out
    assert all((ROOT / path).is_file() for path in re.findall(r"launch/\w+\.sh", steps))
    needed = ["launch", "uniaudio_jax", "data_pipelines", "configs", "pyproject.toml", "requirements.txt", "README.md"]
    assert not set(needed) & left_out
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"tpu", "cuda"} < set(extras) and "${PLATFORM#cpu} ${EXTRAS}" in steps
    assert json.loads(lines[-2].removeprefix("ENTRYPOINT ")) == ["python", "launch/worker.py"]


if __name__ == "__main__":
    for path in RECORDED:
        path.write_text(dry_run(recorded_command(path)))
