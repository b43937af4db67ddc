"""The options that every benchmark has."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Options of every benchmark; each bench's file adds its own."""

    out: Path = Path("runs/bench")
    """Folder for the JSON file with the numbers, which is named after the benchmark."""
    rounds: int = 7
    """Rounds that are measured, after the warm-up."""

    def __post_init__(self):
        if self.rounds < 1:
            raise ValueError(f"--rounds: got {self.rounds}, wanted at least 1")
