"""Sizes and layout of the model."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from uniaudio_jax.checked import Checked
from uniaudio_jax.config.pairs import RangeSizes
from uniaudio_jax.errors import require
from uniaudio_jax.vocab import PUBLIC_RANGES, Vocabulary


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
    aligned: tuple[int, ...] = ()
    """A frame also gets what the conditions hold so many frames ahead of it, 0 for the same time (`model/aligned.py`);
    nothing where there are none."""
    head: str = "shared"
    """What gives the logits, by its name in model/heads: shared over all ids, or levels, each over the ids that can
    come there."""

    def __post_init__(self):
        super().__post_init__()
        require(
            "LayoutConfig.aligned",
            all(frames >= 0 for frames in self.aligned) and len(set(self.aligned)) == len(self.aligned),
            str(self.aligned),
            "different numbers of frames, each 0 or more",
        )

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
    zero_outputs=True,
    frame_vectors="summed",
    head="levels",
)
"""The choices that learn more in equal time."""


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
