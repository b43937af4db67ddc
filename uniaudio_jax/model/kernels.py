"""The inner sums of attention: causal over packed rows, over the few tokens of a frame, and over a cache.

Queries and mixed values are [B, T, heads, head width], and so are keys and values but for those of a cache, which are
[B, heads, C, head width]. Scores and softmax are in float32.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MASKED = -1e30
"""Score of a pair that must not be seen: finite, so that a row of padding alone gives no NaN."""

QUERY_BLOCK = 128
"""Queries that are scored at once against all keys up to the last of them: half of the scores are never made."""


@jax.custom_vjp
def packed_attention(
    query: Float[Array, "B T H E"],
    key: Float[Array, "B T H E"],
    value: Float[Array, "B T H E"],
    segments: Int[Array, "B T"],
) -> Float[Array, "B T H E"]:
    """Causal attention within each segment of packed rows.

    The backward pass makes the scores again, block by block, from the logarithm of each query's sum (the idea of
    arXiv 2205.14135), so that no [T, T] array is kept.
    """
    return _packed_forward(query, key, value, segments)[0]


def _blocks(frames: int) -> list[slice]:
    return [slice(start, min(start + QUERY_BLOCK, frames)) for start in range(0, frames, QUERY_BLOCK)]


def _scores(query: Array, key: Array, segments: Array, block: slice) -> Array:
    """Scores [B, H, block, keys up to its end] of one block of queries, masked; queries and keys are [B, H, T, E]."""
    seen = slice(0, block.stop)
    scores = jnp.einsum("bhqe,bhke->bhqk", query[:, :, block], key[:, :, seen], preferred_element_type=jnp.float32)
    causal = jnp.arange(block.start, block.stop)[:, None] >= jnp.arange(block.stop)
    visible = causal & (segments[:, block, None] == segments[:, None, seen])
    return jnp.where(visible[:, None], scores * query.shape[-1] ** -0.5, MASKED)


def _packed_forward(query: Array, key: Array, value: Array, segments: Array) -> tuple[Array, tuple[Array, ...]]:
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    mixed, sums = [], []
    for block in _blocks(query.shape[2]):
        scores = _scores(query, key, segments, block)
        best = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - best)
        total = weights.sum(axis=-1, keepdims=True)
        part = jnp.einsum("bhqk,bhke->bhqe", weights.astype(value.dtype), value[:, :, : block.stop])
        mixed.append((part / total).astype(value.dtype))
        sums.append(jnp.log(total) + best)
    out = jnp.concatenate(mixed, axis=2)
    return out.swapaxes(1, 2), (query, key, value, segments, out, jnp.concatenate(sums, axis=2))


def _packed_backward(kept: tuple[Array, ...], d_out: Array) -> tuple[Array, Array, Array, None]:
    query, key, value, segments, out, sums = kept
    d_out = d_out.swapaxes(1, 2)
    weight_of_out = (d_out.astype(jnp.float32) * out).sum(axis=-1, keepdims=True)
    d_query, d_key, d_value = [], jnp.zeros_like(key), jnp.zeros_like(value)
    for block in _blocks(query.shape[2]):
        seen = slice(0, block.stop)
        weights = jnp.exp(_scores(query, key, segments, block) - sums[:, :, block])
        d_weights = jnp.einsum(
            "bhqe,bhke->bhqk", d_out[:, :, block], value[:, :, seen], preferred_element_type=jnp.float32
        )
        d_scores = weights * (d_weights - weight_of_out[:, :, block]) * query.shape[-1] ** -0.5
        d_scores, weights = d_scores.astype(query.dtype), weights.astype(query.dtype)
        d_query.append(jnp.einsum("bhqk,bhke->bhqe", d_scores, key[:, :, seen]))
        d_key = d_key.at[:, :, seen].add(jnp.einsum("bhqk,bhqe->bhke", d_scores, query[:, :, block]))
        d_value = d_value.at[:, :, seen].add(jnp.einsum("bhqk,bhqe->bhke", weights, d_out[:, :, block]))
    return jnp.concatenate(d_query, axis=2).swapaxes(1, 2), d_key.swapaxes(1, 2), d_value.swapaxes(1, 2), None


packed_attention.defvjp(_packed_forward, _packed_backward)


def frame_attention(
    query: Float[Array, "F Q H E"], key: Float[Array, "F Q H E"], value: Float[Array, "F Q H E"]
) -> Float[Array, "F Q H E"]:
    """Causal attention among the few tokens of each frame, as sums of products pair by pair.

    On a CPU several times quicker than a batch of Q x Q matrix products, forward and backward (`bench train`).
    """
    mixed = []
    for level in range(query.shape[1]):
        past = range(level + 1)
        one = query[:, level].astype(jnp.float32) * query.shape[-1] ** -0.5
        weights = jax.nn.softmax(jnp.stack([(one * key[:, other]).sum(axis=-1) for other in past], axis=-1), axis=-1)
        parts = [weights[..., other, None].astype(value.dtype) * value[:, other] for other in past]
        mixed.append(sum(parts[1:], parts[0]))
    return jnp.stack(mixed, axis=1)


def cached_attention(
    query: Float[Array, "B 1 H E"],
    keys: Float[Array, "B H C E"],
    values: Float[Array, "B H C E"],
    seen: Bool[Array, "B C"],
) -> Float[Array, "B 1 H E"]:
    """Attention of one more item over the part of a cache that it may see; a head's past lies in one piece."""
    scores = jnp.einsum("bqhe,bhke->bhqk", query, keys, preferred_element_type=jnp.float32) * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(seen[:, None, None], scores, MASKED), axis=-1).astype(values.dtype)
    return jnp.einsum("bhqk,bhke->bqhe", weights, values)
