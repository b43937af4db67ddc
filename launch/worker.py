"""Runs a command for a scheduler, and tells it what was stopped from what has finished.

    python launch/worker.py python -m uniaudio_jax.train CONFIG --out RUN

A training that gets SIGTERM saves and ends with 0, as one that is finished does. Here it ends with 75 (EX_TEMPFAIL: try
again), so that whoever started it does. All other codes stay what they are; after a signal it is 128 and its number.

Under SLURM only the first task does so, a little after the others: at the first code that is not 0, srun kills them.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

SECONDS_AFTER_THE_OTHERS = 5


def run(command: list[str]) -> int:
    """The code of the command, to which SIGTERM and Ctrl-C are passed on as SIGTERM."""
    signals, process = [], None

    def pass_on(number: int, _: object) -> None:
        signals.append(number)
        if process is not None:
            process.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    process = subprocess.Popen(command)
    if signals:  # before there was a process to pass them on to
        process.terminate()
    code = None
    while code is None:  # a signal that comes as waiting begins is seen only between two waits
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(timeout=1)
    if code or not signals:
        return code if code >= 0 else 128 - code
    task = os.environ.get("SLURM_PROCID")
    if task == "0":
        time.sleep(SECONDS_AFTER_THE_OTHERS)
    return os.EX_TEMPFAIL if task in (None, "0") else 0


def main() -> int:
    if len(sys.argv) < 2:
        print("error: no command; usage: python launch/worker.py COMMAND …", file=sys.stderr)
        return 2
    try:
        return run(sys.argv[1:])
    except OSError as error:
        print(f"error: {sys.argv[1]} cannot be started: {error.strerror}", file=sys.stderr)
        return 2


sys.exit(main())
