"""Laws of joining and leaving: who asks for several processes, what jax is then told, and how each fault is told to
the user and to the other processes."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from jax._src import cloud_tpu_init
from jax._src.clusters import K8sCluster, cloud_tpu_cluster, cluster

from tests.small_run import REPO, environment, finish, free_address
from tests.tiny import TRAIN
from uniaudio_jax import distributed
from uniaudio_jax.distributed import DistributedOptions, ProcessInfo, asked_by, join
from uniaudio_jax.leaving import leave
from uniaudio_jax.rendezvous import differences, meet

SLURM_STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-3]",
    "SLURM_STEP_NUM_NODES": "3",
    "SLURM_NTASKS": "5",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
FLAGS = DistributedOptions(coordinator="10.0.0.1:8477", processes=3, process=2)
RUN = Path("run")
ONE_SLICE = {"TPU_WORKER_HOSTNAMES": "train-0.tpu,train-1.tpu,train-2.tpu", "TPU_WORKER_ID": "2"}
SLICES = {
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "train-slice-0-0.train:8080",
}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2", "HOSTNAME": "train-workers-0-2"}
VM = {"agent-worker-number": "1", "worker-network-endpoints": "w0:id:10.0.0.5,w1:id:10.0.0.6", "tpu-env": "ZONE: 'a'"}


@pytest.fixture
def initialised(monkeypatch):
    """The arguments of every call of jax.distributed.initialize, which does nothing else; no process is waited for.
    Each call comes after a meeting at the same address of the same process."""
    met, calls = [], []

    def initialize(*places, **times):
        assert met.pop() == places
        calls.append((places, times))

    monkeypatch.setattr(distributed, "meet", lambda *places_facts_time: met.append(places_facts_time[:3]))
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(distributed, "watch", lambda: None)
    return calls


def set_environment(monkeypatch, environment: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.fixture
def tpu_vm(monkeypatch) -> dict[str, str]:
    """This machine as one with TPUs, whose metadata server knows what the dict, still empty, will hold."""
    metadata: dict[str, str] = {}
    for module in (cloud_tpu_init, cluster, cloud_tpu_cluster):
        monkeypatch.setattr(module, "running_in_cloud_tpu_vm", True)
    answer = lambda key: (metadata[key], 200) if key in metadata else ("not found", 404)  # noqa: E731
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", answer)
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "10.0.0.5")
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    return metadata


@pytest.fixture
def job_set(monkeypatch) -> SimpleNamespace:
    """The Job of a JobSet of three pods, of which this is one, as Kubernetes describes it."""
    labels = {"jobset.sigs.k8s.io/jobset-name": "train"}
    job = SimpleNamespace(
        metadata=SimpleNamespace(name="train-workers-0", labels=labels), spec=SimpleNamespace(parallelism=3)
    )
    controller = SimpleNamespace(controller=True, kind="Job")
    pod = SimpleNamespace(
        metadata=SimpleNamespace(labels={"job-name": job.metadata.name}, owner_references=[controller])
    )
    core = SimpleNamespace(list_namespaced_pod=lambda **_: SimpleNamespace(items=[pod]))
    batch = SimpleNamespace(read_namespaced_job=lambda **_: job)
    client = SimpleNamespace(
        CoreV1Api=lambda: core, BatchV1Api=lambda: batch, exceptions=SimpleNamespace(ApiException=OSError)
    )
    config = SimpleNamespace(load_incluster_config=lambda: None)
    monkeypatch.setitem(sys.modules, "kubernetes", SimpleNamespace(client=client, config=config))
    monkeypatch.setattr(K8sCluster, "_namespace", classmethod(lambda _: "default"))
    for name in ("_pod", "_job", "_controller"):
        getattr(K8sCluster, name).cache_clear()
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "10.0.0.7")
    return job


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
        (ONE_SLICE | SLICES, "tpu"),
        (KUBERNETES, "kubernetes"),
        (KUBERNETES | ONE_SLICE, "tpu"),
        (KUBERNETES | {"TPU_WORKER_HOSTNAMES": "localhost"}, "single"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "single"),
        ({"UNIAUDIO_DISTRIBUTED": "auto"}, "auto"),
        ({"UNIAUDIO_DISTRIBUTED": ""}, "single"),
    ],
)
def test_the_environment_decides_without_flags(environment, expected):
    assert asked_by(DistributedOptions(), environment) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "tpu-vm"),
        ({"JAX_PLATFORMS": "tpu,cpu"}, "tpu-vm"),
        ({"JAX_PLATFORMS": "cpu"}, "single"),
        ({"TPU_SKIP_MDS_QUERY": "1"}, "single"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, "single"),
        (ONE_SLICE, "tpu"),
    ],
)
def test_a_machine_with_tpus_may_be_one_of_a_slice_unless_the_environment_says_otherwise(environment, expected, tpu_vm):
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
        ({"port": 0}, "DistributedOptions.port: got 0, wanted 1 to 65535"),
        ({"coordinator": "a:5", "processes": 3, "process": 0, "port": 5}, "got a coordinator too, wanted its port in"),
    ],
)
def test_flags_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DistributedOptions(**fields)


@pytest.mark.parametrize("name", ["timeout_seconds", "heartbeat_seconds"])
def test_a_wait_of_no_time_is_refused(name):
    with pytest.raises(ValueError, match=f"DistributedOptions.{name}: got 0, wanted at least 1"):
        replace(FLAGS, **{name: 0})


def test_a_single_process_starts_nothing(initialised):
    alone = DistributedOptions(coordinator="a:5", processes=1, process=0)
    assert join(DistributedOptions(), RUN, TRAIN, {}) == ProcessInfo(0, 1, "single")
    assert join(alone, RUN, TRAIN, {}) == ProcessInfo(0, 1, "single")
    assert initialised == []


def test_flags_are_what_jax_is_told(initialised):
    assert join(replace(FLAGS, timeout_seconds=7, heartbeat_seconds=11), RUN, TRAIN, {}).how == "flags"
    times = {"initialization_timeout": 7, "heartbeat_timeout_seconds": 11}
    assert initialised == [(("10.0.0.1:8477", 3, 2), times)]


@pytest.mark.parametrize("word", ["slurm", "auto"])
def test_a_slurm_step_meets_at_a_port_of_its_own_job(word, initialised, monkeypatch):
    set_environment(monkeypatch, SLURM_STEP)
    asked = SLURM_STEP if word == "slurm" else {"UNIAUDIO_DISTRIBUTED": "auto"}
    assert join(DistributedOptions(), RUN, TRAIN, asked).how == word
    assert initialised[0][0] == (f"node1:{7 + 2**16 - 2**12}", 5, 2)


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        (ONE_SLICE, ("train-0.tpu:8476", 3, 2)),
        (ONE_SLICE | SLICES, ("train-slice-0-0.train:8476", 6, 5)),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"} | SLICES, ("train-slice-0-0.train:8476", 2, 1)),
        ({"TPU_PROCESS_ADDRESSES": "t0:8471,t1:8471", "TPU_WORKER_ID": "1"}, ("t0:8476", 2, 1)),
    ],
)
def test_workers_of_tpu_slices_on_gke_find_each_other(environment, place, initialised, tpu_vm, monkeypatch):
    set_environment(monkeypatch, environment)
    assert join(DistributedOptions(), RUN, TRAIN, environment).how == "tpu"
    assert initialised[0][0] == place


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({}, ("10.0.0.5:8476", 2, 1)),
        ({"worker-network-endpoints": "w0,w1,w2"}, ("w0:8476", 3, 1)),
        (
            {"tpu-env": "\n".join(f"{key}: '{value}'" for key, value in SLICES.items())},
            ("train-slice-0-0.train:8476", 4, 3),
        ),
    ],
)
def test_tpu_vms_find_each_other_through_the_metadata_server(more, place, initialised, tpu_vm):
    tpu_vm |= VM | more
    assert join(DistributedOptions(), RUN, TRAIN, {}).how == "tpu-vm"
    assert initialised[0][0] == place


@pytest.mark.parametrize(
    "metadata", [{}, VM | {"agent-worker-number": "0", "worker-network-endpoints": "w0:id:10.0.0.5"}]
)
def test_a_tpu_vm_without_others_is_alone(metadata, initialised, tpu_vm):
    tpu_vm |= metadata
    assert join(DistributedOptions(), RUN, TRAIN, {}) == ProcessInfo(0, 1, "single")
    assert initialised == []


def test_a_metadata_server_that_does_not_answer_is_told(initialised, tpu_vm, monkeypatch):
    def fail(_):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", fail)
    with pytest.raises(ValueError, match="got ConnectionError: no route to host; .* or --distributed.processes 1 to"):
        join(DistributedOptions(), RUN, TRAIN, {})


@pytest.mark.parametrize(("pods", "place"), [(3, ("train-workers-0-0.train:8476", 3, 2)), (1, None)])
def test_pods_of_a_job_set_find_each_other(pods, place, initialised, job_set, monkeypatch):
    job_set.spec.parallelism = pods
    environment = set_environment(monkeypatch, KUBERNETES)
    assert join(DistributedOptions(), RUN, TRAIN, environment).how == ("kubernetes" if place else "single")
    assert initialised == [] or initialised[0][0] == place


def test_a_pod_without_the_package_kubernetes_is_told(initialised, monkeypatch):
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    environment = set_environment(monkeypatch, KUBERNETES)
    with (
        pytest.warns(UserWarning, match="install jax with the"),
        pytest.raises(ValueError, match="install the package kubern"),
    ):
        join(DistributedOptions(), RUN, TRAIN, environment)


@pytest.mark.parametrize(
    ("flag", "named", "address"),
    [
        (None, {"JAX_COORDINATOR_PORT": "6002"}, "node1:6002"),
        (7001, {"JAX_COORDINATOR_PORT": "6002"}, "node1:7001"),
        (7001, {}, "node1:7001"),
        (None, {"JAX_COORDINATOR_ADDRESS": "head:6003"}, "head:6003"),
        (None, {"JAX_COORDINATOR_ADDRESS": "head:6003", "JAX_COORDINATOR_PORT": "6002"}, "head:6003"),
        (None, {"JAX_COORDINATOR_ADDRESS": "head", "JAX_COORDINATOR_PORT": "6002"}, "head:6002"),
        (None, {"JAX_COORDINATOR_ADDRESS": "head"}, "head:8476"),
        (7001, {"JAX_COORDINATOR_ADDRESS": "head:6003"}, "head:7001"),
    ],
)
def test_a_port_that_is_named_is_where_the_processes_meet(flag, named, address, initialised, monkeypatch):
    environment = set_environment(monkeypatch, SLURM_STEP | named)
    join(DistributedOptions(port=flag), RUN, TRAIN, environment)
    assert initialised[0][0] == (address, 5, 2)


def test_a_port_that_is_none_is_refused(initialised, monkeypatch):
    environment = set_environment(monkeypatch, SLURM_STEP | {"JAX_COORDINATOR_PORT": "six"})
    with pytest.raises(ValueError, match="JAX_COORDINATOR_PORT: got 'node1:six', wanted HOST:PORT"):
        join(DistributedOptions(), RUN, TRAIN, environment)


def test_processes_with_other_numbers_of_devices_are_told(initialised, monkeypatch):
    held = [SimpleNamespace(process_index=process) for process in (0, 0, 0, 1, 2, 2, 2)]
    monkeypatch.setattr(jax, "devices", lambda: held)
    with pytest.raises(ValueError, match="local devices: 3 on processes 0, 2, 1 on process 1; start all of them with"):
        join(FLAGS, RUN, TRAIN, {})


def test_auto_without_a_cluster_is_refused(initialised):
    with pytest.raises(ValueError, match="jax found coordinator None, None processes"):
        join(DistributedOptions(), RUN, TRAIN, {"UNIAUDIO_DISTRIBUTED": "auto"})
    assert initialised == []


def test_devices_are_asked_for_only_after_joining(initialised, monkeypatch):
    asked_after = []
    monkeypatch.setattr(jax, "process_index", lambda: asked_after.append(len(initialised)) or 2)
    monkeypatch.setattr(jax, "process_count", lambda: asked_after.append(len(initialised)) or 3)
    assert join(FLAGS, RUN, TRAIN, {}) == ProcessInfo(2, 3, "flags")
    assert asked_after == [1, 1]


def test_only_process_zero_is_first():
    assert [ProcessInfo(index, 2, "flags").is_first for index in range(2)] == [True, False]


def meetings(address: str, facts: dict[int, dict], processes: int, seconds: float = 20) -> list[Future]:
    """The meeting of these processes, each in a thread."""
    pool = ThreadPoolExecutor(len(facts))
    return [pool.submit(meet, address, processes, number, told, seconds) for number, told in facts.items()]


def test_processes_that_agree_meet_and_leave_the_port_free():
    address = free_address()
    for _ in range(3):
        assert [met.result(30) for met in meetings(address, {n: {"steps": 7} for n in range(5)}, 5)] == [None] * 5


def test_every_process_is_told_who_differs_and_in_what():
    facts = {0: {"train.steps": 100, "jax": "1"}, 1: {"train.steps": 200, "jax": "1"}, 2: {"train.steps": 100}}
    for met in meetings(free_address(), facts, 3):
        error = str(met.exception(30))
        assert "train.steps: 100 on processes 0, 2, 200 on process 1" in error
        assert "jax: 1 on processes 0, 1, missing on process 2" in error


def test_processes_that_count_themselves_differently_are_told():
    address = free_address()
    first, second = meetings(address, {0: {}}, 2) + meetings(address, {1: {}}, 3)
    for met in (first, second):
        assert "processes: 2 on process 0, 3 on process 1" in str(met.exception(30))


def test_many_differences_are_counted():
    told = differences({0: {f"field{n}": 0 for n in range(11)}, 1: {f"field{n}": 1 for n in range(11)}})
    assert "field6" not in told and told.count(" on process 1") == 7 and "and 4 more" in told


def test_all_that_have_come_are_told_who_has_not():
    for met in meetings(free_address(), {0: {}, 2: {}}, 5, seconds=2):
        assert "of 5 processes, these have not come within 2 s: 1, 3, 4" in str(met.exception(30))


def test_of_two_processes_with_one_number_one_is_told_and_the_other_goes_on():
    address = free_address()
    zero, *same = [meetings(address, {number: {}}, 3)[0] for number in (0, 1, 1)]
    told = next(met for met in as_completed(same) if met.exception(30))
    assert f"{address}: there is a process 1 already" in str(told.exception())
    assert meetings(address, {2: {}}, 3)[0].result(30) is zero.result(30) is None
    assert [met.exception(30) for met in same].count(None) == 1


def say(address: str, line: bytes) -> None:
    """Sends a line to process 0, once it listens, and goes."""
    host, port = address.split(":")
    for _ in range(200):
        with contextlib.suppress(ConnectionRefusedError):
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(line)
                return
        time.sleep(0.05)


def test_a_process_that_is_started_again_takes_its_own_place():
    address = free_address()
    zero = meetings(address, {0: {}}, 3)[0]
    say(address, b'{"process": 1, "facts": {"steps": 3}}\n')
    say(address, b"GET / HTTP/1.1\r\n")
    # The last number to come does not make three of them while one has gone.
    second = meetings(address, {2: {}}, 3)[0]
    assert not wait([zero, second], timeout=1).done
    assert all(met.result(30) is None for met in [*meetings(address, {1: {}}, 3), second, zero])


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"{address}: process 0 cannot wait .* in use; choose another port"):
            meet(address, 2, 0, {}, 5)


JOIN = """
import ctypes, sys, time
from pathlib import Path
from uniaudio_jax.cli import main_guard
from uniaudio_jax.config import TrainConfig
from uniaudio_jax.distributed import DistributedOptions, join
address, process, steps, last = sys.argv[1:]
with main_guard():
    options = DistributedOptions(
        coordinator=address, processes=2, process=int(process), timeout_seconds=5, heartbeat_seconds=5
    )
    join(options, Path("run"), TrainConfig(steps=int(steps)))
    print("joined", flush=True)
    if last == "raise":
        input()
        raise ValueError("no room on this host")
    if last == "hold":
        ctypes.PyDLL(None).sleep(17)
        print("held", flush=True)
    if last != "return":
        time.sleep(1000)
"""


def joining(address: str, process: int, steps: int = 3, last: str = "return") -> subprocess.Popen:
    """A process that joins as one of two, and then returns, waits, holds Python's lock for longer than the heartbeat,
    or raises once it gets a line."""
    words = [sys.executable, "-c", JOIN, address, str(process), str(steps), last]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=REPO, env=environment(), text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def test_two_processes_join():
    address = free_address()
    for process in [joining(address, 1), joining(address, 0)]:
        assert finish(process)[0].startswith("joined")


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
def test_a_coordinator_that_is_not_there_is_told(host):
    address = f"{host}:{free_address().split(':')[1]}"
    _, err = finish(joining(address, 1), code=2)
    assert f"error: {address}: process 1 of 2 found no coordinator within 5 s: " in err
    assert "Traceback" not in err and "Check failure" not in err


def test_process_zero_says_who_has_not_come():
    address = free_address()
    _, err = finish(joining(address, 0), code=2)
    assert err.startswith(f"error: {address}: of 2 processes, these have not come within 5 s: 1; start each of them")
    assert "Check failure" not in err


def test_processes_of_different_configs_end_with_both_sides():
    address = free_address()
    for process in [joining(address, 0, steps=100), joining(address, 1, steps=200)]:
        out, err = finish(process, code=2)
        assert err.startswith("error: the processes differ: steps: 100 on process 0, 200 on process 1; start all")
        assert not out and "Check failure" not in err


def test_an_error_that_nobody_can_read_still_ends_the_process(monkeypatch):
    def write(_: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=write))
    with pytest.raises(SystemExit) as end:
        leave(2, "error: no room")
    assert end.value.code == 2


def joined_pair(victim: int, last: str) -> tuple[subprocess.Popen, subprocess.Popen]:
    """The victim, and the survivor, which waits; both have joined. What they say from now on comes after that."""
    address = free_address()
    processes = [joining(address, number, last=last if number == victim else "wait") for number in range(2)]
    assert [process.stdout and process.stdout.readline() for process in processes] == ["joined\n"] * 2
    return processes[victim], processes[1 - victim]


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_leaves_the_other_ends_with_its_number_its_error_and_its_code(victim):
    leaver, other = joined_pair(victim, "raise")
    assert leaver.stdin
    leaver.stdin.write("now\n")
    _, said = finish(leaver, code=2)
    _, heard = finish(other, code=2)
    assert said.startswith("error: no room on this host\nthis process leaves the run")
    assert heard == f"error: process {victim} has left the run: no room on this host; see its log\n"
    assert "Check failure" not in said


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_dies_the_other_does_too(victim):
    """jax looks every few seconds."""
    dying, other = joined_pair(victim, "wait")
    start = time.monotonic()
    dying.send_signal(signal.SIGKILL)
    finish(dying, code=-signal.SIGKILL)
    _, err = finish(other, code=-signal.SIGABRT)
    assert time.monotonic() - start < 30 and "another task died" in err


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_compiles_for_longer_than_the_heartbeat_is_heard_of_and_one_that_stands_still_is_not(victim):
    """A compilation may hold Python's lock all the time; jax's heartbeat is a thread that does not need it."""
    busy, other = joined_pair(victim, "hold")
    for process in (busy, other):
        assert process.stdin
        process.stdin.write("now\n")
    assert busy.stdout and busy.stdout.readline() == "held\n"
    assert busy.poll() is other.poll() is None
    busy.send_signal(signal.SIGSTOP)
    _, err = finish(other, code=-signal.SIGABRT)
    assert "another task died" in err
    busy.kill()
    busy.communicate()
