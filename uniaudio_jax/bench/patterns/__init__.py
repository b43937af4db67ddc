"""Five ways to predict the codes of frames, trained in turns on the same tokens (UniAudio, arXiv 2310.00704, table 4).

Flattening, coarse-first, parallel and delay are orders of the codes for one plain decoder, which has as many layers as
bring its parameters nearest to those of multi-scale, the project's own model. All learn from the same rows with the
config's optimizer, and the held-out losses count the same tokens: the codes of every task's target. Of what only the
project's programs know (accumulation, a share of the frames, running means, a start from a run) nothing is used.

Three things differ besides the order. In training a mark of the target (`<audio_start>`, `<audio_end>`, `<end>`) is one
token, where multi-scale counts its Q equal ones. In training the decoder takes a code among those of its level, and
multi-scale among all ids; held-out losses of all five are taken within the level. And each row has as many positions
as the longest one needs, so that flattening computes some padding.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Protocol

import jax
import numpy as np
from tqdm import tqdm

from uniaudio_jax.bench.generate import PHONES, PROMPT_FRAMES
from uniaudio_jax.bench.learner import Learner, Trainee, draw_curves, evenly, steps_in, take_turns, with_tokens
from uniaudio_jax.bench.options import TurnsOptions
from uniaudio_jax.bench.patterns.coarse_first import coarse_first
from uniaudio_jax.bench.patterns.delay import delay
from uniaudio_jax.bench.patterns.flatten import flatten
from uniaudio_jax.bench.patterns.multi_scale import WithinLevels
from uniaudio_jax.bench.patterns.one_stack import OneStack
from uniaudio_jax.bench.patterns.parallel import parallel
from uniaudio_jax.bench.patterns.pattern import Pattern
from uniaudio_jax.bench.synthetic import tts_example
from uniaudio_jax.bench.timing import side_by_side
from uniaudio_jax.cli import use_compile_cache
from uniaudio_jax.config import MeshConfig, RunConfig
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sequence import Batch, cut
from uniaudio_jax.tasks import get_task

PATTERNS: dict[str, Pattern] = {
    "flattening": flatten,
    "coarse first": coarse_first,
    "parallel": parallel,
    "delay": delay,
}
"""The orders for the plain decoder; a new one is a file here and a line."""
ROWS, ROUNDS = (1, 4), 3
"""Rows that are generated together, and measured rounds of them."""


class Predictor(Trainee, Protocol):
    """One way to predict codes, in training."""

    layers: Any
    """Transformer blocks; of multi-scale global + local."""
    positions: int
    """Positions of a row that the (global) stack runs over."""

    @property
    def parameters(self) -> int: ...

    def peak_bytes(self, batch: Batch) -> float:
        """The memory of the compiled training step for such a host batch."""
        ...

    def generator(self) -> Callable[..., Any]:
        """(task, prefixes, sampling, most frames) → the codes of each, by the present weights."""
        ...


@dataclass(frozen=True, kw_only=True)
class Options(TurnsOptions):
    """Memory, speed and held-out losses of five ways to predict codes, after equal time of training without compilation
    and evaluation.

    The losses at equal time and steps are read off each curve at the least seconds and steps that any of them made.
    """

    evaluations: int = 6
    """Measurements of the held-out losses of each while it trains, evenly over its steps."""
    frames: int = 192
    """Frames that are generated for each example of task tts, greedily; none ends earlier."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("evaluations", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: got {getattr(self, name)}, wanted at least 1")


def run(options: Options) -> dict[str, Any]:
    """A row of numbers for each pattern, and their curves; writes a picture of these."""
    use_compile_cache()
    config = one_device(with_tokens(options.run_config(), "bench patterns"))
    learners = learn(config, options)
    speeds = generation_speeds(config, {name: one.trainee for name, one in learners.items()}, options.frames)
    seconds, steps = (min(one.curve[-1][key] for one in learners.values()) for key in ("seconds", "steps"))
    table = {
        name: describe(learner) | speeds[name] | losses_at(learner, seconds, int(steps))
        for name, learner in tqdm(learners.items(), desc="measure", unit="pattern")
    }
    curves = {name: learner.curve for name, learner in learners.items()}
    result = {"config": options.config, "minutes": options.minutes, "table": table, "curves": curves}
    return result | {"picture": str(draw_curves(options.out / "patterns.png", curves))}


def one_device(config: RunConfig) -> RunConfig:
    """The run with what all five can do."""
    train = replace(config.train, accumulate=1, local_share=1.0, ema_decay=None, spike_deviations=None)
    return replace(config, train=train, mesh=MeshConfig(), start_from=None)


def learn(config: RunConfig, options: Options) -> dict[str, Learner]:
    """The patterns, trained in turns for the same time."""
    kinds: dict[str, Callable[[RunConfig, Iterable[Batch]], Predictor]] = {
        **{name: partial(OneStack, pattern) for name, pattern in PATTERNS.items()},
        "multi-scale": partial(WithinLevels, devices=jax.devices()[:1]),
    }
    make = {name: partial(Learner, config, kind) for name, kind in kinds.items()}
    steps = steps_in(options.minutes * 60, make)
    learners = {}
    for name in tqdm(kinds, desc="compile", unit="pattern"):
        milestones = evenly(steps[name], options.evaluations) | {min(steps.values())}
        learners[name] = make[name](steps[name], milestones)
    take_turns(learners, options.turns)
    return learners


def describe(learner: Learner) -> dict[str, Any]:
    """What a pattern needs."""
    predictor: Any = learner.trainee
    return {
        "parameters": predictor.parameters,
        "layers": predictor.layers,
        "positions a row": predictor.positions,
        "peak MiB": predictor.peak_bytes(learner.data.batches[0]) / 2**20,
        "ms a step": 1000 * learner.seconds / learner.steps,
        "steps": learner.steps,
        "skipped updates": int(predictor.state.skipped),
    }


def losses_at(learner: Learner, seconds: float, steps: int) -> dict[str, float]:
    """The mean held-out loss after so many seconds and steps, between the measurements around them."""
    losses = [point["mean loss"] for point in learner.curve]

    def at(key: str, value: float) -> float:
        return float(np.interp(value, [point[key] for point in learner.curve], losses))

    return {f"loss at {seconds:.0f} s": at("seconds", seconds), f"loss at {steps} steps": at("steps", steps)}


def generation_speeds(config: RunConfig, predictors: dict[str, Any], frames: int) -> dict[str, dict[str, float]]:
    """Generated frames of all rows per second, prefix included, by pattern."""
    model, greedy = config.model, Sampling(temperature=0, min_frames=frames)
    generators = {name: one.generator() for name, one in predictors.items()}
    speeds: dict[str, dict[str, float]] = {name: {} for name in predictors}
    for rows in tqdm(ROWS, desc="generate", unit="size"):
        examples = [tts_example(model.ids, model.text_width, PHONES, PROMPT_FRAMES, 1, seed) for seed in range(rows)]
        prefixes = [cut(example, -3) for example in examples]  # without the target's frame and the two end tokens
        rivals = {
            name: partial(generate, get_task("tts"), prefixes, greedy, frames) for name, generate in generators.items()
        }
        for name, times in side_by_side(rivals, ROUNDS).items():
            speeds[name][f"frames/s, rows={rows}"] = rows * frames / median(times)
    return speeds
