"""Every dataclass of a run. A file in `configs/` returns one `RunConfig`; the command line may override any field.

Sizes are decided here and nowhere else: a module never computes a number that a config could state.
"""

from uniaudio_jax.config.data import DataConfig, TokenizerPaths
from uniaudio_jax.config.finetuning import GuardConfig, LoraConfig
from uniaudio_jax.config.model import MODERN, PAPER, LayoutConfig, ModelConfig, StackConfig, check_codec
from uniaudio_jax.config.optim import OptimConfig
from uniaudio_jax.config.pairs import RangeSizes, TaskWeights
from uniaudio_jax.config.run import RunConfig
from uniaudio_jax.config.train import MeshConfig, Remat, TrainConfig

__all__ = [
    "MODERN",
    "PAPER",
    "DataConfig",
    "GuardConfig",
    "LayoutConfig",
    "LoraConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimConfig",
    "RangeSizes",
    "Remat",
    "RunConfig",
    "StackConfig",
    "TaskWeights",
    "TokenizerPaths",
    "TrainConfig",
    "check_codec",
]
