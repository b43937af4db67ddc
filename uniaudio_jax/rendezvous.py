"""The processes of one run meet before jax joins them: who is missing, and who differs, is told in words.

jax ends a process with an abort when another one does not come, and looks at neither code nor config. So process 0
first listens on the coordinator's port itself. Each other process sends it one line of JSON, its facts, and gets back
the verdict, which is empty when all have come and agree.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]
MOST_DIFFERENCES = 7
"""Differences that an error lists."""
RETRY_SECONDS, ANSWER_SECONDS = 0.2, 10.0
"""Between two attempts to reach process 0, and how long one that has connected may take for its line."""
MOST_BYTES = 1 << 24
"""Of a line; what sends more is none of our processes."""


def meet(address: str, processes: int, process: int, facts: Facts, timeout_seconds: float) -> None:
    """Returns when all processes have come and their facts are equal; else each of them raises ValueError.

    address: HOST:PORT of process 0. facts: names and JSON values. Process 0 waits for `timeout_seconds`, each other one
    for as long to reach it, and then for its answer.
    """
    deadline = time.monotonic() + timeout_seconds
    host, _, port = address.rpartition(":")
    # Compared as they arrive: as JSON values.
    mine = json.loads(json.dumps({"process": process, "facts": {"processes": processes, **facts}}))
    if process == 0:
        verdict = _receive_all(address, int(port), mine, processes, timeout_seconds, deadline)
    else:
        verdict = _send(address, (host.strip("[]"), int(port)), mine, timeout_seconds, deadline)
    if verdict:
        raise ValueError(verdict)


def _receive_all(
    address: str, port: int, mine: dict[str, Any], processes: int, timeout_seconds: float, deadline: float
) -> str:
    """The verdict about all processes, which each of them has been sent."""
    arrived: dict[int, tuple[socket.socket, Facts]] = {}
    with _listen(address, port) as server:
        while _still_there(arrived) < processes - 1 and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(TimeoutError):
                _add(arrived, server.accept()[0], address, deadline)
        verdict = differences({0: mine["facts"], **{number: told for number, (_, told) in arrived.items()}})
        if len(arrived) < processes - 1:
            missing = ", ".join(str(number) for number in range(1, processes) if number not in arrived)
            verdict = (
                f"{address}: of {processes} processes, these have not come within {timeout_seconds:g} s: {missing}; "
                "start each of them with this coordinator, or allow more time (--distributed.timeout-seconds)"
            )
        for connection, _ in arrived.values():
            _answer(connection, verdict)
    return verdict


def _add(
    arrived: dict[int, tuple[socket.socket, Facts]], connection: socket.socket, address: str, deadline: float
) -> None:
    """Adds the process at the other end, unless another program is there, or its number is taken."""
    hello = _hello(connection, deadline)
    if hello is None:
        connection.close()
        return
    number = int(hello["process"])
    _still_there(arrived)
    if number == 0 or number in arrived:
        _answer(connection, f"{address}: there is a process {number} already; give each process a number of its own")
    else:
        arrived[number] = connection, hello["facts"]


def _still_there(arrived: dict[int, tuple[socket.socket, Facts]]) -> int:
    """How many have come and wait; forgets those that have gone, whose place is for whoever is started instead."""
    for number in [number for number, (connection, _) in arrived.items() if _has_gone(connection)]:
        arrived.pop(number)[0].close()
    return len(arrived)


def _has_gone(connection: socket.socket) -> bool:
    """Whether the other side, which sends nothing more, has closed."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except OSError as error:
        return not isinstance(error, BlockingIOError)


def _listen(address: str, port: int) -> socket.socket:
    """A socket on the port of all interfaces, as jax's own coordinator. Raises ValueError when it is taken."""
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=1024
        )
    except OSError as error:
        raise ValueError(
            f"{address}: process 0 cannot wait for the others on port {port}: {os.strerror(error.errno or 0)}; choose "
            "another port"
        ) from error


def _hello(connection: socket.socket, deadline: float) -> dict[str, Any] | None:
    """What a process has sent; None for another program, or one that has gone."""
    connection.settimeout(max(0.001, min(ANSWER_SECONDS, deadline - time.monotonic())))
    try:
        hello = json.loads(_line(connection))
        return hello if {"process", "facts"} <= hello.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _line(connection: socket.socket) -> bytes:
    """The line that the other side sends. Raises OSError when it goes before the line's end."""
    with connection.makefile("rb") as file:
        line = file.readline(MOST_BYTES)
    if not line.endswith(b"\n"):
        raise ConnectionResetError("the connection was closed")
    return line


def _answer(connection: socket.socket, verdict: str) -> None:
    """Sends the verdict and waits for the other side to close, so that the port is free for jax at once."""
    with connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.sendall(json.dumps({"verdict": verdict}).encode() + b"\n")
            connection.recv(1)
        except OSError:
            return  # it has gone, and jax will miss it


def _send(address: str, place: tuple[str, int], mine: dict[str, Any], timeout_seconds: float, deadline: float) -> str:
    """The verdict of process 0, which need not be there yet."""
    reason = "nobody listens"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(place, timeout=left) as connection:
                # Process 0 may have come later than this one: it answers once its own time is over.
                connection.settimeout(timeout_seconds + ANSWER_SECONDS)
                connection.sendall(json.dumps(mine).encode() + b"\n")
                return json.loads(_line(connection))["verdict"]
        except OSError as error:
            reason = error.strerror or str(error)
        except ValueError:
            reason = "another program answers, or a run that has started already"
        time.sleep(min(RETRY_SECONDS, left))
    return (
        f"{address}: process {mine['process']} of {mine['facts']['processes']} found no coordinator within "
        f"{timeout_seconds:g} s: {reason}; start process 0 there, and give each process its host and port"
    )


def differences(facts: Mapping[int, Facts], same: str = "the same code, config and options") -> str:
    """In what the processes differ, and which, and what to start them with; empty when they agree."""
    names = sorted({name for of_process in facts.values() for name in of_process})
    told = []
    for name in names:
        sides: dict[str, list[int]] = {}
        for number in sorted(facts):
            sides.setdefault(str(facts[number].get(name, "missing")), []).append(number)
        if len(sides) > 1:
            told.append(f"{name}: " + ", ".join(f"{value} on {_processes(who)}" for value, who in sides.items()))
    if not told:
        return ""
    more = f"; and {len(told) - MOST_DIFFERENCES} more" if len(told) > MOST_DIFFERENCES else ""
    return f"the processes differ: {'; '.join(told[:MOST_DIFFERENCES])}{more}; start all of them with {same}"


def _processes(numbers: Sequence[int]) -> str:
    return f"process{'es' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
