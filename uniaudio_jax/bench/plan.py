"""The packing plan: seconds for an epoch of examples, whether they grow in proportion, and how full the rows are."""

import time
from typing import Any

import numpy as np

from data_pipelines.batches import Dataset
from data_pipelines.index import Index, make_index
from data_pipelines.plan import Limits, Plan
from uniaudio_jax.bench.options import PlanBench
from uniaudio_jax.tasks import get_task

FRAME_RATE_HZ = 50
PROMPT_SECONDS = 3


def run(options: PlanBench) -> dict[str, Any]:
    """Examples a second of both sizes, seconds of the large one, and the share of real frames in rows."""
    limits = Limits(options.row_frames, options.target_frames, options.text_frames, PROMPT_SECONDS * FRAME_RATE_HZ,
                    "target")  # fmt: skip
    plan_seconds(random_index(10_000), limits)  # compiles
    small, large = options.examples // 10, options.examples
    seconds = {f"{count} examples": plan_seconds(random_index(count), limits)[0] for count in (small, large)}
    _, fill = plan_seconds(random_index(small), limits)
    fills = {"random lengths": fill}
    if options.tokens is not None:
        for path in sorted(options.tokens.glob("*/*/*/passport.json")):
            dataset = Dataset(path.parent, "train")
            fills[dataset.name] = Plan(dataset.index, dataset.task, limits, 0).fill()
    growth = seconds[f"{large} examples"] / seconds[f"{small} examples"]
    return {
        "unit": "examples/s",
        "rates": {name: int(name.split()[0]) / taken for name, taken in seconds.items()},
        "ratios": {},
        "rounds": options.rounds,
        "seconds": seconds,
        "seconds_of_ten_times_the_examples": growth,
        "fill": fills,
    }


def random_index(count: int) -> Index:
    """An index of `count` tts examples: 1 to 10 seconds, 12 phones a second, 1000 speakers."""
    rng = np.random.default_rng(0)
    seconds = rng.uniform(1, 10, count)
    lengths = {"phone": (12 * seconds).astype(np.int32), "audio": (FRAME_RATE_HZ * seconds).astype(np.int32)}
    return make_index(lengths, (rng.integers(0, 1000, count)).astype(str))


def plan_seconds(index: Index, limits: Limits) -> tuple[float, float]:
    """Seconds to plan an epoch (until its first row can be asked for), and the share of real frames in its rows."""
    start = time.perf_counter()
    plan = Plan(index, get_task("tts"), limits, 0)
    plan.row(0)
    return time.perf_counter() - start, plan.fill() if len(index) <= 1_000_000 else float("nan")
