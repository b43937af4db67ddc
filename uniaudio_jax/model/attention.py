"""Causal self-attention over whole rows, and over one more frame with a cache."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from uniaudio_jax.config import StackConfig

MASKED = -1e30
"""Score of a pair that must not be seen: finite, so that a row of padding alone gives no NaN."""


class Cache(NamedTuple):
    """Keys and values of the past, [B, C, heads, head width]; stacked over layers where a stack holds it."""

    keys: Array
    values: Array


def linear(
    inputs: int, outputs: int, axes: tuple[str, str], std: float, rngs: nnx.Rngs, use_bias: bool = True
) -> nnx.Linear:
    """A linear map that names the axes of its weights; they start normal with this spread, the bias at zero."""
    return nnx.Linear(inputs, outputs, use_bias=use_bias, rngs=rngs, kernel_init=nnx.initializers.normal(std),
                      kernel_metadata={"axes": axes}, bias_metadata={"axes": axes[1:]})  # fmt: skip


class Attention(nnx.Module):
    """Multi-head attention with biases on query, value and output and none on the key."""

    def __init__(self, config: StackConfig, *, rngs: nnx.Rngs):
        width, std = config.width, config.init_std
        self.heads, self.head_width = config.heads, config.head_width
        self.query = linear(width, width, ("embed", "heads"), std, rngs)
        self.key = linear(width, width, ("embed", "heads"), std, rngs, use_bias=False)
        self.value = linear(width, width, ("embed", "heads"), std, rngs)
        self.out = linear(width, width, ("heads", "embed"), std, rngs)

    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "#B T T"]) -> tuple[Float[Array, "B T D"], Cache]:
        """Attention under `mask` [B, query, key], and the keys and values for a cache."""
        query, cache = self.project(x)
        return self.attend(query, cache, mask), cache

    def step(
        self, x: Float[Array, "B 1 D"], cache: Cache, position: Int[Array, " B"]
    ) -> tuple[Float[Array, "B 1 D"], Cache]:
        """Attention of one more item at `position` of each row: it sees the cache up to itself."""
        query, new = self.project(x)
        rows = jnp.arange(len(x))
        keys = cache.keys.at[rows, position].set(new.keys[:, 0])
        values = cache.values.at[rows, position].set(new.values[:, 0])
        cache = Cache(keys, values)
        seen = jnp.arange(keys.shape[1])[None, None] <= position[:, None, None]
        return self.attend(query, cache, seen), cache

    def project(self, x: Float[Array, "B T D"]) -> tuple[Float[Array, "B T H E"], Cache]:
        def heads(y: Array) -> Array:
            return y.reshape(*y.shape[:2], self.heads, self.head_width)

        return heads(self.query(x)), Cache(heads(self.key(x)), heads(self.value(x)))

    def attend(self, query: Float[Array, "B T H E"], cache: Cache, mask: Bool[Array, "#B T C"]) -> Array:
        scores = jnp.einsum("bqhe,bkhe->bhqk", query * self.head_width**-0.5, cache.keys)
        scores = jnp.where(mask[:, None], scores.astype(jnp.float32), MASKED)
        weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
        mixed = jnp.einsum("bhqk,bkhe->bqhe", weights, cache.values)
        return self.out(mixed.reshape(*mixed.shape[:2], -1))
