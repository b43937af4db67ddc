"""Causal attention over packed rows on an NVIDIA GPU, by cuDNN's flash attention."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uniaudio_jax.errors import require
from uniaudio_jax.model.kernels.blocked import packed_attention
from uniaudio_jax.model.kernels.kernel import Kernel, cached_attention, pad_frames

FRAMES_MULTIPLE = 128
"""Rows are padded to this at their end. JAX lets cuDNN train on even rows alone, and with a mask some versions give NaN
gradients for a row that ends within a tile (pytorch/pytorch#196678)."""


def cudnn_attention(
    query: Float[Array, "B T H E"],
    key: Float[Array, "B T H E"],
    value: Float[Array, "B T H E"],
    segments: Int[Array, "B T"] | None,
    *,
    half: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B T H E"]:
    """Causal attention within each segment of packed rows; without segments, within each row.

    Segments cost a mask [B, 1, T, T] and its gradient. `half` is who computes in 16 bits; cuDNN does not take float32,
    which the kernel "blocked" then computes. Raises ValueError for a head width that cuDNN does not take.
    """
    if query.dtype == jnp.float32:
        return packed_attention(query, key, value, segments)
    frames, _, width = query.shape[1:]
    require(
        "attention 'cudnn'",
        width % 8 == 0 and width <= 256,
        f"heads {width} wide",
        "a multiple of 8 up to 256; choose attention 'blocked', or another number of heads",
    )
    padded = -(-frames // FRAMES_MULTIPLE) * FRAMES_MULTIPLE
    query, key, value = (pad_frames(x, padded) for x in (query, key, value))
    mask = None
    if segments is not None:
        segments = pad_frames(segments, padded)
        mask = (segments[:, :, None] == segments[:, None])[:, None]
    mixed = jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=True, implementation=half)
    return mixed[:, :frames]


KERNEL = Kernel(cudnn_attention, cached_attention, platforms=("gpu", "cuda"))
