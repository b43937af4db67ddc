"""Laws of joining: who asks for several processes, and what jax is then told."""

import jax
import pytest

from uniaudio_jax.distributed import DistributedOptions, ProcessInfo, asked_by, join

SLURM_STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-3]",
    "SLURM_STEP_NUM_NODES": "3",
    "SLURM_NTASKS": "5",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
FLAGS = DistributedOptions(coordinator="10.0.0.1:8476", processes=3, process=2)


@pytest.fixture
def initialised(monkeypatch):
    """The arguments of every call of jax.distributed.initialize, which does nothing else."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "single"),
        (SLURM_STEP, "slurm"),
        (SLURM_STEP | {"SLURM_NTASKS": "1"}, "single"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "5", "SLURM_PROCID": "0"}, "single"),  # a batch script outside srun
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, "single"),
        ({"TPU_WORKER_HOSTNAMES": "t0,t1,t2"}, "tpu"),
        ({"TPU_PROCESS_ADDRESSES": "t0:8471,t1:8471"}, "tpu"),
        ({"TPU_WORKER_HOSTNAMES": "t0", "MEGASCALE_NUM_SLICES": "2"}, "tpu"),
        ({"MEGASCALE_NUM_SLICES": "1"}, "single"),
        ({"UNIAUDIO_DISTRIBUTED": "auto"}, "auto"),
        ({"UNIAUDIO_DISTRIBUTED": ""}, "single"),
    ],
)
def test_the_environment_decides_without_flags(environment, expected):
    assert asked_by(DistributedOptions(), environment) == expected


@pytest.mark.parametrize("environment", [{}, SLURM_STEP, {"UNIAUDIO_DISTRIBUTED": "auto"}])
def test_flags_go_before_the_environment(environment):
    assert asked_by(FLAGS, environment) == "flags"
    assert asked_by(DistributedOptions(processes=1), environment) == "single"


def test_an_unknown_word_in_the_environment_is_refused():
    with pytest.raises(ValueError, match="UNIAUDIO_DISTRIBUTED: got 'yes', wanted auto"):
        asked_by(DistributedOptions(), {"UNIAUDIO_DISTRIBUTED": "yes"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"processes": 3}, "wanted all three or none"),
        ({"coordinator": "a:1", "processes": 3}, "wanted all three or none"),
        ({"process": 0}, "wanted all three or none"),
        ({"coordinator": "a", "processes": 3, "process": 0}, "got 'a', wanted HOST:PORT"),
        ({"coordinator": "a:70000", "processes": 3, "process": 0}, "got 'a:70000', wanted HOST:PORT"),
        ({"coordinator": ":5", "processes": 3, "process": 0}, "got ':5', wanted HOST:PORT"),
        ({"coordinator": "a:5", "processes": 3, "process": 3}, "got process=3 of processes=3"),
        ({"coordinator": "a:5", "processes": 3, "process": -1}, "got process=-1 of processes=3"),
        ({"coordinator": "a:5", "processes": 0, "process": 0}, "got process=0 of processes=0"),
    ],
)
def test_flags_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DistributedOptions(**fields)


def test_a_single_process_starts_nothing(initialised):
    assert join(DistributedOptions(), {}) == ProcessInfo(0, 1, "single")
    assert join(DistributedOptions(coordinator="a:5", processes=1, process=0), {}) == ProcessInfo(0, 1, "single")
    assert initialised == []


def test_flags_are_what_jax_is_told(initialised):
    assert join(FLAGS, {}).how == "flags"
    assert initialised == [("10.0.0.1:8476", 3, 2)]


def test_a_cluster_is_left_to_the_detection_of_jax(initialised):
    assert [join(DistributedOptions(), e).how for e in (SLURM_STEP, {"UNIAUDIO_DISTRIBUTED": "auto"})] == [
        "slurm",
        "auto",
    ]
    assert initialised == [(), ()]


def test_devices_are_asked_for_only_after_joining(monkeypatch):
    order = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_: order.append("initialize"))
    monkeypatch.setattr(jax, "process_index", lambda: order.append("index") or 2)
    monkeypatch.setattr(jax, "process_count", lambda: order.append("count") or 3)
    assert join(FLAGS, {}) == ProcessInfo(2, 3, "flags")
    assert order[0] == "initialize"


def test_only_process_zero_is_first():
    assert [ProcessInfo(index, 2, "flags").is_first for index in range(2)] == [True, False]
