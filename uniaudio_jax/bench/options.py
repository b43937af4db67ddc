"""The options that benchmarks share."""

from dataclasses import dataclass, replace
from pathlib import Path

from uniaudio_jax.config import RunConfig
from uniaudio_jax.config_files import load_config


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Options of every benchmark; each bench's file adds its own."""

    out: Path = Path("runs/bench")
    """Folder for the JSON file with the numbers, which is named after the benchmark."""


@dataclass(frozen=True, kw_only=True)
class RoundsOptions(BenchOptions):
    """Options of a benchmark that measures rivals in rounds."""

    rounds: int = 7
    """Rounds that are measured, after the warm-up."""

    def __post_init__(self):
        if self.rounds < 1:
            raise ValueError(f"--rounds: got {self.rounds}, wanted at least 1")


@dataclass(frozen=True, kw_only=True)
class TurnsOptions(BenchOptions):
    """Options of a benchmark whose rivals learn in turns."""

    config: str = "configs/quickstart.py"
    """Config file of the training."""
    root: str | None = None
    """Folder of tokens, by default the config's data.root."""
    minutes: float = 2.0
    """Minutes of training of each rival, at the speed of the calibration."""
    turn_seconds: float = 5.0
    """Seconds that a rival trains until it is the next one's turn."""

    def __post_init__(self):
        for name in ("minutes", "turn_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name.replace('_', '-')}: got {getattr(self, name)}, wanted more than 0")

    @property
    def turns(self) -> int:
        return max(1, round(self.minutes * 60 / self.turn_seconds))

    def run_config(self) -> RunConfig:
        """The training of the config file, on the tokens of `root`."""
        config = load_config(self.config, RunConfig)
        return config if self.root is None else replace(config, data=replace(config.data, root=self.root))
