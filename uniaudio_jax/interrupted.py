"""Ctrl-C while a command is still importing, which takes some seconds and comes before any of its own code."""

import os
import signal
import sys
from typing import Any

PACKAGES = ("uniaudio_jax", "data_pipelines")


def end_at_ctrl_c() -> None:
    """Lets Ctrl-C end a command of ours, as `python -m uniaudio_jax.train`, in one line and with 130, until `begin`.

    To be called when the package is imported: Python's first argument is "-m" as long as it looks for the command, and
    another program than `python -m` of one of our packages is left as it is.
    """
    started = " ".join(sys.orig_argv)
    ours = sys.argv[:1] == ["-m"] and any(f" -m {package}." in started for package in PACKAGES)
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def begin() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: Any) -> None:
    # Nothing is raised: what is imported may catch it, or be in a callback that drops it.
    os.write(2, b"\ninterrupted before it began; run the same command again\n")
    os._exit(130)
