"""What is learned in equal time: variants of a config, trained in turns in one process, and their held-out losses."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import jax
import tyro
from tqdm import tqdm

from data_pipelines.batches import BatchStream, open_training_data
from data_pipelines.heldout import HeldOut
from uniaudio_jax.bench.options import BenchOptions
from uniaudio_jax.bench.timing import side_by_side
from uniaudio_jax.checkpoint import describe
from uniaudio_jax.cli import checked, use_compile_cache
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import RunConfig, check_codec
from uniaudio_jax.config_files import load_config
from uniaudio_jax.growth import first_state
from uniaudio_jax.programs import Programs
from uniaudio_jax.sharding import make_mesh, place_batch
from uniaudio_jax.tasks import get_task
from uniaudio_jax.validation import heldout_tally, losses_of

CALIBRATION_STEPS = 41
"""Measured steps of each variant."""


@dataclass(frozen=True, kw_only=True)
class Options(BenchOptions):
    """Held-out losses of variants of a config after equal time of training, without compilation and evaluation.

    Schedules need to know their steps beforehand: a calibration times a few steps of each variant side by side, which
    gives the number that each one then trains for. They take turns, so that a busy machine slows all of them alike. On
    a busy machine the calibration may miss by a fifth: compare the seconds of training before the losses.
    """

    variants: tuple[str, ...] = ("adamw=", "muon=--optim.name muon")
    """NAME=FLAGS of each variant, the flags being those of `python -m uniaudio_jax.train`."""
    config: str = "configs/quickstart.py"
    """Config file that the variants differ from."""
    root: str | None = None
    """Folder of tokens, by default the config's data.root."""
    minutes: float = 3.0
    """Minutes of training of each variant, at the speed of the calibration."""
    turn_seconds: float = 5.0
    """Seconds that a variant trains until it is the next one's turn."""

    def __post_init__(self):
        for name in ("minutes", "turn_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name.replace('_', '-')}: got {getattr(self, name)}, wanted more than 0")


class Learner:
    """One variant in training for `steps` updates; its programs are compiled, and its time is kept."""

    def __init__(self, config: RunConfig, steps: int):
        codec = load_codec(config.codec_of_tokens()).passport()
        model, data, train = config.model, config.data, replace(config.train, steps=steps)
        check_codec(model, codec)
        self.config, self.meta = config, describe(config, codec)
        self.programs = Programs(model, train, config.optim, make_mesh(config.mesh))
        self.data = open_training_data(data, train.loss_on, model.ids, model.text_width, codec, 0, 1)
        self.heldout = {task: HeldOut(config, task, codec) for task in data.tasks}
        self._start()
        self.train(1)
        self._start()

    def _start(self) -> None:
        self.state, self.stream = first_state(self.config, self.meta, self.programs), BatchStream(self.data.batches)
        self.steps, self.seconds = 0, 0.0

    def train(self, last: int) -> None:
        """Trains until `last` steps are made in all."""
        start = time.perf_counter()
        for _ in range(last - self.steps):
            batches = [next(self.stream) for _ in range(self.config.train.accumulate)]
            placed = [place_batch(batch, self.programs.mesh) for batch in batches]
            self.state, _ = self.programs.step(self.state, placed)
        jax.block_until_ready(self.state)
        self.steps, self.seconds = last, self.seconds + time.perf_counter() - start

    def result(self) -> dict[str, float]:
        """The mean of the tasks' held-out losses, each of them, and what was done for it."""
        losses = {}
        for name, heldout in self.heldout.items():
            tally = heldout_tally(self.programs, self.state.weights, heldout.batches())
            losses[name] = losses_of(get_task(name), tally)["loss"]
        data = self.config.data
        frames = self.steps * self.config.train.accumulate * data.rows * data.row_frames
        return {
            "mean loss": fmean(losses.values()),
            **losses,
            "steps": self.steps,
            "skipped updates": int(self.state.skipped),
            "seconds of training": self.seconds,
            "frames/s": frames / self.seconds,
        }


def run(options: Options) -> dict[str, Any]:
    """The results by variant."""
    use_compile_cache()
    configs = variants_of(options)
    seconds = options.minutes * 60
    steps = {name: max(1, round(seconds / each)) for name, each in seconds_of_a_step(configs).items()}
    results = learn(configs, steps, max(1, round(seconds / options.turn_seconds)))
    return {"config": options.config, "minutes": options.minutes, "variants": results}


def variants_of(options: Options) -> dict[str, RunConfig]:
    """The config of each variant. Raises ValueError for a variant without a name or tokens."""
    config = load_config(options.config, RunConfig)
    if options.root is not None:
        config = replace(config, data=replace(config.data, root=options.root))
    configs: dict[str, RunConfig] = {}
    for words in options.variants:
        name, equals, flags = words.partition("=")
        if not (name and equals) or name in configs:
            raise ValueError(
                f'--variants: got {words!r}, wanted NAME=FLAGS, each name once, such as "muon=--optim.name muon"'
            )
        words, prog = shlex.split(flags), f"--variants {name}="
        configs[name] = checked(tyro.cli(RunConfig, default=config, args=words, prog=prog))
        root = configs[name].data.root
        if not Path(root).is_dir():
            raise ValueError(
                f"--variants {name}: the folder of tokens {root} is not there; `bash launch/quickstart.sh` makes that "
                "of the quickstart, `python -m data_pipelines.builder` any; or name another by --root"
            )
    return configs


def seconds_of_a_step(configs: Mapping[str, RunConfig]) -> dict[str, float]:
    """Seconds of a step of each variant: the median of some that are made in turns."""
    learners = {name: Learner(config, CALIBRATION_STEPS) for name, config in configs.items()}
    rivals = {name: lambda one=one: one.train(one.steps + 1) for name, one in learners.items()}
    return {name: median(times) for name, times in side_by_side(rivals, CALIBRATION_STEPS).items()}


def learn(configs: Mapping[str, RunConfig], steps: Mapping[str, int], turns: int) -> dict[str, dict[str, float]]:
    """The results of the variants, each trained for its steps, in so many turns."""
    learners = {name: Learner(config, steps[name]) for name, config in configs.items()}
    for turn in tqdm(range(1, turns + 1), desc="learn", unit="turn"):
        for name, learner in learners.items():
            learner.train(steps[name] * turn // turns)
    return {name: learner.result() for name, learner in learners.items()}
