"""Self-attention, and how a stack's items see each other."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from uniaudio_jax.config import LayoutConfig, StackConfig
from uniaudio_jax.model.kernels import choose_kernel
from uniaudio_jax.model.kernels.kernel import Kernel
from uniaudio_jax.model.norms import RmsNorm
from uniaudio_jax.model.placement import ALONE, Placement
from uniaudio_jax.model.positions import choose_positions
from uniaudio_jax.model.positions.kind import Positions


class Cache(NamedTuple):
    """Keys [B heads, head width, C] and values [B heads, C, head width] of the past of one layer, row after row.

    So the products with both need no other layout or shape, into which a CPU would copy the whole cache in each step.
    """

    keys: Array
    values: Array


Mix = Callable[[Array, Array, Array, Cache | None], tuple[Array, Cache]]
"""(queries, keys, values, each [B, T, H, E], the layer's cache) → mixed values [B, T, H, E] and the new cache."""


class Attend(NamedTuple):
    """One kernel and one kind of positions, for whole rows, for a step into a cache, and for a cache that grows."""

    kernel: Kernel
    positions: Positions

    def rows(
        self, positions: Int[Array, "*B T"], segments: Int[Array, "B T"] | None = None, placement: Placement = ALONE
    ) -> Mix:
        """Causal attention of whole rows within each segment; the cache that comes back holds the rows."""
        attend, turn = placement.attention(self.kernel.rows), self.positions.turn(positions)

        def mix(query: Array, key: Array, value: Array, _: Cache | None) -> tuple[Array, Cache]:
            query, key = turn(query), turn(key)
            return attend(query, key, value, segments), _cache_of(key, value)

        return mix

    def step(self, position: Int[Array, " B"], slot: Int[Array, ""]) -> Mix:
        """Attention of one more item at `position` of each row, which goes into `slot` of the cache and sees the
        `position` slots before it. With one slot for all rows the cache is written in place."""
        turn = self.positions.turn(position[:, None])

        def mix(query: Array, key: Array, value: Array, cache: Cache | None) -> tuple[Array, Cache]:
            assert cache is not None
            query, key = turn(query), turn(key)
            new = _cache_of(key, value)
            keys = jax.lax.dynamic_update_slice_in_dim(cache.keys, new.keys, slot, axis=2)
            cache = Cache(keys, jax.lax.dynamic_update_slice_in_dim(cache.values, new.values, slot, axis=1))
            before = slot - jnp.arange(cache.values.shape[1])
            visible = (before >= 0) & (before <= position[:, None])
            return self.kernel.cached(query, *cache, visible), cache

        return mix

    def grow(self, position: int) -> Mix:
        """Attention of the item at `position` over a cache that holds just the items before it (None for the first)."""
        turn = self.positions.turn(jnp.array([position]))

        def mix(query: Array, key: Array, value: Array, cache: Cache | None) -> tuple[Array, Cache]:
            query, key = turn(query), turn(key)
            grown = _cache_of(key, value)
            if cache is None:
                return value, grown  # the softmax of one score is 1
            keys = jnp.concatenate([cache.keys, grown.keys], axis=2)
            grown = Cache(keys, jnp.concatenate([cache.values, grown.values], axis=1))
            visible = jnp.ones((len(query), grown.values.shape[1]), bool)
            return self.kernel.cached(query, *grown, visible), grown

        return mix


def choose_attend(
    kernel: str, stack: Literal["global", "local"], positions: str, platform: str | None = None
) -> Attend:
    """The attention of a stack by the names in its config, on a platform, by default the one that JAX computes on.

    Raises ValueError for unknown names.
    """
    return Attend(choose_kernel(kernel, stack, platform), choose_positions(positions))


def _cache_of(key: Float[Array, "B T H E"], value: Float[Array, "B T H E"]) -> Cache:
    return Cache(rearrange(key, "B T H E -> (B H) E T"), rearrange(value, "B T H E -> (B H) T E"))


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
    """Multi-head attention. Keys have no bias in any case, as in the public checkpoints."""

    def __init__(self, config: StackConfig, layout: LayoutConfig, *, rngs: nnx.Rngs):
        width, std, biases = config.width, config.init_std, layout.biases
        self.heads = config.heads
        self.query = linear(width, width, ("embed", "heads"), std, rngs, biases)
        self.key = linear(width, width, ("embed", "heads"), std, rngs, use_bias=False)
        self.value = linear(width, width, ("embed", "heads"), std, rngs, biases)
        self.out = linear(width, width, ("heads", "embed"), layout.output_std(config), rngs, biases)
        self.joined: nnx.Linear | None = None
        self.query_norm = RmsNorm(config.head_width, "none") if layout.query_key_norm else None
        self.key_norm = RmsNorm(config.head_width, "none") if layout.query_key_norm else None

    def __call__(
        self, x: Float[Array, "B T D"], mix: Mix, cache: Cache | None = None
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """The attention's output, and the layer's new cache."""
        query, key, value = (rearrange(part, "B T (H E) -> B T H E", H=self.heads) for part in self._projected(x))
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        mixed, cache = mix(query, key, value, cache)
        return self.out(rearrange(mixed, "B T H E -> B T (H E)")), cache

    def _projected(self, x: Float[Array, "B T D"]) -> list[Float[Array, "B T D"]]:
        if self.joined is not None:
            return jnp.split(self.joined(x), 3, axis=-1)
        return [project(x) for project in (self.query, self.key, self.value)]

    def join_projections(self) -> None:
        """Makes one product of the three in place: in a step of few rows, a product costs more than its numbers do."""
        parts = (self.query, self.key, self.value)
        joined = nnx.Linear(self.query.in_features, 3 * self.query.out_features, rngs=nnx.Rngs(0))
        joined.kernel[...] = jnp.concatenate([part.kernel[...] for part in parts], axis=1)
        biases = [jnp.zeros(part.out_features) if part.bias is None else part.bias[...] for part in parts]
        joined.bias = nnx.Param(jnp.concatenate(biases))
        self.joined = nnx.data(joined)
        del self.query, self.key, self.value
