"""The options of each benchmark."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """out: folder of the JSON files. rounds: counted rounds."""

    out: Path = Path("runs/bench")
    rounds: int = 7

    def __post_init__(self):
        if self.rounds < 1:
            raise ValueError(f"--rounds: got {self.rounds}, wanted at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainBench(BenchOptions):
    """Training steps. config: whose model and rows are used. condition_share: frames that are conditions."""

    config: str = "configs/quickstart.py"
    condition_share: float = 0.4


@dataclass(frozen=True, kw_only=True)
class GenerateBench(BenchOptions):
    """Greedy generation. config: whose model is used. rows: batch. frames: made for each row, without an early end."""

    config: str = "configs/quickstart.py"
    rows: int = 4
    frames: int = 192


@dataclass(frozen=True, kw_only=True)
class CodecBench(BenchOptions):
    """Codec encode and decode of `rows` clips of `seconds`, and a training step on 8 clips of a second.

    filters: base width of the SEANet.
    """

    rows: int = 1
    seconds: float = 10.0
    filters: int = 32
    rounds: int = 5


@dataclass(frozen=True, kw_only=True)
class DataBench(BenchOptions):
    """The loader. config: whose rows and model are used. records: of the large set; the small one has a hundredth."""

    config: str = "configs/quickstart.py"
    records: int = 1_000_000
    batches: int = 200
    rounds: int = 3


@dataclass(frozen=True, kw_only=True)
class PlanBench(BenchOptions):
    """The packing plan: time by number of examples, and how full its rows are.

    examples: of the large set; the small one has a tenth. row_frames, target_frames: T and N. tokens: folder of
    datasets whose rows are judged too.
    """

    examples: int = 10_000_000
    row_frames: int = 1024
    target_frames: int = 768
    text_frames: int = 256
    tokens: Path | None = None
    rounds: int = 1


@dataclass(frozen=True, kw_only=True)
class BuilderBench(BenchOptions):
    """The builder: hours of audio tokenised an hour. minutes: of espeak speech. tasks: built from it."""

    minutes: float = 6.0
    tasks: tuple[str, ...] = ("tts", "enhancement")
    codec: str = "tiny_16k"
    rounds: int = 3
