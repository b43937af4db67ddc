"""Joining the processes of one run into one `jax.distributed` system.

Who asks for more than one process, in this order:
1. the flags `--distributed.coordinator HOST:PORT --distributed.processes N --distributed.process I`;
2. the environment: `UNIAUDIO_DISTRIBUTED=auto` (set by launch/tpu_pod.sh), a SLURM step of more than one task, a TPU
   slice of more than one host or several slices (GKE sets TPU_WORKER_HOSTNAMES, and MEGASCALE_NUM_SLICES in a JobSet of
   several; a TPU VM asks its metadata server), or an indexed Job or a JobSet on Kubernetes. jax then finds the
   coordinator by itself.
Otherwise the process is alone and nothing is started.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax._src import cloud_tpu_init  # the detection that jax.distributed uses has no public name
from jax._src.clusters import ClusterEnv, OmpiCluster, SlurmCluster

from uniaudio_jax import __version__
from uniaudio_jax.config_files import to_dict
from uniaudio_jax.errors import require
from uniaudio_jax.files import file_sha256
from uniaudio_jax.leaving import watch
from uniaudio_jax.paths import Place
from uniaudio_jax.rendezvous import differences, meet

# What jax's own detection reads in a SLURM step. A batch script outside srun has only some of them.
_SLURM_STEP = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_TPU_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
_KUBERNETES_JOB = ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
PORT = 8476
"""Of the coordinator. jax's own, 8482 since its version 0.8.1, is closed by the firewall rule that Google makes for
some slices (v6e), which opens this one."""
ALONE = "--distributed.processes 1 to train in this process alone"
BY_HAND = "--distributed.coordinator HOST:PORT, --distributed.processes N and --distributed.process I"


@dataclass(frozen=True, kw_only=True)
class DistributedOptions:
    """Processes by hand: all three fields, or none to let the environment decide."""

    coordinator: str | None = None
    """HOST:PORT of process 0."""
    processes: int | None = None
    """How many processes there are."""
    process: int | None = None
    """The number of this process, from 0."""
    port: int | None = None
    """The coordinator's port, where the environment names its host: default JAX_COORDINATOR_PORT, else 8476. In a SLURM
    step it is made of the job's number, so that two jobs can share a node."""
    timeout_seconds: int = 300
    """How long the processes wait for each other at the start; then each says who has not come, and ends."""
    heartbeat_seconds: int = 60
    """A process that was not heard of for so long counts as dead, and all others end. One that compiles is heard of."""

    def __post_init__(self):
        for name, seconds in (("timeout", self.timeout_seconds), ("heartbeat", self.heartbeat_seconds)):
            require(f"DistributedOptions.{name}_seconds", seconds >= 1, str(seconds), "at least 1")
        if self.port is not None:
            require("DistributedOptions.port", 0 < self.port < 65536, str(self.port), "1 to 65535")
            require("DistributedOptions.port", self.coordinator is None, "a coordinator too", "its port in HOST:PORT")
        given = (self.coordinator, self.processes, self.process)
        if given == (None, None, None) or given == (None, 1, None):
            return
        if None in given:
            raise ValueError(
                f"DistributedOptions: got coordinator={self.coordinator}, processes={self.processes}, "
                f"process={self.process}; wanted all three or none: give {BY_HAND} to each process"
            )
        assert self.coordinator is not None and self.processes is not None and self.process is not None
        _check_address("DistributedOptions.coordinator", self.coordinator)
        if self.processes < 1 or not 0 <= self.process < self.processes:
            raise ValueError(
                f"DistributedOptions: got process={self.process} of processes={self.processes}, wanted at least one "
                "process, numbered from 0 to processes - 1"
            )


def _check_address(where: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(
            f"{where}: got {address!r}, wanted HOST:PORT with a port of 1 to 65535, such as 10.0.0.1:{PORT}, the same "
            "for every process"
        )


@dataclass(frozen=True)
class ProcessInfo:
    """Which process this is: `index` of `count`. `how` names who asked, as `asked_by` does."""

    index: int
    count: int
    how: str

    @property
    def is_first(self) -> bool:
        """True in the one process that prints and writes what is written once."""
        return self.index == 0


def asked_by(options: DistributedOptions, environment: Mapping[str, str]) -> str:
    """Who asks for several processes: "flags", "auto", "slurm", "tpu", "tpu-vm", "kubernetes", or "single" when nobody
    does. Of the last two, which the environment does not tell the number, there may yet be only one.

    ValueError when UNIAUDIO_DISTRIBUTED holds another word than auto.
    """
    if options.processes is not None:
        return "flags" if options.processes > 1 else "single"
    word = environment.get("UNIAUDIO_DISTRIBUTED")
    if word == "auto":
        return "auto"
    if word:
        raise ValueError(f"environment UNIAUDIO_DISTRIBUTED: got {word!r}, wanted auto, or unset it")
    if all(name in environment for name in _SLURM_STEP) and int(environment["SLURM_NTASKS"]) > 1:
        return "slurm"
    hosts = next((environment[name] for name in _TPU_HOSTS if name in environment), None)
    slices = int(environment.get("MEGASCALE_NUM_SLICES") or 1)
    if slices * len((hosts or "").split(",")) > 1:
        return "tpu"
    if hosts is None and _is_tpu_vm(environment):
        return "tpu-vm"
    if hosts is None and all(name in environment for name in _KUBERNETES_JOB):
        return "kubernetes"
    return "single"


def _is_tpu_vm(environment: Mapping[str, str]) -> bool:
    """Whether this machine has TPUs which jax may use, and a metadata server which it may ask."""
    wanted = environment.get("JAX_PLATFORMS") or "tpu"
    return cloud_tpu_init.running_in_cloud_tpu_vm and "tpu" in wanted and "TPU_SKIP_MDS_QUERY" not in environment


def join(
    options: DistributedOptions, out: Place, config: Any, environment: Mapping[str, str] = os.environ
) -> ProcessInfo:
    """Joins the other processes, if any, and says which one this is. Call it before anything touches a device.

    Raises ValueError in each process when not all of them have come within options.timeout_seconds, or when they differ
    in code, in versions, in the run folder `out`, in the run's `config`, a dataclass, or in the number of devices. From
    then on, when a process dies, jax ends the others within options.heartbeat_seconds; when one leaves after an error,
    they say so and end at once. `environment` decides whether to join; what jax's own detection reads is the process's
    environment. With a single process no device is touched.
    """
    how = asked_by(options, environment)
    address, count, index = ("", 1, 0) if how == "single" else _place(options, how)
    if count == 1:
        return ProcessInfo(0, 1, "single")
    meet(address, count, index, facts(out, config), options.timeout_seconds)
    jax.distributed.initialize(
        address,
        count,
        index,
        initialization_timeout=options.timeout_seconds,
        heartbeat_timeout_seconds=options.heartbeat_seconds,
    )
    watch()
    _check_devices(Counter(device.process_index for device in jax.devices()))
    return ProcessInfo(jax.process_index(), jax.process_count(), how)


def _place(options: DistributedOptions, how: str) -> tuple[str, int, int]:
    """HOST:PORT of the coordinator, how many processes there are, and the number of this one."""
    address, count, index = options.coordinator, options.processes, options.process
    if how != "flags":
        address, count, index = _detect(options.timeout_seconds, how)
        if how == "tpu-vm" and address is None:  # one that belongs to no slice
            return "", 1, 0
    if address is None or count is None or index is None:
        package = "install the package kubernetes, or " if how == "kubernetes" else ""
        raise ValueError(
            f"distributed ({how}): jax found coordinator {address}, {count} processes and process {index}; "
            f"{package}give {BY_HAND}, or {ALONE}"
        )
    if how != "flags":
        address = _with_port(address, options.port)
    return address, count, index


def _detect(timeout_seconds: int, how: str) -> tuple[str | None, int | None, int | None]:
    """The coordinator, the number of processes and that of this one, as jax finds them in the environment."""
    named = os.environ.get("JAX_COORDINATOR_ADDRESS")
    try:
        return ClusterEnv.auto_detect_unset_distributed_params(named, None, None, None, None, timeout_seconds)[:3]
    except Exception as error:  # of the metadata server, of Kubernetes, or of a variable that is missing
        raise ValueError(
            f"distributed ({how}): jax asked for the other processes and got {type(error).__name__}: "
            f"{' '.join(str(error).split())}; mend that, or give {BY_HAND}, or {ALONE}"
        ) from error


def _with_port(address: str, port: int | None) -> str:
    """The coordinator that jax has found, HOST or HOST:PORT, at the port that the user names, or else at `PORT`.

    SLURM and Open MPI let several jobs share a node, so there the port stays that which jax makes of the job's number.
    """
    named, wanted = os.environ.get("JAX_COORDINATOR_ADDRESS"), os.environ.get("JAX_COORDINATOR_PORT")
    host, _, found = address.rpartition(":") if ":" in address else (address, "", "")
    if not named and not wanted and not SlurmCluster.is_env_present() and not OmpiCluster.is_env_present():
        found = str(PORT)
    address = f"{host}:{port or found or wanted or PORT}"
    _check_address("environment JAX_COORDINATOR_ADDRESS and JAX_COORDINATOR_PORT", address)
    return address


def _check_devices(counts: Mapping[int, int]) -> None:
    """Raises ValueError, in every process, unless all processes have the same number of devices."""
    verdict = differences({process: {"local devices": count} for process, count in counts.items()}, "the same devices")
    if verdict:
        raise ValueError(verdict)


def facts(out: Place, config: Any) -> dict[str, Any]:
    """What must be equal in all processes of a run, by name: versions, hashes of the source files, options, config."""
    root = Path(__file__).parents[1]
    sources = sorted(path for package in ("uniaudio_jax", "data_pipelines") for path in (root / package).rglob("*.py"))
    hashes = {path.relative_to(root).as_posix(): file_sha256(path)[:12] for path in sources}
    versions = {"uniaudio_jax": __version__, "jax": jax.__version__}
    return versions | hashes | {"--out": str(out)} | _flat(to_dict(config))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by their dotted names."""
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        leaves |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return leaves
