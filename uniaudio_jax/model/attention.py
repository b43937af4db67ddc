"""Self-attention with the projections of the public checkpoints; the inner sum is handed in."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from uniaudio_jax.config import StackConfig
from uniaudio_jax.model.kernels import cached_attention

Attend = Callable[[Array, Array, Array], Array]
"""(queries, keys, values), each [B, T, heads, head width] → mixed values: one of `kernels`."""


class Cache(NamedTuple):
    """Keys and values of the past of one layer, [B, heads, C, head width]."""

    keys: Array
    values: Array


def linear(
    inputs: int, outputs: int, axes: tuple[str, str], std: float, rngs: nnx.Rngs, use_bias: bool = True
) -> nnx.Linear:
    """A linear map that names the axes of its weights; they start normal with this spread, the bias at zero."""
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=use_bias,
        rngs=rngs,
        kernel_init=nnx.initializers.normal(std),
        kernel_metadata={"axes": axes},
        bias_metadata={"axes": axes[1:]},
    )


class Attention(nnx.Module):
    """Multi-head attention with biases on query, value and output and none on the key."""

    def __init__(self, config: StackConfig, *, rngs: nnx.Rngs):
        width, std = config.width, config.init_std
        self.heads, self.head_width = config.heads, config.head_width
        self.query = linear(width, width, ("embed", "heads"), std, rngs)
        self.key = linear(width, width, ("embed", "heads"), std, rngs, use_bias=False)
        self.value = linear(width, width, ("embed", "heads"), std, rngs)
        self.out = linear(width, width, ("heads", "embed"), std, rngs)

    def __call__(self, x: Float[Array, "B T D"], attend: Attend) -> tuple[Float[Array, "B T D"], Cache]:
        """The attention's output, and the keys and values for a cache."""
        query, key, value = self.project(x)
        return self.join(attend(query, key, value)), Cache(key.swapaxes(1, 2), value.swapaxes(1, 2))

    def step(
        self, x: Float[Array, "B 1 D"], cache: Cache, position: Int[Array, " B"]
    ) -> tuple[Float[Array, "B 1 D"], Cache]:
        """Attention of one more item at `position` of each row: it sees the cache up to itself."""
        query, key, value = self.project(x)
        rows = jnp.arange(len(x))
        cache = Cache(
            cache.keys.at[rows, :, position].set(key[:, 0]), cache.values.at[rows, :, position].set(value[:, 0])
        )
        seen = jnp.arange(cache.keys.shape[2])[None] <= position[:, None]
        return self.join(cached_attention(query, *cache, seen)), cache

    def grow(self, x: Float[Array, "B 1 D"], cache: Cache | None) -> tuple[Float[Array, "B 1 D"], Cache]:
        """Attention of one more item over a cache that holds just the items before it (none for the first)."""
        query, key, value = self.project(x)
        grown = Cache(key.swapaxes(1, 2), value.swapaxes(1, 2))
        if cache is not None:
            grown = Cache(*(jnp.concatenate(pair, axis=2) for pair in zip(cache, grown, strict=True)))
        seen = jnp.ones((len(x), grown.keys.shape[2]), bool)
        return self.join(cached_attention(query, *grown, seen)), grown

    def project(self, x: Float[Array, "B T D"]) -> tuple[Array, Array, Array]:
        """Queries, keys and values, split into heads: [B, T, H, E] each."""

        def heads(y: Array) -> Array:
            return y.reshape(*y.shape[:2], self.heads, self.head_width)

        return heads(self.query(x)), heads(self.key(x)), heads(self.value(x))

    def join(self, mixed: Float[Array, "B T H E"]) -> Float[Array, "B T D"]:
        """The output projection of the heads' mixed values."""
        return self.out(mixed.reshape(*mixed.shape[:2], -1))
