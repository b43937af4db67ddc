"""Lives of a training: its processes are started, watched through the files that they write, and killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from uniaudio_jax.checkpoint import FOLDER
from uniaudio_jax.sinks.jsonl import FILE, read_metrics

PHASES = ("start-up", "restore", "step", "save")
LONGEST_PAUSE_SECONDS = {"start-up": 4.0, "restore": 0.5, "step": 0.05, "save": 0.05, "saved": 0.05}
"""About how long each phase takes in a small training; one may also wait for a checkpoint that is "saved"."""
DEVICES = 4
"""Of all processes together, so that each number of processes shards the arrays in the same way."""
JOIN_SECONDS, HEARTBEAT_SECONDS = 20, 10
BOUND_SECONDS = JOIN_SECONDS + HEARTBEAT_SECONDS + 20
"""How long the others may go on after one process has died; the last part is for a busy machine."""
PATIENCE_SECONDS = 300
"""How long a training may take to reach a phase."""


@dataclass(frozen=True)
class Training:
    """A run folder, and the words of the command that trains into it."""

    out: Path
    words: tuple[str, ...]
    cache: Path

    def steps(self) -> dict[int, dict[str, float]]:
        """What was logged of each step. Raises ValueError when a step stands there twice."""
        lines = read_metrics(self.out / FILE)
        steps = {line["step"]: line for line in lines}
        if len(steps) != len(lines):
            raise ValueError(f"{self.out / FILE}: got {len(lines)} lines for {len(steps)} steps, wanted one for each")
        return steps

    def last_step(self) -> int:
        return max((line["step"] for line in read_metrics(self.out / FILE)), default=0)

    def saved(self) -> int:
        """The newest complete checkpoint, 0 for none."""
        return max((int(path.name) for path in (self.out / FOLDER).glob("*") if path.name.isdigit()), default=0)

    def saves_now(self) -> bool:
        """Whether a checkpoint is half written."""
        return any(not path.name.isdigit() for path in (self.out / FOLDER).glob("*tmp*"))


class Life:
    """The processes of a training from one start to their end; what they print is in OUT/logs."""

    def __init__(self, training: Training, processes: int, number: int):
        self.training, self.resumed_from = training, training.saved()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        flags = (
            f"--distributed.coordinator {address} --distributed.processes {processes} --distributed.timeout-seconds "
        )
        flags += f"{JOIN_SECONDS} --distributed.heartbeat-seconds {HEARTBEAT_SECONDS} --distributed.process"
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONUNBUFFERED": "1",
            "UNIAUDIO_CACHE": str(training.cache),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // processes}",
        }
        logs = training.out / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = [logs / f"{number}_{process}.txt" for process in range(processes)]
        command = [sys.executable, "-m", "uniaudio_jax.train", *training.words, "--out", str(training.out)]
        self.processes = [
            self._start([*command, *flags.split(), str(process)], environment, log.open("w"))
            for process, log in enumerate(self.logs)
        ]

    def _start(self, words: list[str], environment: dict[str, str], log: IO[str]) -> subprocess.Popen:
        with log:
            return subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def phase(self) -> str:
        """What the training does, as far as its files say."""
        if "device(s); " not in self.logs[0].read_text():
            return "start-up"
        if self.training.saves_now():
            return "save"
        return "step" if self.training.last_step() > self.resumed_from else "restore"

    def has_ended(self) -> bool:
        """Whether one of the processes has ended by itself."""
        return any(process.poll() is not None for process in self.processes)

    def reach(self, aim: str, steps: int) -> None:
        """Waits for a phase, or for a checkpoint; for a step, until this life has made so many."""
        goal = self.resumed_from + 1 + steps
        arrived: dict[str, Callable[[], bool]] = {
            "start-up": lambda: True,
            "restore": lambda: self.phase() != "start-up",
            "step": lambda: self.training.last_step() >= goal,
            "save": lambda: self.training.saves_now() and self.training.last_step() > self.resumed_from,
            "saved": lambda: self.training.saved() > self.resumed_from,
        }
        for _ in patience(0.005):
            if arrived[aim]():
                return
            if self.has_ended():
                raise ValueError(f"a process ended before the phase {aim}:\n{self.told()}")

    def kill(self, victims: list[int]) -> float:
        """Kills these processes and returns how many seconds the others took to end by themselves, 0 for none.

        Raises ValueError when they do not, or end without a word.
        """
        for victim in victims:
            self.processes[victim].send_signal(signal.SIGKILL)
        start = time.monotonic()
        others = [process for number, process in enumerate(self.processes) if number not in victims]
        try:
            codes = [process.wait(max(0.1, start + BOUND_SECONDS - time.monotonic())) for process in others]
        except subprocess.TimeoutExpired:
            raise ValueError(f"after {BOUND_SECONDS} s a process goes on without another:\n{self.told()}") from None
        finally:
            seconds = time.monotonic() - start
            self.end()
        if others and (0 in codes or "rror" not in self.told()):
            raise ValueError(f"a process without another ended with {codes}, without an error:\n{self.told()}")
        return seconds if others else 0.0

    def finish(self) -> None:
        """Waits for the end of the training. Raises ValueError when a process ends with an error."""
        for _ in patience(0.05):
            codes = [process.poll() for process in self.processes]
            if None not in codes:
                break
        if any(codes):
            raise ValueError(f"the processes of a training ended with {codes}:\n{self.told()}")

    def end(self) -> None:
        """Kills what is left."""
        for process in self.processes:
            process.kill()
            process.wait()

    def told(self) -> str:
        """The end of what each process has printed."""
        return "\n".join(f"{log}: …{log.read_text()[-1500:]}" for log in self.logs)


def patience(seconds: float) -> Iterator[None]:
    """Goes on every so many seconds. Raises ValueError after PATIENCE_SECONDS."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < limit:
        yield
        time.sleep(seconds)
    raise ValueError(f"waited for {PATIENCE_SECONDS} s in vain")
