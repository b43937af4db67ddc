"""Causal attention over packed rows on a TPU, by JAX's splash attention: tile by tile, and no [T, T] array is kept.

Tiles after their queries are left out, so (1 + tile / T) / 2 of the T² scores are computed; segments leave out no tile.
The backward pass holds T / tile partial gradients of the queries. In bfloat16 it needs a TPU v4 or newer.
"""

from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uniaudio_jax.model.kernels.kernel import Kernel, cached_attention, pad_frames

LANES = 128
"""Splash attention takes tiles whose sides are multiples of a TPU's lanes."""
LARGEST_TILE = 512
"""Queries, and keys, of one tile: what is computed from it fits the 16 MiB of fast memory that a kernel gets."""


def splash_attention(
    query: Float[Array, "B T H E"],
    key: Float[Array, "B T H E"],
    value: Float[Array, "B T H E"],
    segments: Int[Array, "B T"] | None,
    *,
    largest_tile: int = LARGEST_TILE,
    interpret: bool = False,
) -> Float[Array, "B T H E"]:
    """Causal attention within each segment of packed rows; without segments, within each row.

    Rows are padded to whole tiles at their end, where no real query looks. `interpret` runs it where there is no TPU.
    """
    # Pallas takes longer to import than all else of the model: only who computes with it waits for it.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    frames, heads, width = query.shape[1:]
    tile, padded = tiles(frames, largest_tile)
    # Splash attention does not scale. In float32, as a scale in bfloat16 would be wrong in all scores alike.
    query = (query.astype(jnp.float32) * width**-0.5).astype(query.dtype)
    query, key, value = (pad_frames(x, padded).swapaxes(1, 2) for x in (query, key, value))
    if segments is not None:
        segments = pad_frames(segments, padded)
    attend = splash.make_splash_mha(
        splash.MultiHeadMask([splash.CausalMask((padded, padded))] * heads),
        block_sizes=splash.BlockSizes(
            block_q=tile, block_kv=tile, block_q_dkv=tile, block_kv_dkv=tile, use_fused_bwd_kernel=True
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    ids = None if segments is None else splash.SegmentIds(q=segments, kv=segments)
    mixed = cast(Array, jax.vmap(attend)(query, key, value, ids))
    return mixed[:, :, :frames].swapaxes(1, 2)


def tiles(frames: int, largest: int) -> tuple[int, int]:
    """The side of a tile, and the frames of as many equal tiles as a row of `frames` needs."""
    count = -(-frames // largest)
    tile = -(-frames // (count * LANES)) * LANES
    return tile, count * tile


KERNEL = Kernel(splash_attention, cached_attention, platforms=("tpu",))
