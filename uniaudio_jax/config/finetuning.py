"""Going on from a finished run: adapters, and a guard for its tasks."""

from dataclasses import dataclass

from uniaudio_jax.checked import Checked
from uniaudio_jax.errors import require


@dataclass(frozen=True, kw_only=True)
class LoraConfig(Checked):
    """Low-rank adapters (arXiv 2106.09685), which are trained in place of the weights that start_from gives."""

    rank: int | None = None
    """Rank of the adapters, such as 8; None trains all weights, without adapters."""
    alpha: float = 16.0
    """What the adapters add is multiplied by alpha / rank."""
    targets: tuple[str, ...] = ("*.blocks.attention.*.kernel", "*.blocks.mlp.*.kernel")
    """Patterns of the kernels that get adapters, such as global.blocks.attention.query.kernel."""
    also: tuple[str, ...] = ()
    """Patterns of weights that are trained whole beside the adapters, such as *.embedding and local.head.*, which a
    task with new ids needs."""

    def __post_init__(self):
        super().__post_init__()
        require("LoraConfig.rank", self.rank is None or self.rank >= 1, str(self.rank), "None, or at least 1")
        require("LoraConfig.alpha", self.alpha > 0, str(self.alpha), "more than 0")
        none, given = self.rank is None, str(self.also)
        require("LoraConfig.also", not (none and self.also), given, "none without a rank, as all weights are trained")
        require("LoraConfig.targets", bool(self.targets), str(self.targets), "at least one pattern")

    @property
    def scale(self) -> float:
        """What the product of two adapters is multiplied by."""
        return self.alpha / (self.rank or 1)


@dataclass(frozen=True, kw_only=True)
class GuardConfig(Checked):
    """A fine-tuning that goes back, and on with a lower learning rate, where a task of the start run gets worse."""

    margin: float | None = None
    """Nats per token by which the held-out loss of a task of the start run may rise, such as 0.05; None for no guard.
    It is looked at in each evaluation."""
    rate_factor: float = 0.5
    """What the learning rate is multiplied by each time that the training goes back."""
    most_returns: int = 3
    """How often the training goes back and on; the next time it goes back and ends."""

    def __post_init__(self):
        super().__post_init__()
        margin, factor, returns = self.margin, self.rate_factor, self.most_returns
        require("GuardConfig.margin", margin is None or margin >= 0, str(margin), "None, or at least 0")
        require("GuardConfig.rate_factor", 0 < factor < 1, str(factor), "between 0 and 1")
        require("GuardConfig.most_returns", returns >= 0, str(returns), "at least 0")
