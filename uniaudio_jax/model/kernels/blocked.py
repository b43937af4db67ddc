"""Causal attention over packed rows, in blocks of queries, with a written gradient."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uniaudio_jax.model.kernels.kernel import MASKED, Kernel, cached_attention

QUERY_BLOCK = 128
"""Queries that are scored at once against all keys up to the last of them: half of the scores are never computed."""


@jax.custom_vjp
def packed_attention(
    query: Float[Array, "B T H E"],
    key: Float[Array, "B T H E"],
    value: Float[Array, "B T H E"],
    segments: Int[Array, "B T"] | None,
) -> Float[Array, "B T H E"]:
    """Causal attention within each segment of packed rows; without segments, within each row.

    The backward pass computes the scores again, block by block, from the logarithm of each query's sum (the idea of
    arXiv 2205.14135), so that no [T, T] array is kept.
    """
    return _packed_forward(query, key, value, segments)[0]


def _blocks(frames: int) -> list[slice]:
    return [slice(start, min(start + QUERY_BLOCK, frames)) for start in range(0, frames, QUERY_BLOCK)]


def _scores(query: Array, key: Array, segments: Array | None, block: slice) -> Array:
    """Scores [B, H, block, keys up to its end] of one block of queries, masked; queries and keys are [B, H, T, E]."""
    past = slice(0, block.stop)
    scores = jnp.einsum("bhqe,bhke->bhqk", query[:, :, block], key[:, :, past], preferred_element_type=jnp.float32)
    visible = (jnp.arange(block.start, block.stop)[:, None] >= jnp.arange(block.stop))[None]
    if segments is not None:
        visible &= segments[:, block, None] == segments[:, None, past]
    return jnp.where(visible[:, None], scores * query.shape[-1] ** -0.5, MASKED)


def _packed_forward(query: Array, key: Array, value: Array, segments: Array | None) -> tuple[Array, tuple]:
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    mixed, sums = [], []
    for block in _blocks(query.shape[2]):
        scores = _scores(query, key, segments, block)
        largest = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        total = weights.sum(axis=-1, keepdims=True)
        part = jnp.einsum("bhqk,bhke->bhqe", weights.astype(value.dtype), value[:, :, : block.stop])
        mixed.append((part / total).astype(value.dtype))
        sums.append(jnp.log(total) + largest)
    out = jnp.concatenate(mixed, axis=2)
    return out.swapaxes(1, 2), (query, key, value, segments, out, jnp.concatenate(sums, axis=2))


def _packed_backward(kept: tuple, d_out: Array) -> tuple[Array, Array, Array, None]:
    query, key, value, segments, out, sums = kept
    d_out = d_out.swapaxes(1, 2)
    weight_of_out = (d_out.astype(jnp.float32) * out).sum(axis=-1, keepdims=True)
    d_query, d_key, d_value = [], jnp.zeros_like(key), jnp.zeros_like(value)
    for block in _blocks(query.shape[2]):
        past = slice(0, block.stop)
        weights = jnp.exp(_scores(query, key, segments, block) - sums[:, :, block])
        d_weights = jnp.einsum(
            "bhqe,bhke->bhqk", d_out[:, :, block], value[:, :, past], preferred_element_type=jnp.float32
        )
        d_scores = weights * (d_weights - weight_of_out[:, :, block]) * query.shape[-1] ** -0.5
        d_scores, weights = d_scores.astype(query.dtype), weights.astype(query.dtype)
        d_query.append(jnp.einsum("bhqk,bhke->bhqe", d_scores, key[:, :, past]))
        d_key = d_key.at[:, :, past].add(jnp.einsum("bhqk,bhqe->bhke", d_scores, query[:, :, block]))
        d_value = d_value.at[:, :, past].add(jnp.einsum("bhqk,bhqe->bhke", weights, d_out[:, :, block]))
    return jnp.concatenate(d_query, axis=2).swapaxes(1, 2), d_key.swapaxes(1, 2), d_value.swapaxes(1, 2), None


packed_attention.defvjp(_packed_forward, _packed_backward)


KERNEL = Kernel(packed_attention, cached_attention)
