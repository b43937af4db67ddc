"""The optimizer."""

from dataclasses import dataclass
from typing import Literal

from uniaudio_jax.checked import Checked
from uniaudio_jax.errors import require


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Checked):
    """The optimizer and its learning rate; by default the paper's public recipe."""

    name: str = "adamw"
    """Optimizer, by its name in optim.py: adamw, or muon for the matrices of the blocks and AdamW for the rest."""
    schedule: str = "inverse_sqrt"
    """Learning rate by step, by its name in schedules.py: inverse_sqrt, warmup_cosine, warmup_stable_decay or
    constant."""
    peak_learning_rate: float = 5e-4
    """Learning rate at the end of the warm-up."""
    warmup_steps: int = 1000
    """Updates over which the learning rate rises linearly."""
    decay_share: float = 0.2
    """Last share of the updates, over which warmup_stable_decay falls to zero."""
    beta1: float = 0.9
    """Decay of the running mean of gradients."""
    beta2: float = 0.95
    """Decay of the running mean of squared gradients."""
    epsilon: float = 1e-8
    """Added to the root of the running mean of squared gradients."""
    weight_decay: float = 0.1
    """Share of a weight that is taken off it at each update, times the learning rate."""
    decayed: str = "kernels"
    """Weights that decay: kernels (of linear maps) or all."""
    clip_norm: float = 2.0
    """Length that a longer gradient is scaled down to."""
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format in which the running means are kept between updates; they are computed in float32."""

    def __post_init__(self):
        super().__post_init__()
        require("OptimConfig.warmup_steps", self.warmup_steps >= 1, str(self.warmup_steps), "at least 1")
        for name in ("peak_learning_rate", "epsilon", "clip_norm"):
            require(f"OptimConfig.{name}", getattr(self, name) > 0, str(getattr(self, name)), "more than 0")
        require("OptimConfig.decay_share", 0 < self.decay_share <= 1, str(self.decay_share), "more than 0, at most 1")
