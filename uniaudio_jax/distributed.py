"""Joining the processes of one run into one `jax.distributed` system.

Who asks for more than one process, in this order:
1. the flags `--distributed.coordinator HOST:PORT --distributed.processes N --distributed.process I`;
2. the environment: `UNIAUDIO_DISTRIBUTED=auto` (set by launch/tpu_pod.sh), a SLURM step of more than one task, or a
   TPU slice of more than one host. jax then finds the coordinator by itself.
Otherwise the process is alone and nothing is started.
"""

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jax
from jax._src.clusters import ClusterEnv  # the detection that jax.distributed uses; it has no public name

from uniaudio_jax import __version__
from uniaudio_jax.config_files import to_dict
from uniaudio_jax.errors import require
from uniaudio_jax.files import file_sha256
from uniaudio_jax.rendezvous import meet

# What jax's own detection reads in a SLURM step. A batch script outside srun has only some of them.
_SLURM_STEP = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_TPU_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")


@dataclass(frozen=True, kw_only=True)
class DistributedOptions:
    """Processes by hand: all three fields, or none to let the environment decide."""

    coordinator: str | None = None
    """HOST:PORT of process 0."""
    processes: int | None = None
    """How many processes there are."""
    process: int | None = None
    """The number of this process, from 0."""
    timeout_seconds: int = 300
    """How long the processes wait for each other at the start; then each says who has not come, and ends."""
    heartbeat_seconds: int = 60
    """A process that was not heard of for so long counts as dead, and all others end."""

    def __post_init__(self):
        for name, seconds in (("timeout", self.timeout_seconds), ("heartbeat", self.heartbeat_seconds)):
            require(f"DistributedOptions.{name}_seconds", seconds >= 1, str(seconds), "at least 1")
        given = (self.coordinator, self.processes, self.process)
        if given == (None, None, None) or given == (None, 1, None):
            return
        if None in given:
            raise ValueError(
                f"DistributedOptions: got coordinator={self.coordinator}, processes={self.processes}, "
                f"process={self.process}; wanted all three or none: give --distributed.coordinator HOST:PORT, "
                "--distributed.processes N and --distributed.process I to each process"
            )
        assert self.coordinator is not None and self.processes is not None and self.process is not None
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(
                f"DistributedOptions.coordinator: got {self.coordinator!r}, wanted HOST:PORT with a port of 1 to "
                "65535, such as 10.0.0.1:8476, the same for every process"
            )
        if self.processes < 1 or not 0 <= self.process < self.processes:
            raise ValueError(
                f"DistributedOptions: got process={self.process} of processes={self.processes}, wanted at least one "
                "process, numbered from 0 to processes - 1"
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
    """Who asks for several processes: "flags", "auto", "slurm", "tpu", or "single" when nobody does.

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
    hosts = next((environment[name] for name in _TPU_HOSTS if name in environment), "")
    slices = int(environment.get("MEGASCALE_NUM_SLICES") or 1)
    if slices * len(hosts.split(",")) > 1:
        return "tpu"
    return "single"


def join(
    options: DistributedOptions, out: Path, config: Any, environment: Mapping[str, str] = os.environ
) -> ProcessInfo:
    """Joins the other processes, if any, and says which one this is. Call it before anything touches a device.

    Raises ValueError in each process when not all of them have come within options.timeout_seconds, or when they differ
    in code, in versions, in the run folder `out` or in the run's `config`, a dataclass. From then on, when a process
    dies, jax ends the others within options.heartbeat_seconds. `environment` decides whether to join; what jax's own
    detection reads is the process's environment. With a single process no device is touched.
    """
    how = asked_by(options, environment)
    if how == "single":
        return ProcessInfo(0, 1, how)
    address, count, index = _place(options, how)
    meet(address, count, index, facts(out, config), options.timeout_seconds)
    jax.distributed.initialize(
        address,
        count,
        index,
        initialization_timeout=options.timeout_seconds,
        heartbeat_timeout_seconds=options.heartbeat_seconds,
    )
    return ProcessInfo(jax.process_index(), jax.process_count(), how)


def _place(options: DistributedOptions, how: str) -> tuple[str, int, int]:
    """HOST:PORT of the coordinator, how many processes there are, and the number of this one."""
    address, count, index = options.coordinator, options.processes, options.process
    if how != "flags":
        known = os.environ.get("JAX_COORDINATOR_ADDRESS")
        address, count, index, _ = ClusterEnv.auto_detect_unset_distributed_params(
            known, None, None, None, None, options.timeout_seconds
        )
    if address is None or count is None or index is None:
        raise ValueError(
            f"distributed ({how}): jax found coordinator {address}, {count} processes and process {index}; give "
            "--distributed.coordinator HOST:PORT, --distributed.processes N and --distributed.process I"
        )
    return address, count, index


def facts(out: Path, config: Any) -> dict[str, Any]:
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


def leave(code: int, message: str) -> NoReturn:
    """Ends this process after an error, which `message` tells, without the wait for the others that jax would make.

    They may wait for this one, in a step that it will never take; once it is gone, jax ends them.
    """
    several = jax.distributed.is_initialized()
    if several:
        message += "\nthis process leaves the run; where another one ended before it, its log says why"
    with contextlib.suppress(OSError):  # nobody may be there any more to read it
        print(message, file=sys.stderr, flush=True)
        sys.stdout.flush()
    if several:
        os._exit(code)
    raise SystemExit(code)
