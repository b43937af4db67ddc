"""Every dataclass of a run. A file in `configs/` returns one `RunConfig`; the command line may override any field.

Sizes are decided here and nowhere else: a module never computes a number that a config could state.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from uniaudio_jax.checked import Checked
from uniaudio_jax.errors import require
from uniaudio_jax.vocab import PUBLIC_RANGES, Vocabulary

Remat = Literal["none", "dots", "full"]
"""What a backward pass computes again: nothing, all but the products with weights, or each layer from its input."""


@dataclass(frozen=True, kw_only=True)
class StackConfig(Checked):
    """One pre-LN Transformer stack."""

    layers: int
    """Transformer blocks."""
    width: int
    """Width D of the vectors between blocks; a multiple of heads."""
    heads: int
    """Attention heads."""
    attention: str = "auto"
    """Attention kernel, by its name in model/kernels; auto takes the one for this stack on this platform."""

    def __post_init__(self):
        super().__post_init__()
        require("StackConfig.layers", self.layers >= 1, str(self.layers), "at least 1")
        require(
            "StackConfig.heads",
            self.heads >= 1 and self.width % self.heads == 0,
            f"width={self.width}, heads={self.heads}",
            "a width that is a multiple of heads",
        )

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        """Width inside the MLP: 4 D, as in the public checkpoints."""
        return 4 * self.width

    @property
    def init_std(self) -> float:
        """Spread of fresh weights: the public code's 0.02 at its width 1536, and as 1 / sqrt(width) below."""
        return 0.02 * (1536 / self.width) ** 0.5


@dataclass(frozen=True, kw_only=True)
class LayoutConfig(Checked):
    """How both stacks are built; by default as in the public checkpoints."""

    positions: str = "learned"
    """How the global stack knows the order of frames, by its name in model/positions: learned or rotary. The levels of
    a frame have learned vectors in any case."""
    norm: str = "layer"
    """Normalisation before each part of a block, by its name in model/norms.py: layer, or rms without biases."""
    mlp: str = "gelu"
    """The activation of a block's MLP, by its name in model/mlps.py: gelu or squared_relu."""
    biases: bool = True
    """Whether linear maps of the blocks have biases."""
    query_key_norm: bool = False
    """Whether each head's queries and keys are normalised (arXiv 2302.05442)."""
    zero_outputs: bool = False
    """Whether a block's output maps start at zero, so that fresh blocks change nothing."""
    frame_vectors: Literal["concatenated", "summed"] = "concatenated"
    """How the tokens of a frame become its vector, and its global vector reaches the levels: as Q shares of the width,
    one for each level, or as one sum, of which each level sees all."""
    head: str = "shared"
    """What gives the logits, by its name in model/heads: shared over all ids, or levels, each over the ids that can
    come there."""

    def output_std(self, stack: StackConfig) -> float:
        """Spread of the fresh weights of a block's output maps."""
        return 0.0 if self.zero_outputs else stack.init_std


PAPER = LayoutConfig()
"""The layout of the public checkpoints."""
MODERN = LayoutConfig(
    positions="rotary",
    norm="rms",
    mlp="squared_relu",
    biases=False,
    query_key_norm=True,
    zero_outputs=True,
    frame_vectors="summed",
    head="levels",
)
"""The choices that learn more in equal time."""


def _pairs(kind: type) -> tyro.constructors.PrimitiveConstructorSpec:
    """NAME VALUE pairs on the command line as a dict of `kind` values."""

    def parse(words: list[str]) -> dict:
        if len(words) % 2:
            raise ValueError(f"got {' '.join(words)!r}, wanted pairs of a name and a number, such as tts 1")
        return {name: kind(value) for name, value in zip(words[::2], words[1::2], strict=True)}

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME NUMBER ...",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [word for name, number in value.items() for word in (name, str(number))],
    )


TaskWeights = Annotated[dict[str, float], _pairs(float)]
"""On the command line: `--data.tasks tts 1.0 enhancement 0.5`."""
RangeSizes = Annotated[dict[str, int], _pairs(int)]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Checked):
    """The multi-scale Transformer (arXiv 2310.00704 section 2.3)."""

    context_frames: int
    """The most frames of an example, the start frame included: rows of a learned position table."""
    codebooks: int
    """Q, the tokens of a frame."""
    text_width: int
    """Width of the frozen text encoder's vectors."""
    global_stack: StackConfig
    """The stack over frames."""
    local_stack: StackConfig
    """The stack over the tokens of one frame."""
    entries: int = 1024
    """Codes of one codebook."""
    appended: RangeSizes = field(default_factory=dict)
    """Sizes of further ranges of ids by name, after the public ones: text, class_event, sv_bool, language."""
    ranges: tuple[str, ...] = PUBLIC_RANGES
    """The public ranges of ids, in their order; a checkpoint imported with fewer ids has only the first of them."""
    vocabulary: int | None = None
    """Ids of the embeddings and the head, where these are more than the ranges need: padding that lets a mesh divide
    them, or the size of an imported checkpoint."""
    layout: LayoutConfig = PAPER
    """How the stacks are built."""

    def __post_init__(self):
        super().__post_init__()
        width = self.global_stack.width
        require(
            "ModelConfig.codebooks",
            self.codebooks >= 1 and width % self.codebooks == 0,
            f"codebooks={self.codebooks}, global width={width}",
            "a global width that is a multiple of codebooks",
        )
        require(
            "ModelConfig.local_stack.width",
            self.local_stack.width == width,
            str(self.local_stack.width),
            f"the global width {width}",
        )
        require(
            "ModelConfig.layout.head",
            self.layout.head != "levels" or (self.codebooks > 1 and "audio" in self.ranges),
            f"levels with {self.codebooks} codebooks and the ranges {self.ranges}",
            "at least 2 codebooks of audio, or the head shared",
        )
        for name, size in {"entries": self.entries, **self.appended}.items():
            require(f"ModelConfig, size of {name}", size >= 1, str(size), "at least 1")
        require(
            "ModelConfig.ranges",
            self.ranges == PUBLIC_RANGES[: len(self.ranges)],
            str(self.ranges),
            f"the first of {', '.join(PUBLIC_RANGES)}, in this order",
        )
        require(
            "ModelConfig.appended",
            not set(self.appended) & set(self.ranges),
            str(self.appended),
            f"names other than those of the public ranges, {', '.join(self.ranges)}",
        )
        if self.vocabulary is not None and self.vocabulary < self.ids.size:
            raise ValueError(
                f"ModelConfig.vocabulary: got {self.vocabulary} ids, but {self.codebooks} codebooks of {self.entries} "
                f"and the other ranges need {self.ids.size}; leave it out, or state at least {self.ids.size}"
            )

    @property
    def ids(self) -> Vocabulary:
        """What each id means."""
        return Vocabulary(self.codebooks, self.entries, self.appended, self.ranges)

    @property
    def vocabulary_size(self) -> int:
        """V, the ids of the embeddings and the head: as stated, else what the ranges need."""
        return self.ids.size if self.vocabulary is None else self.vocabulary

    @property
    def token_width(self) -> int:
        """Width of one token's part of a frame vector: its share D / Q, or all of D where the tokens are summed."""
        width = self.global_stack.width
        return width // self.codebooks if self.layout.frame_vectors == "concatenated" else width

    @property
    def first_ids(self) -> int:
        """Ids that can come at the first level: all but the codes of later ones."""
        return self.vocabulary_size - (self.codebooks - 1) * self.entries

    def canonical(self) -> "ModelConfig":
        """The same model with its vocabulary stated and automatic kernels: equal where two models share weights."""
        stacks = [dataclasses.replace(stack, attention="auto") for stack in (self.global_stack, self.local_stack)]
        return dataclasses.replace(self, vocabulary=self.vocabulary_size, global_stack=stacks[0], local_stack=stacks[1])


def check_codec(model: ModelConfig, codec: Mapping[str, Any]) -> None:
    """Raises ValueError unless the codec with this passport makes codes that fit the model's audio ids."""
    if codec["codebooks"] < model.codebooks or codec["entries"] != model.entries:
        raise ValueError(
            f"the codec {codec['codec']!r} has {codec['codebooks']} codebooks of {codec['entries']} entries, the model "
            f"wants {model.codebooks} of {model.entries}; set model.codebooks and model.entries, or name another codec"
        )


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
class TokenizerPaths(Checked):
    """Files of the tokenizers, instead of what the packages and this repository carry."""

    semantic_encoder: str | None = None
    """Folder of a HuBERT model in the Hugging Face layout; without it, Whisper-tiny's encoder."""
    semantic_clusters: str | None = None
    """Clusters of the semantic encoder's vectors; needed beside semantic_encoder."""
    text_encoder: str | None = None
    """Folder of a T5 encoder; without it, MiniLM."""
    word_pieces: str | None = None
    """A sentencepiece model; without it, the shipped one of 1000 English pieces."""
    labels: str | None = None
    """A text file with the name of one sound event a line; without it, AudioSet's."""
    lexicon: str | None = None
    """A pronunciation lexicon, whose words are looked up before espeak is asked."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Checked):
    """Packed rows of frames out of tokenised corpora."""

    root: str
    """Folder that holds the tokenised corpora; may be in a bucket, gs://… or s3://…, whose shards are copied here."""
    tasks: TaskWeights
    """Weight of each task: its share of the rows' frames, up to a common factor."""
    row_frames: int
    """T, the frames of a row."""
    target_frames: int
    """N, the most target frames of a row."""
    rows: int
    """Rows in a global batch."""
    text_frames: int
    """The most text vectors in a row."""
    prompt_seconds: float = 3.0
    """Length of a speaker prompt."""
    condition_dropout: float = 0.0
    """Share of the examples, others in each epoch, that are trained on without their conditions, whose marks then
    stand with nothing between them: what `--sampling.guidance` needs, such as 0.1. Held-out losses keep them all."""
    hours_power: float = 0.0
    """α: a task's weight is multiplied by (its hours of audio)^α. 0 leaves the weights as they are, 1 follows the
    hours; the paper draws old tasks with 0.05 while it fine-tunes."""
    loss_weights: TaskWeights = field(default_factory=dict)
    """How much a counted frame of a task counts in the loss, for targets of few tokens beside long ones; 1 by
    default."""
    tokenizers: TokenizerPaths = field(default_factory=TokenizerPaths)
    """What generation turns texts, labels and notes into tokens with: the tokenizers that made the corpora."""
    seed: int = 0
    """Of the order of the examples, the choice of speaker prompts and the conditions that are dropped."""

    def __post_init__(self):
        super().__post_init__()
        require(
            "DataConfig.target_frames",
            0 < self.target_frames <= self.row_frames,
            f"{self.target_frames} target frames of {self.row_frames}",
            "1 to row_frames",
        )
        require(
            "DataConfig.tasks",
            bool(self.tasks) and all(w > 0 for w in self.tasks.values()),
            str(self.tasks),
            "a positive weight for at least one task",
        )
        require(
            "DataConfig.loss_weights",
            self.loss_weights.keys() <= self.tasks.keys() and all(w > 0 for w in self.loss_weights.values()),
            str(self.loss_weights),
            f"positive weights for some of {list(self.tasks)}",
        )
        require("DataConfig.rows", self.rows >= 1, str(self.rows), "at least 1")
        require("DataConfig.text_frames", self.text_frames >= 1, str(self.text_frames), "at least 1")
        require("DataConfig.hours_power", 0 <= self.hours_power <= 1, str(self.hours_power), "0 to 1")
        share = self.condition_dropout
        require("DataConfig.condition_dropout", 0 <= share < 1, str(share), "at least 0 and less than 1")
        require("DataConfig.prompt_seconds", self.prompt_seconds > 0, str(self.prompt_seconds), "more than 0")


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
