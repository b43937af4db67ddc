"""The training loop, and the mesh that it runs on."""

import math
from dataclasses import dataclass, field
from typing import Literal

from uniaudio_jax.checked import Checked
from uniaudio_jax.config.finetuning import GuardConfig
from uniaudio_jax.errors import require

Remat = Literal["none", "dots", "full"]
"""What a backward pass computes again: nothing, all but the products with weights, or each layer from its input."""


@dataclass(frozen=True, kw_only=True)
class MeshConfig(Checked):
    """Devices along each axis of the mesh."""

    data: int = -1
    """Copies of the weights; -1 takes the devices that the other two axes leave."""
    fsdp: int = 1
    """Parts that each weight is cut into, gathered where it is used."""
    tensor: int = 1
    """Parts of heads, MLP and vocabulary that are computed apart."""

    def __post_init__(self):
        super().__post_init__()
        require(
            "MeshConfig",
            self.fsdp >= 1 and self.tensor >= 1 and (self.data == -1 or self.data >= 1),
            f"data={self.data}, fsdp={self.fsdp}, tensor={self.tensor}",
            "positive sizes (data may be -1)",
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Checked):
    """The training loop."""

    steps: int
    """Optimizer updates to train for."""
    accumulate: int = 1
    """Batches of one update."""
    loss_on: Literal["target", "all"] = "target"
    """Frames that the loss counts: those of the target, or all."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the forward and backward pass; the weights are float32."""
    local_share: float = 1.0
    """Share of a row's counted frames that the local stack learns from at each update, drawn anew and weighted up to
    all of them; losses held out count everything."""
    ema_decay: float | None = None
    """Decay at each update of a running mean of the weights, such as 0.999, which is then evaluated and generated with;
    None keeps no mean."""
    local_chunk_frames: int = 512
    """Frames that the local program holds at once on each device."""
    global_remat: Remat = "full"
    """What the backward pass of the global stack computes again instead of keeping it: none, dots (all but the products
    with weights) or full (each layer from its input)."""
    local_remat: Remat = "none"
    """The same of the local stack, for each chunk of frames."""
    save_every_steps: int = 1000
    """Updates between two checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept."""
    log_every_steps: int = 10
    """Updates between two lines of metrics."""
    most_skipped_updates: int = 20
    """Updates in a row that may be skipped for a loss or gradient that is not finite or a spike of the loss; the
    training stops at the first line of metrics after so many."""
    spike_deviations: float | None = None
    """An update is skipped where its loss is so many standard deviations above the running mean of the losses before
    it, such as 10; None skips only what is not finite."""
    most_incidents: int = 3
    """Skipped updates whose weights, batch and gradient norms are saved in the folder incidents of the run, each time
    that the training is started; 0 for none."""
    evaluate_every_steps: int | None = None
    """Updates between two measurements of every task's held-out loss, the first before training; None for none."""
    evaluate_batches: int = 8
    """The most held-out batches of a task that are measured while training."""
    generate_every_steps: int | None = None
    """Updates between two times that the run generates for the same held-out examples; audio and metrics go to the
    sinks. None for never."""
    generate_count: int = 2
    """Held-out examples of each task that are generated for each time."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    peak_tflops: float | None = None
    """Peak of one device in 1e12 operations a second, for the utilisation; None measures a product of matrices."""
    profile_steps: tuple[int, int] | None = None
    """First and last step of a trace by jax's profiler, in the folder profile of the run. The signal SIGUSR1 traces the
    next steps of a training at any time."""
    sinks: tuple[str, ...] = ("jsonl", "tensorboard")
    """Where metrics go: jsonl, tensorboard, and with their packages wandb, aim, trackio."""
    seed: int = 0
    """Of the fresh weights, and of the frames that local_share draws."""

    def __post_init__(self):
        super().__post_init__()
        counts = (
            "steps",
            "accumulate",
            "local_chunk_frames",
            "save_every_steps",
            "keep_checkpoints",
            "log_every_steps",
            "most_skipped_updates",
            "evaluate_every_steps",
            "evaluate_batches",
            "generate_every_steps",
            "generate_count",
        )
        for name in counts:
            count = getattr(self, name)
            require(f"TrainConfig.{name}", count is None or count >= 1, str(count), "at least 1")
        spike = self.spike_deviations
        require("TrainConfig.spike_deviations", spike is None or spike > 0, str(spike), "None, or more than 0")
        require("TrainConfig.most_incidents", self.most_incidents >= 0, str(self.most_incidents), "at least 0")
        first, last = self.profile_steps or (1, 1)
        require("TrainConfig.profile_steps", 1 <= first <= last, f"{first} {last}", "1 <= FIRST <= LAST")
        require("TrainConfig.local_share", 0 < self.local_share <= 1, str(self.local_share), "more than 0, at most 1")
        decay = self.ema_decay
        require("TrainConfig.ema_decay", decay is None or 0 < decay < 1, str(decay), "None, or between 0 and 1")

    def local_frames(self, counted: int) -> int:
        """Frames of a row that the local stack learns from, where there is room for `counted`."""
        return math.ceil(self.local_share * counted)
