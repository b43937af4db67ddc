"""Times rival functions in turn within one process, so that a change of the machine's speed affects all of them."""

import statistics
import time
from collections.abc import Callable, Mapping


def side_by_side(rivals: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each measured call, by rival. They are called in turn, A B C A B C …, after `warmup` such rounds.

    A rival must return only when its work is done: it blocks on its JAX arrays.
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
    """How many times faster `ours` is than each rival in the same round: median, least and most."""
    of_rivals = {}
    for name, times in seconds.items():
        if name != ours:
            of_rounds = [theirs / mine for theirs, mine in zip(times, seconds[ours], strict=True)]
            of_rivals[name] = {"median": statistics.median(of_rounds), "min": min(of_rounds), "max": max(of_rounds)}
    return of_rivals


def report(seconds: Mapping[str, list[float]], ours: str, unit: str, amount: float) -> dict:
    """A benchmark's numbers: the rate of each rival (amount / median seconds, in `unit`/s) and the ratios of `ours`."""
    return {
        "unit": f"{unit}/s",
        "rates": {name: amount / statistics.median(times) for name, times in seconds.items()},
        "ratios": ratios(seconds, ours),
        "rounds": len(seconds[ours]),
    }
