"""The dataclasses of a codec and of its training. A file in `configs/` may return one `CodecTrainConfig`."""

from dataclasses import dataclass, field

from uniaudio_jax.checked import Checked
from uniaudio_jax.clock import FrameClock
from uniaudio_jax.codec.layouts import Layout
from uniaudio_jax.config import MeshConfig, OptimConfig
from uniaudio_jax.errors import require


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig(Checked):
    """A residual vector quantiser."""

    codebooks: int = 8
    """Levels, each with a codebook of its own."""
    entries: int = 1024
    """Entries of a codebook."""
    width: int = 64
    """Width of an entry, and of the layout's vectors."""

    def __post_init__(self):
        super().__post_init__()
        sizes = (self.codebooks, self.entries, self.width)
        require("QuantizerConfig", min(sizes) >= 1, " x ".join(map(str, sizes)), "positive sizes")


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(Checked):
    """Overlapping segments that are coded on their own, each divided by its volume (arXiv 2210.13438 section 3.5)."""

    samples: int
    """Samples of a segment."""
    stride: int
    """Samples from the start of a segment to the start of the next one."""

    def __post_init__(self):
        super().__post_init__()
        require(
            "SegmentConfig",
            0 < self.stride <= self.samples,
            f"samples={self.samples}, stride={self.stride}",
            "a stride of 1 to samples",
        )


@dataclass(frozen=True, kw_only=True)
class CodecConfig(Checked):
    """A codec: from a waveform to `quantizer.codebooks` codes per frame, and back."""

    name: str
    """Name in passports and reports."""
    layout: Layout
    """Encoder and decoder, see `uniaudio_jax/codec/layouts`."""
    quantizer: QuantizerConfig
    """Sizes of the codebooks."""
    sample_rate_hz: int = 16000
    """Sample rate of the waveform."""
    segment: SegmentConfig | None = None
    """Overlapping segments; None codes a recording as one stream of frames."""

    @property
    def hop_samples(self) -> int:
        return self.layout.hop_samples

    @property
    def clock(self) -> FrameClock:
        return FrameClock(self.sample_rate_hz, self.hop_samples)


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(Checked):
    """Discriminators beside the spectral losses. Weights are shares of the gradient at the codec's output."""

    start: int
    """Step from which on the discriminators take part."""
    spectral_weight: float = 1.0
    """Share of the spectral losses, mel and magnitude together."""
    adversarial_weight: float = 0.3
    """Share of the loss that wants the discriminators to take the codec's waveforms for real."""
    feature_weight: float = 0.5
    """Share of the loss that compares the discriminators' activations."""
    optim: OptimConfig = OptimConfig(
        schedule="constant",
        peak_learning_rate=3e-4,
        beta1=0.5,
        beta2=0.9,
        weight_decay=1e-4,
        decayed="all",
        clip_norm=1.0,
    )
    """How the discriminators are trained."""
    channels: int = 16
    """Width of the discriminators."""
    norm_decay: float = 0.99
    """Decay of the running mean of each loss's gradient length."""


@dataclass(frozen=True, kw_only=True)
class CodecTrainConfig(Checked):
    """Training of a codec: where its audio comes from, for how long, and the weights of its losses."""

    codec: CodecConfig
    """The codec to train."""
    audio: tuple[str, ...]
    """Corpora, each a domain: FORMAT:PLACE or a path, as the builder takes them.

    STOI is measured where a domain's name, that of its folder, begins with `speech` or `tts`.
    """
    steps: int
    """Optimizer updates to train for, those of the warm-up included."""
    warmup_steps: int
    """Updates without quantiser, before k-means starts the codebooks; 0 with `start_from`."""
    start_from: str | None = None
    """A shipped codec's name or a codec's folder, whose weights and codebooks the training starts from."""
    batch: int = 16
    """Rows of an update."""
    segment_seconds: float = 1.0
    """Length of a row."""
    optim: OptimConfig = OptimConfig(
        schedule="warmup_cosine",
        peak_learning_rate=1e-3,
        warmup_steps=200,
        beta2=0.99,
        weight_decay=0.01,
        decayed="all",
        clip_norm=1.0,
    )
    """How the codec is trained; optim.warmup_steps are those of the learning rate."""
    mel_weight: float = 1.0
    """Weight of the log-mel loss."""
    magnitude_weight: float = 1.0
    """Weight of the magnitude loss."""
    commitment_weight: float = 0.02
    """Weight of the loss that pulls the encoder's vectors towards their codebook entries."""
    codebook_decay: float = 0.99
    """Decay of the running means that the codebooks are."""
    decoder_only: bool = False
    """Leave the encoder and the codebooks of `start_from` as they are, so that its tokens stay valid."""
    main_codebooks: int = 3
    """Levels that `main_share` of the rows train with."""
    main_share: float = 0.5
    """Share of the rows that train with `main_codebooks`; the others train with a random number of levels."""
    dead_code_every_steps: int = 200
    """Updates between two replacements of codebook entries that are hardly used."""
    dead_code_share: float = 0.02
    """An entry used less than this share of an even use is replaced by a random residual."""
    mix_share: float = 0.3
    """Share of the rows that are a sum of two clips, the second 0 to 20 dB below the first."""
    save_every_steps: int = 500
    """Updates between two checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept."""
    log_every_steps: int = 20
    """Updates between two lines of metrics."""
    most_skipped_updates: int = 20
    """Updates in a row that may be skipped for a loss or gradient that is not finite; the training stops at the first
    line of metrics after so many."""
    sinks: tuple[str, ...] = ("jsonl", "tensorboard")
    """Where metrics go: jsonl, tensorboard, and with their packages wandb, aim, trackio."""
    adversarial: AdversarialConfig | None = None
    """Discriminators of the waveforms; None trains with the spectral losses alone."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """How the devices are laid out."""
    seed: int = 0
    """Seed of the weights, the batches and the random levels."""

    def __post_init__(self):
        super().__post_init__()
        most = self.most_skipped_updates
        require("CodecTrainConfig.most_skipped_updates", most >= 1, str(most), "at least 1")
        require("CodecTrainConfig.main_share", 0 <= self.main_share <= 1, str(self.main_share), "0 to 1")
        if self.start_from is None:
            require("CodecTrainConfig.decoder_only", not self.decoder_only, "True", "start_from beside it")
            require(
                "CodecTrainConfig.warmup_steps",
                0 < self.warmup_steps < self.steps,
                f"{self.warmup_steps} of {self.steps} steps",
                "more than 0 and fewer than steps",
            )
        else:
            require(
                "CodecTrainConfig.warmup_steps",
                self.warmup_steps == 0,
                str(self.warmup_steps),
                f"0, as start_from={self.start_from!r} brings its codebooks with it",
            )
