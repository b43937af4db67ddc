"""Joining the processes of one run into one `jax.distributed` system.

Who asks for more than one process, in this order:
1. the flags `--distributed.coordinator HOST:PORT --distributed.processes N --distributed.process I`;
2. the environment: `UNIAUDIO_DISTRIBUTED=auto` (set by launch/tpu_pod.sh), a SLURM step of more than one task, or a
   TPU slice of more than one host. jax then finds the coordinator by itself.
Otherwise the process is alone and nothing is started.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import jax

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

    def __post_init__(self):
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


def join(options: DistributedOptions, environment: Mapping[str, str] = os.environ) -> ProcessInfo:
    """Joins the other processes, if any, and says which one this is. Call it before anything touches a device.

    Waits for all of them: up to five minutes, then jax raises. `environment` decides whether to join; what jax's own
    detection reads is the process's environment. With a single process no device is touched.
    """
    how = asked_by(options, environment)
    if how == "single":
        return ProcessInfo(0, 1, how)
    if how == "flags":
        jax.distributed.initialize(options.coordinator, options.processes, options.process)
    else:
        jax.distributed.initialize()
    return ProcessInfo(jax.process_index(), jax.process_count(), how)
