"""Every dataclass of a run. A file in `configs/` returns one `RunConfig`; the command line may override any field.

Sizes are decided here and nowhere else: a module never computes a number that a config could state.
"""

import dataclasses
import difflib
import math
import runpy
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from uniaudio_jax.vocab import Vocabulary


def _require(where: str, good: bool, got: str, wanted: str) -> None:
    if not good:
        raise ValueError(f"{where}: got {got}, wanted {wanted}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """An ending for an error about an unknown `name`: "; did you mean 'tts'?", or nothing when none is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else ""


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """One pre-LN Transformer stack."""

    layers: int
    width: int
    heads: int

    def __post_init__(self):
        _require("StackConfig.layers", self.layers >= 1, str(self.layers), "at least 1")
        _require("StackConfig.heads", self.heads >= 1 and self.width % self.heads == 0,
                 f"width={self.width}, heads={self.heads}", "a width that is a multiple of heads")  # fmt: skip

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


def _pairs(kind: type) -> tyro.constructors.PrimitiveConstructorSpec:
    """NAME VALUE pairs on the command line as a dict of `kind` values."""

    def parse(words: list[str]) -> dict:
        if len(words) % 2:
            raise ValueError(f"got {' '.join(words)!r}, wanted pairs of a name and a number, such as tts 1")
        return {name: kind(value) for name, value in zip(words[::2], words[1::2], strict=True)}

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*", metavar="NAME NUMBER ...", instance_from_str=parse,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [word for name, number in value.items() for word in (name, str(number))],
    )  # fmt: skip


TaskWeights = Annotated[dict[str, float], _pairs(float)]
"""On the command line: `--data.tasks tts 1.0 enhancement 0.5`."""
RangeSizes = Annotated[dict[str, int], _pairs(int)]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The multi-scale Transformer (arXiv 2310.00704 section 2.3), in the layout of the public checkpoints.

    vocabulary: ids that the embedding and the head know; at least as many as the ranges below need.
    appended: sizes of further ranges by name, after the public ones: text, class_event, sv_bool, language.
    context_frames: rows of the learned position table, the start frame included.
    codebooks: Q, tokens per frame.
    text_width: width of the frozen text encoder's vectors.
    """

    vocabulary: int
    context_frames: int
    codebooks: int
    text_width: int
    global_stack: StackConfig
    local_stack: StackConfig
    appended: RangeSizes = field(default_factory=dict)

    def __post_init__(self):
        width = self.global_stack.width
        _require(
            "ModelConfig.codebooks",
            self.codebooks >= 1 and width % self.codebooks == 0,
            f"codebooks={self.codebooks}, global width={width}",
            "a global width that is a multiple of codebooks",
        )
        _require(
            "ModelConfig.local_stack.width",
            self.local_stack.width == width,
            str(self.local_stack.width),
            f"the global width {width} (public layout)",
        )
        for name, size in self.appended.items():
            _require(f"ModelConfig.appended.{name}", size >= 1, str(size), "at least 1")

    @property
    def ids(self) -> Vocabulary:
        """What each id means."""
        return Vocabulary(self.codebooks, appended=self.appended)

    @property
    def token_width(self) -> int:
        """Width of one token's share of a frame vector, D / Q."""
        return self.global_stack.width // self.codebooks


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each mesh axis; data=-1 takes what the other two leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        _require(
            "MeshConfig",
            self.fsdp >= 1 and self.tensor >= 1 and (self.data == -1 or self.data >= 1),
            f"data={self.data}, fsdp={self.fsdp}, tensor={self.tensor}",
            "positive sizes (data may be -1)",
        )


@dataclass(frozen=True, kw_only=True)
class TokenizerPaths:
    """Files of the tokenizers, instead of what the packages and this repository carry.

    semantic_encoder: folder of a HuBERT model (Hugging Face layout), with its semantic_clusters; Whisper-tiny's encoder
        and the shipped clusters without them. text_encoder: folder of a T5 encoder; MiniLM without it.
    word_pieces: a sentencepiece model. labels: a text file with one name of a sound event a line.
    lexicon: a pronunciation lexicon, whose words are not asked of espeak.
    """

    semantic_encoder: str | None = None
    semantic_clusters: str | None = None
    text_encoder: str | None = None
    word_pieces: str | None = None
    labels: str | None = None
    lexicon: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Packed rows of frames out of tokenised datasets.

    root: folder that holds the TFDS datasets; tasks: weight of each task, its share of the rows' frames.
    loss_weights: how much a counted frame of a task counts in the loss, for targets of few tokens beside long ones; 1
        for tasks that are not named.
    hours_power: α; a task's weight is multiplied by (its hours of audio)^α, so 0 leaves the weights as they are and 1
        follows the hours; the paper draws old tasks with 0.05 while it fine-tunes.
    row_frames: T; target_frames: N, the static number of target frames of a row; rows: rows in a global batch.
    text_frames: the most text vectors in a row. prompt_seconds: length of a speaker prompt.
    tokenizers: what generation turns texts, labels and notes into tokens with; those that made the datasets.
    """

    root: str
    tasks: TaskWeights
    row_frames: int
    target_frames: int
    rows: int
    text_frames: int
    prompt_seconds: float = 3.0
    hours_power: float = 0.0
    loss_weights: TaskWeights = field(default_factory=dict)
    tokenizers: TokenizerPaths = field(default_factory=TokenizerPaths)
    seed: int = 0

    def __post_init__(self):
        _require("DataConfig.target_frames", 0 < self.target_frames <= self.row_frames,
                 f"{self.target_frames} target frames of {self.row_frames}", "1 to row_frames")  # fmt: skip
        _require("DataConfig.tasks", bool(self.tasks) and all(w > 0 for w in self.tasks.values()),
                 str(self.tasks), "a positive weight for at least one task")  # fmt: skip
        _require("DataConfig.loss_weights", self.loss_weights.keys() <= self.tasks.keys()
                 and all(w > 0 for w in self.loss_weights.values()), str(self.loss_weights),
                 f"positive weights for some of {list(self.tasks)}")  # fmt: skip
        _require("DataConfig.rows", self.rows >= 1, str(self.rows), "at least 1")
        _require("DataConfig.text_frames", self.text_frames >= 1, str(self.text_frames), "at least 1")
        _require("DataConfig.hours_power", 0 <= self.hours_power <= 1, str(self.hours_power), "0 to 1")
        _require("DataConfig.prompt_seconds", self.prompt_seconds > 0, str(self.prompt_seconds), "more than 0")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and inverse square root decay."""

    peak_learning_rate: float = 5e-4
    warmup_steps: int = 1000
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    clip_norm: float = 2.0

    def __post_init__(self):
        _require("OptimConfig.warmup_steps", self.warmup_steps >= 1, str(self.warmup_steps), "at least 1")
        _require("OptimConfig.peak_learning_rate", self.peak_learning_rate > 0,
                 str(self.peak_learning_rate), "more than 0")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training loop.

    steps: optimizer updates; accumulate: batches per update; loss_on: frames that count, the target's or all.
    local_chunk_frames: frames that the local program holds at once.
    evaluate_every_steps: how often the held-out loss of every task is measured (also before the first step), over at
        most evaluate_batches batches of each; None for never.
    remat: recompute the layers of a stack in the backward pass instead of keeping their activations.
    peak_tflops: peak of one device for the model FLOP utilisation; None measures a matmul on this machine.
    """

    steps: int
    accumulate: int = 1
    loss_on: Literal["target", "all"] = "target"
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    local_chunk_frames: int = 512
    remat: bool = True
    save_every_steps: int = 1000
    keep_checkpoints: int = 2
    log_every_steps: int = 10
    evaluate_every_steps: int | None = None
    evaluate_batches: int = 8
    peak_tflops: float | None = None
    seed: int = 0

    def __post_init__(self):
        counts = (
            "steps",
            "accumulate",
            "local_chunk_frames",
            "save_every_steps",
            "keep_checkpoints",
            "log_every_steps",
            "evaluate_every_steps",
            "evaluate_batches",
        )
        for name in counts:
            count = getattr(self, name)
            _require(f"TrainConfig.{name}", count is None or count >= 1, str(count), "at least 1")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run of the language model.

    codec: name of a shipped codec, or path of a codec's folder; None where only weights were imported.
    start_from: a run folder whose newest weights a fresh training begins with (fine-tuning); its ids must mean the same
        here, further ranges and tasks may be added.
    """

    name: str
    codec: str | None
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    start_from: str | None = None

    def __post_init__(self):
        _require("RunConfig.data.row_frames", self.data.row_frames <= self.model.context_frames,
                 str(self.data.row_frames), f"at most model.context_frames={self.model.context_frames}")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """Residual vector quantiser: `codebooks` levels of `entries` vectors of `width`."""

    codebooks: int = 8
    entries: int = 1024
    width: int = 64

    def __post_init__(self):
        _require("QuantizerConfig", min(self.codebooks, self.entries, self.width) >= 1,
                 f"{self.codebooks} x {self.entries} x {self.width}", "positive sizes")  # fmt: skip


ConvNorm = Literal["weight_norm", "time_group_norm", "folded"]
"""Norm of a convolution: of its kernel, of its output, or of its kernel and already multiplied in."""


@dataclass(frozen=True, kw_only=True)
class SeanetConfig:
    """Convolutional encoder and decoder with an LSTM (arXiv 2210.13438); the defaults are the public UniAudio layout.

    channels: of the waveform. causal: no sample depends on a later one (beyond the mirror at the very start).
    """

    filters: int = 32
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    residual_kernel: int = 3
    kernel: int = 7
    lstm_layers: int = 2
    compress: int = 2
    channels: int = 1
    causal: bool = False
    norm: ConvNorm = "weight_norm"

    def __post_init__(self):
        sizes = (self.filters, *self.ratios, self.residual_kernel, self.kernel, self.lstm_layers, self.compress,
                 self.channels)  # fmt: skip
        _require("SeanetConfig.norm", self.norm != "time_group_norm" or not self.causal, "time_group_norm and causal",
                 "causal=False, as that norm looks at all frames")  # fmt: skip
        _require("SeanetConfig", bool(self.ratios) and min(sizes) >= 1, str(self), "positive sizes, at least one ratio")
        _require("SeanetConfig.filters", self.filters % self.compress == 0,
                 f"filters={self.filters}, compress={self.compress}", "a multiple of compress")  # fmt: skip

    @property
    def hop_samples(self) -> int:
        return math.prod(self.ratios)


@dataclass(frozen=True, kw_only=True)
class FrameRateConfig:
    """All layers at the frame rate, in the manner of Vocos (arXiv 2306.00814): log-mel, ConvNeXt, RVQ, iSTFT."""

    hop_samples: int = 320
    window_samples: int = 1280
    mel_bands: int = 80
    width: int = 256
    hidden: int = 768
    encoder_blocks: int = 4
    decoder_blocks: int = 6
    kernel: int = 7

    def __post_init__(self):
        _require(
            "FrameRateConfig.window_samples",
            self.window_samples % self.hop_samples == 0,
            f"window {self.window_samples}, hop {self.hop_samples}",
            "a window that is a multiple of the hop",
        )

    @property
    def margin_frames(self) -> int:
        """Frames on each side that a frame's code or samples depend on."""
        return (
            max(self.encoder_blocks, self.decoder_blocks) * (self.kernel // 2) + self.window_samples // self.hop_samples
        )


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """A codec that works on overlapping segments, each divided by its volume (arXiv 2210.13438 section 3.5)."""

    samples: int
    stride: int

    def __post_init__(self):
        _require("SegmentConfig", 0 < self.stride <= self.samples, f"samples={self.samples}, stride={self.stride}",
                 "a stride of 1 to samples")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """A codec: waveform at `sample_rate_hz` to `quantizer.codebooks` codes per `hop_samples`, and back."""

    name: str
    layout: SeanetConfig | FrameRateConfig
    quantizer: QuantizerConfig
    sample_rate_hz: int = 16000
    segment: SegmentConfig | None = None

    @property
    def layout_kind(self) -> Literal["seanet", "frame_rate"]:
        return "seanet" if isinstance(self.layout, SeanetConfig) else "frame_rate"

    @property
    def hop_samples(self) -> int:
        return self.layout.hop_samples

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop_samples


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """Judges beside the spectral losses, from step `start` on.

    The weights are shares of the gradient at the codec's output (see `codec/balancer.py`); the spectral share counts
    the mel and the magnitude loss as one. channels: width of the judges. norm_decay: of the running gradient lengths.
    """

    start: int
    spectral_weight: float = 1.0
    adversarial_weight: float = 0.3
    feature_weight: float = 0.5
    learning_rate: float = 3e-4
    channels: int = 16
    norm_decay: float = 0.99


@dataclass(frozen=True, kw_only=True)
class CodecTrainConfig:
    """Training of a codec: where its audio comes from, for how long, and the weights of its losses.

    audio: folders of wav files, each with a `manifest.jsonl` that names splits, or with held-out files in `heldout`;
        a folder's name is its domain, and STOI is measured where it begins with `speech` or `tts`.
    warmup_steps: unquantised steps before the k-means start of the codebooks; 0 with `start_from`.
    start_from: a shipped codec's name or a codec's folder, whose weights and codebooks the training goes on with.
    main_codebooks: half of the rows train with this many levels, the rest with a random number of them.
    revive_every_steps, revive_below: how often, and under which share of even use, an entry is moved to a residual.
    mix_share: rows that are the sum of two clips, the second 0 to 20 dB below the first.
    adversarial: judges of the waveforms; None trains with the spectral losses alone.
    """

    codec: CodecConfig
    audio: tuple[str, ...]
    steps: int
    warmup_steps: int
    start_from: str | None = None
    batch: int = 16
    segment_seconds: float = 1.0
    peak_learning_rate: float = 1e-3
    mel_weight: float = 1.0
    magnitude_weight: float = 1.0
    commitment_weight: float = 0.02
    codebook_decay: float = 0.99
    main_codebooks: int = 3
    revive_every_steps: int = 200
    revive_below: float = 0.02
    mix_share: float = 0.3
    learning_rate_warmup_steps: int = 200
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    save_every_steps: int = 500
    log_every_steps: int = 20
    adversarial: AdversarialConfig | None = None
    mesh: MeshConfig = field(default_factory=MeshConfig)
    seed: int = 0

    def __post_init__(self):
        if self.start_from is None:
            _require("CodecTrainConfig.warmup_steps", 0 < self.warmup_steps < self.steps,
                     f"{self.warmup_steps} of {self.steps} steps", "more than 0 and fewer than steps")  # fmt: skip
        else:
            _require("CodecTrainConfig.warmup_steps", self.warmup_steps == 0, str(self.warmup_steps),
                     f"0, as the codebooks of start_from={self.start_from!r} are there")  # fmt: skip


def load_config(path: str | Path):
    """Returns what `get_config()` of the Python file at `path` returns: a RunConfig or a CodecTrainConfig."""
    path = Path(path)
    if not path.is_file():
        near = ", ".join(sorted(str(p) for p in path.parent.glob("*.py"))) if path.parent.is_dir() else "none"
        raise ValueError(f"{path}: no such config file; beside it: {near}")
    content = runpy.run_path(str(path))
    if "get_config" not in content:
        raise ValueError(f"{path}: no function get_config() in it; see configs/quickstart.py for the form")
    return content["get_config"]()


def to_dict(config) -> dict:
    """The config as plain JSON values."""
    return dataclasses.asdict(config)


def from_dict(kind: type, values: dict):
    """The inverse of `to_dict` for a dataclass of plain values and dataclasses."""
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    if surplus := sorted(set(values) - known):
        raise ValueError(f"{kind.__name__}: got fields {surplus}, wanted some of {sorted(known)}")
    nested = {name: from_dict(hints[name], value) if dataclasses.is_dataclass(hints[name]) else value
              for name, value in values.items()}  # fmt: skip
    return kind(**nested)
