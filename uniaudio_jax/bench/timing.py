"""Times rival functions in turn within one process, so that a drift of the machine's speed falls on all of them."""

import statistics
import time
from collections.abc import Callable, Mapping


def side_by_side(rivals: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each call, by rival: `warmup` uncounted rounds, then `rounds` counted ones, A B C A B C ….

    A rival returns only when its work is done (block on JAX arrays inside).
    """
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(warmup + rounds):
        for name, rival in rivals.items():
            start = time.perf_counter()
            rival()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: Mapping[str, list[float]], ours: str) -> dict[str, dict[str, float]]:
    """How many times faster `ours` is than each rival, round by round: median, least and most."""
    found = {}
    for name, times in seconds.items():
        if name != ours:
            pairs = [theirs / mine for theirs, mine in zip(times, seconds[ours], strict=True)]
            found[name] = {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs)}
    return found


def report(seconds: Mapping[str, list[float]], ours: str, unit: str, amount: float) -> dict:
    """A JSON-ready summary: rates by rival (amount / median seconds, in `unit`/s) and ratios of `ours` to each."""
    return {
        "unit": f"{unit}/s",
        "rates": {name: amount / statistics.median(times) for name, times in seconds.items()},
        "ratios": ratios(seconds, ours),
        "rounds": len(seconds[ours]),
    }
