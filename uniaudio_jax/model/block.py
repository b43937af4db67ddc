"""One pre-LN Transformer block, and a stack of equal blocks held as one stacked block."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from uniaudio_jax.config import Remat, StackConfig
from uniaudio_jax.model.attention import Attention, Cache, Mix, linear
from uniaudio_jax.model.placement import ALONE, GATHERED, Placement

POLICIES = {
    "none": jax.checkpoint_policies.save_anything_except_these_names(GATHERED),
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": None,
}
"""What of a block is kept for the backward pass, by the name of a way to compute again."""


class Norm(nnx.Module):
    """Layer normalisation in float32, epsilon 1e-5."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.ones(width), axes=("embed",))
        self.bias = nnx.Param(jnp.zeros(width), axes=("embed",))

    def __call__(self, x: Float[Array, "*any D"]) -> Float[Array, "*any D"]:
        return (normalise(x.astype(jnp.float32)) * self.scale[...] + self.bias[...]).astype(x.dtype)


@jax.custom_vjp
def normalise(x: Float[Array, "*any D"]) -> Float[Array, "*any D"]:
    """Mean 0 and variance 1 along the last axis."""
    return _normalise(x)[0]


def _normalise(x: Array) -> tuple[Array, tuple[Array, Array]]:
    centred = x - x.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)
    normal = centred * inverse
    return normal, (normal, inverse)


def _normalise_back(kept: tuple[Array, Array], d: Array) -> tuple[Array]:
    normal, inverse = kept
    return (inverse * (d - d.mean(-1, keepdims=True) - normal * (d * normal).mean(-1, keepdims=True)),)


normalise.defvjp(_normalise, _normalise_back)


@jax.custom_jvp
def gelu(x: Float[Array, "*any D"]) -> Float[Array, "*any D"]:
    """The exact GELU, x Φ(x); the derivative is computed beside it, and is all that the backward pass keeps."""
    return x * _below(x)


@gelu.defjvp
def _gelu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    below = _below(x)
    density = jnp.exp(-0.5 * jnp.square(x)) * (2 * jnp.pi) ** -0.5
    return x * below, (below + x * density) * dx


def _below(x: Array) -> Array:
    """Φ(x), the share of a standard normal distribution below x."""
    return 0.5 * (1 + jax.lax.erf(x * 2**-0.5))


class Mlp(nnx.Module):
    """Two linear maps with the exact GELU between them."""

    def __init__(self, config: StackConfig, *, rngs: nnx.Rngs):
        self.up = linear(config.width, config.hidden, ("embed", "mlp"), config.init_std, rngs)
        self.down = linear(config.hidden, config.width, ("mlp", "embed"), config.init_std, rngs)

    def __call__(self, x: Float[Array, "*any D"]) -> Float[Array, "*any D"]:
        return self.down(gelu(self.up(x)))


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: StackConfig, *, rngs: nnx.Rngs):
        self.attention_norm = Norm(config.width, rngs=rngs)
        self.attention = Attention(config, rngs=rngs)
        self.mlp_norm = Norm(config.width, rngs=rngs)
        self.mlp = Mlp(config, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], mix: Mix, cache: Cache | None = None
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """The block's output, and the layer's new cache."""
        mixed, cache = self.attention(self.attention_norm(x), mix, cache)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), cache


def make_blocks(config: StackConfig, rngs: nnx.Rngs) -> Block:
    """`config.layers` blocks as one Block whose weights have a leading "layers" axis."""
    names = {nnx.PARTITION_NAME: "layers"}
    stacked = nnx.vmap(lambda r: Block(config, rngs=r), transform_metadata=names)(rngs.split(config.layers))
    for _, weight in nnx.to_flat_state(nnx.state(stacked, nnx.Param)):
        weight.set_metadata(axes=("layers", *weight.get_metadata("axes")))
    return stacked


def run_blocks(
    blocks: Block, x: Float[Array, "B T D"], mix: Mix, remat: Remat = "none", placement: Placement = ALONE
) -> Array:
    """The output of the last block.

    remat says what the backward pass computes again from each block's input: nothing, all but the products with weights
    ("dots"), or the whole block ("full"). Weights that come from other devices are gathered again in any case.
    Where nothing at all is computed again, the blocks follow one another in a plain loop: a scan would copy what each
    keeps for the backward pass into one array of all layers, and out of it again.
    """

    def body(x: Array, block: Block) -> tuple[Array, None]:
        return placement.rows(placement.weights(block)(x, mix)[0]), None

    if remat != "none" or placement.gathers:
        return jax.lax.scan(jax.checkpoint(body, policy=POLICIES[remat]), x, blocks)[0]
    for block in unstack(blocks):
        x, _ = body(x, block)
    return x


def fill_blocks(blocks: Block, x: Float[Array, "B T D"], mix: Mix) -> tuple[Array, list[Cache]]:
    """The output of the last block, and the cache of each."""
    x, caches = jax.lax.scan(lambda x, block: block(x, mix), x, blocks)
    return x, unstack(caches)


def step_blocks(
    blocks: list[Block], x: Float[Array, "B 1 D"], mix: Mix, caches: Sequence[Cache | None]
) -> tuple[Array, list[Cache]]:
    """The output of the last block for one more item, and the new cache of each.

    The layers come as a list, unstacked once for many steps: a scan over layers would copy every cache in
    each step.
    """
    new = []
    for block, cache in zip(blocks, caches, strict=True):
        x, cache = block(x, mix, cache)
        new.append(cache)
    return x, new


def unstack(stacked: Any) -> list[Any]:
    """A stacked block, or stacked caches, as a list by layer."""
    layers = jax.tree.leaves(stacked)[0].shape[0]
    return [jax.tree.map(lambda leaf, n=n: leaf[n], stacked) for n in range(layers)]
