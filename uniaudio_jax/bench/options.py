"""The options that benchmarks share."""

from dataclasses import dataclass
from pathlib import Path


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
