"""What an attention kernel is, and the attention over a cache that kernels share.

Queries and mixed values are [B, T, heads, head width], and so are keys and values except those of a cache: keys
[B heads, head width, C] and values [B heads, C, head width]. Scores and softmax are in float32.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

MASKED = -1e30
"""Score of a pair that must not be seen: finite, so that a row of padding alone gives no NaN."""


class Kernel(NamedTuple):
    """One way to compute attention, over whole rows and over a cache."""

    rows: Callable[[Array, Array, Array, Array | None], Array]
    """(queries, keys, values, segments [B, T] or None) → mixed values: causal, and within each segment alone."""
    cached: Callable[[Array, Array, Array, Array], Array]
    """(queries of one item, cached keys, cached values, visible [B, C]) → mixed values."""
    platforms: tuple[str, ...] | None = None
    """Where its rows can be computed; None is everywhere."""


def cached_attention(
    query: Float[Array, "B 1 H E"],
    keys: Float[Array, "N E C"],
    values: Float[Array, "N C E"],
    visible: Bool[Array, "B C"],
) -> Float[Array, "B 1 H E"]:
    """Attention of one more item over the visible part of a cache."""
    heads, width = query.shape[2:]
    queries = query.reshape(-1, width)
    scores = jnp.einsum("ne,nek->nk", queries, keys, preferred_element_type=jnp.float32) * width**-0.5
    scores = jnp.where(jnp.repeat(visible, heads, axis=0), scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return jnp.einsum("nk,nke->ne", weights, values).reshape(query.shape)


def pad_frames(x: Shaped[Array, "B T *rest"], frames: int) -> Shaped[Array, "B frames *rest"]:
    """Rows with zeros at their end up to so many frames; in causal attention no item before them sees them."""
    return jnp.pad(x, [(0, 0), (0, frames - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
