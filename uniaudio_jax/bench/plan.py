"""The packing plan: seconds for an epoch of examples, whether they grow in proportion, and how full the rows are."""

import time
from typing import Any

import numpy as np

from data_pipelines.plan import BLOCK, Examples, Limits, Plan
from data_pipelines.store import group_speakers
from data_pipelines.views import Index, View
from uniaudio_jax.bench.options import PlanBench
from uniaudio_jax.tasks import get_task

FRAME_RATE_HZ = 50
PROMPT_SECONDS = 3


def run(options: PlanBench) -> dict[str, Any]:
    """Examples a second of both sizes, seconds of the large one, and the share of real frames in rows."""
    limits = Limits(
        options.row_frames, options.target_frames, options.text_frames, PROMPT_SECONDS * FRAME_RATE_HZ, "target"
    )
    plan_seconds(random_index(10_000), limits)  # compiles
    small, large = options.examples // 10, options.examples
    planned = {f"{count} examples": plan_seconds(random_index(count), limits) for count in (small, large)}
    seconds = {name: taken for name, (taken, _) in planned.items()}
    fills = {"random lengths": planned[f"{large} examples"][1]}
    if options.tokens is not None:
        views = [
            View(options.tokens, path.parents[1].name, get_task(path.stem), "train")
            for path in sorted(options.tokens.glob("*/tasks/*.json"))
        ]
        examples = [Examples(view.index, view.task, limits, 0) for view in views]
        fills |= {view.name: fill_of([one], limits) for view, one in zip(views, examples, strict=True)}
        fills["all of them, mixed"] = fill_of(examples, limits)
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
    return Index(lengths, group_speakers(rng.integers(0, 1000, count)))


def plan_seconds(index: Index, limits: Limits) -> tuple[float, float]:
    """Seconds to open a dataset and to plan an epoch of it, and the share of real frames in its rows."""
    start = time.perf_counter()
    examples = Examples(index, get_task("tts"), limits, 0)
    fill = fill_of([examples], limits)
    return time.perf_counter() - start, fill


def fill_of(examples: list[Examples], limits: Limits) -> float:
    """The share of real frames in the rows of as many blocks as the examples of these datasets, mixed evenly."""
    plan = Plan(examples, [1.0] * len(examples), limits, 0)
    return plan.fill(max(1, sum(map(len, examples)) // BLOCK))
