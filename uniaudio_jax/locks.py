"""One process at a time in a folder that two would corrupt: a run that is trained, a column that is built."""

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from uniaudio_jax.distributed import ProcessInfo
from uniaudio_jax.paths import Place, told

FILE = ".lock"


@contextlib.contextmanager
def hold(folder: Place, remedy: str) -> Iterator[None]:
    """Holds `folder` for this process while the block runs; the kernel lets go of it when the process dies.

    Raises ValueError, before anything else is written, when another process holds it: it names that process and ends
    with `remedy`. FOLDER/.lock says who holds it. Where a file system knows no locks, or those of this host alone, a
    warning says so. A bucket knows none: there a warning says whose FOLDER/.lock was left, or is in use.
    """
    if not isinstance(folder, Path):
        with _noted(folder):
            yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a+") as file:
        file.seek(0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read().strip() or "another process"
            raise ValueError(f"{folder}: in use by {holder}; {remedy}") from None
        except OSError as error:
            _warn(folder, f"no locks on this file system ({error.strerror})", file.read().strip())
        else:
            holder = file.read().strip()
            if holder and f" on {socket.gethostname()} " not in holder:
                _warn(folder, "locks of another host may not be seen here", holder)
        file.truncate(0)
        file.write(_this_process())
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextlib.contextmanager
def _noted(folder: epath.Path) -> Iterator[None]:
    """Notes in a bucket who writes there, while the block runs."""
    path = folder / FILE
    with told(path, "reading or writing it"):
        if path.exists():
            _warn(folder, "a bucket knows no locks", path.read_text().strip())
        path.write_text(_this_process())
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # an error of the block says more than one about the note
            path.unlink(missing_ok=True)


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"


def hold_run(folder: Place, process: ProcessInfo) -> contextlib.AbstractContextManager[None]:
    """Holds a run folder for a training, whose first process alone does so."""
    if not process.is_first:
        return contextlib.nullcontext()
    return hold(folder, "wait until it has ended, stop it, or give another --out")


def _warn(folder: Place, why: str, holder: str) -> None:
    last = f"it was last used by {holder}" if holder else "it is not in use as far as is known"
    print(f"warning: {folder}: {why}; {last}; make sure that no other process writes there", file=sys.stderr)
