"""What is learned in equal time: variants of a config, trained in turns in one process, and their held-out losses."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import tyro

from uniaudio_jax.bench.learner import Learner, steps_in, take_turns, with_tokens
from uniaudio_jax.bench.options import TurnsOptions
from uniaudio_jax.bench.patterns.multi_scale import MultiScale
from uniaudio_jax.cli import checked, use_compile_cache
from uniaudio_jax.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Options(TurnsOptions):
    """Held-out losses of variants of a config after equal time of training, without compilation and evaluation.

    On a busy machine the calibration may miss by a fifth: compare the seconds of training before the losses.
    """

    variants: tuple[str, ...] = ("adamw=", "muon=--optim.name muon")
    """NAME=FLAGS of each variant, the flags being those of `python -m uniaudio_jax.train`."""
    minutes: float = 3.0
    """Minutes of training of each variant, at the speed of the calibration."""


def run(options: Options) -> dict[str, Any]:
    """The results by variant."""
    use_compile_cache()
    configs = variants_of(options)
    make = {name: partial(Learner, config, MultiScale) for name, config in configs.items()}
    results = learn(configs, steps_in(options.minutes * 60, make), options.turns)
    return {"config": options.config, "minutes": options.minutes, "variants": results}


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


def learn(configs: Mapping[str, RunConfig], steps: Mapping[str, int], turns: int) -> dict[str, dict[str, float]]:
    """The results of the variants, each trained for its steps, in so many turns."""
    learners = {name: Learner(config, MultiScale, steps[name]) for name, config in configs.items()}
    take_turns(learners, turns)
    return {name: learner.result() for name, learner in learners.items()}
