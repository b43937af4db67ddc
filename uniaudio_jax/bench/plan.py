"""The packing plan: seconds for an epoch of examples, whether they grow in proportion, and how full the rows are."""

import functools
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from data_pipelines.plan import BLOCK, Examples, Limits, Plan
from data_pipelines.store import group_speakers
from data_pipelines.views import Index, View
from uniaudio_jax.bench.options import RoundsOptions
from uniaudio_jax.bench.timing import side_by_side
from uniaudio_jax.tasks import get_task

FRAME_RATE_HZ = 50
PROMPT_SECONDS = 3


@dataclass(frozen=True, kw_only=True)
class Options(RoundsOptions):
    """The packing plan of random lengths, at two sizes, and the fill of rows."""

    examples: int = 10_000_000
    """Examples of the large set; the small one has a tenth of them."""
    row_frames: int = 1024
    """Frames of a row."""
    target_frames: int = 768
    """Target frames that a row has room for."""
    text_frames: int = 256
    """Text vectors that a row has room for."""
    tokens: Path | None = None
    """Folder of tokens made by the builder; the fill of its tasks' rows is reported too."""
    rounds: int = 1
    """Rounds that are measured."""


def run(options: Options) -> dict[str, Any]:
    """Examples planned a second at both sizes, how the time grows with them, and the share of real frames in rows."""
    limits = Limits(
        options.row_frames, options.target_frames, options.text_frames, PROMPT_SECONDS * FRAME_RATE_HZ, "target"
    )
    plan_epoch(random_index(10_000), limits)  # compiles
    counts = {f"{count} examples": count for count in (options.examples // 10, options.examples)}
    plans = {name: functools.partial(plan_epoch, random_index(count), limits) for name, count in counts.items()}
    times = side_by_side(plans, options.rounds, warmup=0)
    seconds = {name: median(rounds) for name, rounds in times.items()}
    small, large = seconds.values()
    fill = {"random lengths": next(iter(plans.values()))()}
    return {
        "unit": "examples/s",
        "rates": {name: count / seconds[name] for name, count in counts.items()},
        "ratios": {},
        "rounds": options.rounds,
        "seconds": seconds,
        "seconds_of_ten_times_the_examples": large / small,
        "fill": fill | (fill_of_tokens(options.tokens, limits) if options.tokens else {}),
    }


def random_index(count: int) -> Index:
    """An index of `count` tts examples: 1 to 10 seconds, 12 phones a second, 1000 speakers."""
    rng = np.random.default_rng(0)
    seconds = rng.uniform(1, 10, count)
    lengths = {"phone": (12 * seconds).astype(np.int32), "audio": (FRAME_RATE_HZ * seconds).astype(np.int32)}
    return Index(lengths, group_speakers(rng.integers(0, 1000, count)))


def plan_epoch(index: Index, limits: Limits) -> float:
    """Plans an epoch of tts examples; returns the share of real frames in its rows."""
    return fill_of([Examples(index, get_task("tts"), limits, 0)], limits)


def fill_of_tokens(tokens: Path, limits: Limits) -> dict[str, float]:
    """The share of real frames in the rows of each task in a folder of tokens, and in those of all tasks."""
    views = [
        View(tokens, path.parents[1].name, get_task(path.stem), "train")
        for path in sorted(tokens.glob("*/tasks/*.json"))
    ]
    if not views:
        raise ValueError(f"--tokens {tokens}: got no tasks, wanted a folder made by `python -m data_pipelines.builder`")
    examples = {view.name: Examples(view.index, view.task, limits, 0) for view in views}
    fill = {name: fill_of([alone], limits) for name, alone in examples.items()}
    return fill | {"all of them, mixed": fill_of(list(examples.values()), limits)}


def fill_of(examples: list[Examples], limits: Limits) -> float:
    """The share of real frames in the rows of an even mixture, over as many blocks as it has examples for."""
    plan = Plan(examples, [1.0] * len(examples), limits, 0)
    return plan.fill(max(1, sum(map(len, examples)) // BLOCK))
