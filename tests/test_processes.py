"""Laws of a training in several processes: any number of them trains the run that one trains, and each of them refuses
what does not fit."""

import hashlib
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipelines.batches import Rows, open_training_data
from data_pipelines.views import View
from tests.small_run import REPO, environment, finish, free_address, losses, write_run
from uniaudio_jax.bench.lives import Training
from uniaudio_jax.bench.soak import weights
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import MeshConfig, RunConfig
from uniaudio_jax.config_files import load_config
from uniaudio_jax.model.uniaudio import ModelDefinition
from uniaudio_jax.sharding import make_mesh, row_share

RECORDED = """
import hashlib, sys
from uniaudio_jax import train
place, log = train.place_batch, open(sys.argv.pop(1), "w", buffering=1)

def placed(batch, mesh):
    print(*(hashlib.sha256(row.tobytes()).hexdigest() for row in batch.tokens), file=log)
    return place(batch, mesh)

train.place_batch = placed
train.main()
"""
"""A training that writes the hashes of the rows of each of its batches to the file of its first argument."""
ALL = ("--train.save-every-steps", 1, "--train.keep-checkpoints", 100)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("processes"))


def start(config: Path, run: Path, steps: int, devices: list[int], *words: object) -> list[subprocess.Popen]:
    """One training up to a step, in as many processes as numbers of devices; the rows of each are logged in RUN.n."""
    command = [config, "--out", run, "--train.steps", steps, *ALL, "--distributed.coordinator", free_address()]
    command += ["--distributed.processes", len(devices), *words, "--distributed.process"]
    return [
        subprocess.Popen(
            [sys.executable, "-c", RECORDED, f"{run}.{number}", *map(str, command), str(number)],
            cwd=REPO,
            env=environment(count),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number, count in enumerate(devices)
    ]


def train(*given) -> None:
    for process in start(*given):
        finish(process)


class Examples:
    """What the plan of a config puts into each step: the ids of the examples of a row by the hash of its tokens."""

    def __init__(self, config: Path):
        run = load_config(config, RunConfig)
        codec = load_codec(run.codec or "").passport()
        rows: Rows = open_training_data(run.data, "target", run.model.ids, run.model.text_width, codec, 0, 1).rows
        self.of_row: dict[str, list[str]] = {}
        self.of_step: list[Counter[str]] = []
        for step in range(11):
            numbers = range(step * run.data.rows, (step + 1) * run.data.rows)
            planned = {_hash(rows[number].tokens): self._ids(rows, number) for number in numbers}
            self.of_row |= planned
            self.of_step.append(Counter(sum(planned.values(), [])))

    def _ids(self, rows: Rows, number: int) -> list[str]:
        ids = []
        for member in rows.plan.row(number):
            view = rows.sources[member.source].records
            assert isinstance(view, View)
            ids.append(f"{view.name}/{view.about(member.record)[0]}")
        return ids

    def seen(self, run: Path, processes: int, steps: int) -> list[Counter[str]]:
        """The ids of the examples that the last training of a run has placed in each of its steps, each row once."""
        logs = [Path(f"{run}.{number}").read_text().splitlines()[:steps] for number in range(processes)]
        rows = [set(" ".join(lines).split()) for lines in zip(*logs, strict=True)]
        return [Counter(sum((self.of_row[row] for row in step), [])) for step in rows]


def _hash(tokens: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(tokens).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def examples(config) -> Examples:
    return Examples(config)


@pytest.fixture(scope="module")
def alone(config) -> Path:
    """Seven steps in one process."""
    run = config.parent / "alone"
    train(config, run, 7, [1])
    return run


@pytest.fixture(scope="module")
def four(config) -> Path:
    """Three steps in four processes."""
    run = config.parent / "four"
    train(config, run, 3, [1, 1, 1, 1], "--mesh.fsdp", 2)
    return run


def assert_same(config: Path, one: Path, other: Path, step: int) -> None:
    """The losses up to this step and the weights after it are equal."""
    assert list(losses(other)) == list(range(1, step + 1))
    for number, loss in losses(other).items():
        assert loss == pytest.approx(losses(one)[number], rel=1e-5)
    shapes = ModelDefinition(load_config(config, RunConfig).model).shapes()
    both = (weights(Training(run, (), run), step, shapes) for run in (one, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), *both)


@pytest.mark.slow
def test_one_two_and_four_processes_see_the_same_examples_and_train_the_same_weights(config, alone, four, examples):
    two = config.parent / "two"
    train(config, two, 3, [1, 1], "--mesh.tensor", 2)
    assert examples.seen(alone, 1, 7) == examples.of_step[:7]
    for run, processes in ((two, 2), (four, 4)):
        assert examples.seen(run, processes, 3) == examples.of_step[:3]
        assert_same(config, alone, run, 3)


@pytest.mark.slow
def test_a_run_of_four_processes_goes_on_in_two_and_in_one_with_the_same_stream_of_examples(
    config, alone, four, examples
):
    train(config, four, 5, [1, 1], "--mesh.fsdp", 2)
    assert examples.seen(four, 2, 2) == examples.of_step[3:5]
    train(config, four, 7, [1])
    assert examples.seen(four, 1, 2) == examples.of_step[5:7]
    assert_same(config, alone, four, 7)


@dataclass(frozen=True)
class Device:
    """All that a mesh asks of a device."""

    id: int
    process_index: int
    platform: str = "cpu"


@pytest.mark.parametrize(
    ("processes", "devices", "mesh", "shares"),
    [
        (3, 2, MeshConfig(), [(0, 3), (1, 3), (2, 3)]),
        (3, 2, MeshConfig(fsdp=3, tensor=2), [(0, 3), (1, 3), (2, 3)]),
        (4, 1, MeshConfig(tensor=2), [(0, 2), (0, 2), (1, 2), (1, 2)]),
        (4, 3, MeshConfig(tensor=6), [(0, 2), (0, 2), (1, 2), (1, 2)]),
        (2, 3, MeshConfig(tensor=6), [(0, 1), (0, 1)]),
    ],
)
def test_processes_bring_the_rows_that_their_devices_hold(processes, devices, mesh, shares, monkeypatch):
    mesh = make_mesh(mesh, [Device(number, number // devices) for number in range(processes * devices)])
    for process, share in enumerate(shares):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        row_share.cache_clear()
        assert row_share(mesh) == share


@pytest.mark.parametrize(
    ("devices", "words", "message"),
    [
        ([1, 3], ("--mesh.data", 4), "local devices: 1 on process 0, 3 on process 1; start all of them with the same"),
        pytest.param([1, 1], ("--mesh.fsdp", 3), "fsdp=3 x tensor=1: got 2 devices; choose", marks=pytest.mark.slow),
        pytest.param([1, 1], ("--data.rows", 5), "size 5 does not divide over the 2 parts", marks=pytest.mark.slow),
        pytest.param(
            [3, 3],
            ("--data.rows", 6, "--mesh.tensor", 2),
            "its 3 parts of the rows do not divide over 2 processes of 3 devices; choose a mesh.tensor that divides",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_devices_and_rows_that_do_not_fit_are_refused_by_every_process(devices, words, message, config, tmp_path):
    for process in start(config, tmp_path / "run", 3, devices, *words):
        _, err = finish(process, code=2)
        assert message in err.splitlines()[0] and "Traceback" not in err and "Check failure" not in err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
