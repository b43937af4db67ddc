"""What is learned in equal time: variants of a config, trained in turns in one process, and their held-out losses."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tyro

from uniaudio_jax.bench.learner import Learner, draw_curves, evenly, steps_in, take_turns, with_tokens
from uniaudio_jax.bench.options import TurnsOptions
from uniaudio_jax.bench.patterns.multi_scale import MultiScale
from uniaudio_jax.cli import checked, use_compile_cache
from uniaudio_jax.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Options(TurnsOptions):
    """Held-out losses of variants of a config after equal time of training, without compilation and evaluation.

    On a busy machine the calibration may miss by a fifth: compare the seconds of training before the losses.
    """

    variants: tuple[str, ...] = ("adamw=--optim.name adamw", "muon=--optim.name muon")
    """NAME=FLAGS of each variant, the flags being those of `python -m uniaudio_jax.train`."""
    minutes: float = 3.0
    """Minutes of training of each variant, at the speed of the calibration."""
    evaluations: int = 1
    """Measurements of the held-out losses of each while it trains, evenly over its steps; with more than one it is told
    when each variant reached the last loss of the first."""

    def __post_init__(self):
        super().__post_init__()
        if self.evaluations < 1:
            raise ValueError(f"--evaluations: got {self.evaluations}, wanted at least 1")


def run(options: Options) -> dict[str, Any]:
    """The results by variant."""
    use_compile_cache()
    configs = variants_of(options)
    make = {name: partial(Learner, config, MultiScale) for name, config in configs.items()}
    learners = learn(configs, steps_in(options.minutes * 60, make), options.turns, options.evaluations)
    result = {
        "config": options.config,
        "minutes": options.minutes,
        "variants": {name: learner.result() for name, learner in learners.items()},
    }
    if options.evaluations == 1:
        return result
    first, *_ = learners
    curves = {name: learner.curve for name, learner in learners.items()}
    reached = {name: seconds_to(curves[first][-1]["mean loss"], curve) for name, curve in curves.items()}
    picture = draw_curves(options.out / "learning.png", curves)
    return result | {f"seconds to the last loss of {first}": reached, "curves": curves, "picture": str(picture)}


def variants_of(options: Options) -> dict[str, RunConfig]:
    """The config of each variant. Raises ValueError for a variant without a name or tokens."""
    config, configs = options.run_config(), dict[str, RunConfig]()
    for words in options.variants:
        name, equals, flags = words.partition("=")
        if not (name and equals) or name in configs:
            raise ValueError(
                f'--variants: got {words!r}, wanted NAME=FLAGS, each name once, such as "muon=--optim.name muon"'
            )
        words, prog = shlex.split(flags), f"--variants {name}="
        variant = checked(tyro.cli(RunConfig, default=config, args=words, prog=prog))
        configs[name] = with_tokens(variant, f"--variants {name}")
    return configs


def learn(
    configs: Mapping[str, RunConfig], steps: Mapping[str, int], turns: int, evaluations: int = 1
) -> dict[str, Learner]:
    """The variants, each trained for its steps, in so many turns."""
    learners = {
        name: Learner(config, MultiScale, steps[name], evenly(steps[name], evaluations) if evaluations > 1 else ())
        for name, config in configs.items()
    }
    take_turns(learners, turns)
    return learners


def seconds_to(loss: float, curve: Sequence[Mapping[str, float]]) -> float | None:
    """The seconds of training after which a curve is at a mean loss, between two measurements by a straight line, and
    never before the first; None where it stays above."""
    before = None
    for point in curve:
        if point["mean loss"] <= loss:
            if before is None:
                return point["seconds"]
            share = (before["mean loss"] - loss) / (before["mean loss"] - point["mean loss"])
            return before["seconds"] + share * (point["seconds"] - before["seconds"])
        before = point
    return None
