"""Leaving a run of several processes after an error: the others are told, and end with a line that says who left.

jax would end them too, but with pages about sockets, and after the heartbeat.
"""

import atexit
import contextlib
import json
import os
import sys
import threading
import time
from typing import NoReturn

import jax
from jax._src.distributed import global_state  # the client of jax.distributed, which has no public name

LOOK_SECONDS = 0.5
"""Between two looks whether another process has left."""
STAY_LOOKS, FIRST_STAYS_LOOKS = 3, 8
"""How long a process that leaves stays, so that the others see its word before its sockets close. The first one,
through which all talk, goes last."""
_LEFT = "uniaudio_jax/left"
_leaving = threading.Event()
_ending = threading.Lock()
"""Taken by whoever ends this process, and never let go."""


def watch() -> None:
    """From now on this process ends, with a line and the other's exit code, once another one has left."""
    thread = threading.Thread(target=_look, daemon=True)
    thread.start()
    # A thread that talks to the coordinator must not meet the end of the interpreter.
    atexit.register(lambda: (_leaving.set(), thread.join()))


def _look() -> None:
    client = global_state.client
    assert client is not None
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the coordinator has died, and jax ends this process
        while not _leaving.wait(LOOK_SECONDS):
            left = client.key_value_dir_get(_LEFT)
            # What the other has met, this one may be meeting too, and then says it itself.
            if left and not _leaving.wait(LOOK_SECONDS) and _ending.acquire(blocking=False):
                other, code, why = json.loads(left[0][1])
                _say(f"error: process {other} has left the run: {why}; see its log")
                if global_state.process_id == 0:
                    time.sleep(STAY_LOOKS * LOOK_SECONDS)
                os._exit(code)


def leave(code: int, message: str) -> NoReturn:
    """Ends this process after an error, which `message` tells, without the wait for the others that jax would make.

    They may wait for this one, in a step that it will never take; so they are told, and end.
    """
    if not jax.distributed.is_initialized():
        _say(message)
        raise SystemExit(code)
    _leaving.set()
    _ending.acquire()
    _say(f"{message}\nthis process leaves the run; where another one ended before it, its log says why")
    threading.Thread(target=_tell, args=(code, message), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(LOOK_SECONDS * (STAY_LOOKS if global_state.process_id else FIRST_STAYS_LOOKS))
    os._exit(code)


def _tell(code: int, message: str) -> None:
    """Lets the other processes see that this one leaves; in a thread, as the coordinator may not answer any more."""
    client, process = global_state.client, global_state.process_id
    assert client is not None
    why = message.strip().splitlines()[-1].removeprefix("error: ")
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        client.key_value_set(f"{_LEFT}/{process}", json.dumps([process, code, why]))


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be there any more to read it
        print(message, file=sys.stderr, flush=True)
        sys.stdout.flush()
