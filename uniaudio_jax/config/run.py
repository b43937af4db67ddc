"""One run: all of its parts."""

from dataclasses import dataclass, field

from uniaudio_jax.checked import Checked
from uniaudio_jax.config.data import DataConfig
from uniaudio_jax.config.finetuning import LoraConfig
from uniaudio_jax.config.model import ModelConfig
from uniaudio_jax.config.optim import OptimConfig
from uniaudio_jax.config.train import MeshConfig, TrainConfig
from uniaudio_jax.errors import require


@dataclass(frozen=True, kw_only=True)
class RunConfig(Checked):
    """One run of the language model."""

    name: str
    """Name of the run, for its tables."""
    codec: str | None
    """A shipped codec's name, or the folder of one; None where only weights were imported."""
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    start_from: str | None = None
    """A run folder, perhaps in a bucket, whose newest weights a fresh training begins with (fine-tuning); its ids must
    mean the same here, further ranges and tasks may be added."""
    lora: LoraConfig = field(default_factory=LoraConfig)

    def __post_init__(self):
        super().__post_init__()
        require(
            "RunConfig.data.row_frames",
            self.data.row_frames <= self.model.context_frames,
            str(self.data.row_frames),
            f"at most model.context_frames={self.model.context_frames}",
        )
        require(
            "RunConfig.lora.rank",
            self.lora.rank is None or self.start_from is not None,
            f"{self.lora.rank} without start_from",
            "the run whose weights the adapters are added to, as --start-from RUN",
        )
        start, every = self.start_from, self.train.evaluate_every_steps
        require(
            "RunConfig.train.guard.margin",
            self.train.guard.margin is None or (start is not None and every is not None),
            f"{self.train.guard.margin} with start_from={start} and train.evaluate_every_steps={every}",
            "a start run and evaluations, in which its tasks are looked at",
        )

    def codec_of_tokens(self) -> str:
        """The codec. Raises ValueError where there is none."""
        if self.codec is None:
            raise ValueError(
                "RunConfig.codec: got None, wanted the codec that made the tokens, such as --codec tiny_16k"
            )
        return self.codec
