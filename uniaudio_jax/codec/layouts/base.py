"""What the codec, its storage and its training ask of a layout: the protocol that every layout follows.

A layout is a frozen dataclass of sizes that inherits from `Layout`, beside the module it builds. It turns a waveform
into one vector for each hop of samples, and vectors into a waveform; quantisation happens between the two, outside.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

from flax import nnx
from jaxtyping import Array, Float, Int

from uniaudio_jax.codec.layouts.streaming import Stage
from uniaudio_jax.codec.layouts.tensors import Tensor

Apply = Callable[..., Any]
"""`apply(function, *inputs)` is `function(module, *inputs)`, compiled; the function stands at the top of a file."""


@runtime_checkable
class CodecModule(Protocol):
    """A layout's encoder and decoder. One channel is [B, S], more are [B, S, C].

    frames: how many frames of each row count. None means all, and is all that a layout without `pads_rows` need know.
    """

    def encode(
        self, wav: Float[Array, "B S *C"], frames: Int[Array, " B"] | None = None
    ) -> Float[Array, "B T width"]: ...

    def decode(
        self, vectors: Float[Array, "B T width"], frames: Int[Array, " B"] | None = None
    ) -> Float[Array, "B S *C"]: ...


class Layout(abc.ABC):
    """The sizes of a codec's encoder and decoder, and what can be done with them."""

    kind: ClassVar[str]
    """The layout's name in passports and in `LAYOUTS`."""
    pads_rows: ClassVar[bool] = False
    """Whether rows of a batch may be padded to a common length, without a change of their own frames."""
    hop_samples: int
    """Samples of a frame."""
    channels: int = 1
    """Channels of the waveform."""
    margin_frames: int = 0
    """Frames on each side that a frame's code or samples depend on; unused where the layout gives stages."""
    streams: bool = True
    """Whether recordings can be coded piece by piece; not so where a frame depends on the whole recording."""

    @abc.abstractmethod
    def build(self, width: int, *, sample_rate_hz: int, rngs: nnx.Rngs) -> CodecModule:
        """The untrained module, an `nnx.Module`; `width` is that of the vectors."""

    def for_inference(self, params: dict) -> tuple["Layout", dict]:
        """A layout and parameters that compute the same faster, but cannot be trained on."""
        return self, params

    def encoder_stages(self, apply: Apply) -> list[Stage]:
        """Stages from samples [S, *C] to vectors [T, width]; none where the whole encoder is one window."""
        return []

    def decoder_stages(self, apply: Apply) -> list[Stage]:
        """Stages from vectors [T, width] to samples [S, *C]; none where the whole decoder is one window."""
        return []

    def torch_tensors(self, width: int) -> tuple[Tensor, ...]:
        """Encoder and decoder in the layout's PyTorch format. Raises ValueError where it has none."""
        raise ValueError(f"codec layout: got {self.kind!r}, wanted one with a PyTorch format, such as 'seanet'")
