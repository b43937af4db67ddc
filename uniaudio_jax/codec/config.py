"""The dataclasses of a codec and of its training. A file in `configs/` may return one `CodecTrainConfig`."""

import math
from dataclasses import dataclass, field
from typing import Literal

from uniaudio_jax.config import MeshConfig, require


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """Residual vector quantiser: `codebooks` levels of `entries` vectors of `width`."""

    codebooks: int = 8
    entries: int = 1024
    width: int = 64

    def __post_init__(self):
        require(
            "QuantizerConfig",
            min(self.codebooks, self.entries, self.width) >= 1,
            f"{self.codebooks} x {self.entries} x {self.width}",
            "positive sizes",
        )


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
        sizes = (
            self.filters,
            *self.ratios,
            self.residual_kernel,
            self.kernel,
            self.lstm_layers,
            self.compress,
            self.channels,
        )
        require(
            "SeanetConfig.norm",
            self.norm != "time_group_norm" or not self.causal,
            "time_group_norm and causal",
            "causal=False, as that norm looks at all frames",
        )
        require("SeanetConfig", bool(self.ratios) and min(sizes) >= 1, str(self), "positive sizes, at least one ratio")
        require(
            "SeanetConfig.filters",
            self.filters % self.compress == 0,
            f"filters={self.filters}, compress={self.compress}",
            "a multiple of compress",
        )

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
        require(
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
        require(
            "SegmentConfig",
            0 < self.stride <= self.samples,
            f"samples={self.samples}, stride={self.stride}",
            "a stride of 1 to samples",
        )


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
    """Discriminators beside the spectral losses, from step `start` on.

    The weights are shares of the gradient at the codec's output (see `codec/balancer.py`); the spectral share counts
    the mel and the magnitude loss as one. channels: width of the discriminators. norm_decay: of the running gradient
    lengths.
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
    replace_every_steps, replace_below: how often, and under which share of even use, an entry is moved to a residual.
    mix_share: rows that are the sum of two clips, the second 0 to 20 dB below the first.
    adversarial: discriminators of the waveforms; None trains with the spectral losses alone.
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
    replace_every_steps: int = 200
    replace_below: float = 0.02
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
                f"0, as the codebooks of start_from={self.start_from!r} are there",
            )
