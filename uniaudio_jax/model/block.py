"""One pre-LN Transformer block, and a stack of equal blocks held as one stacked block."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from uniaudio_jax.config import LayoutConfig, Remat, StackConfig
from uniaudio_jax.model.attention import Attention, Cache, Mix
from uniaudio_jax.model.mlps import make_mlp
from uniaudio_jax.model.norms import make_norm
from uniaudio_jax.model.placement import ALONE, GATHERED, Placement

POLICIES = {
    "none": jax.checkpoint_policies.save_anything_except_these_names(GATHERED),
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": None,
}
"""What of a block is kept for the backward pass, by the name of a way to compute again."""


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: StackConfig, layout: LayoutConfig, *, rngs: nnx.Rngs):
        self.attention_norm = make_norm(layout.norm, config.width)
        self.attention = Attention(config, layout, rngs=rngs)
        self.mlp_norm = make_norm(layout.norm, config.width)
        self.mlp = make_mlp(config, layout, rngs)

    def __call__(
        self, x: Float[Array, "B T D"], mix: Mix, cache: Cache | None = None
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """The block's output, and the layer's new cache."""
        mixed, cache = self.attention(self.attention_norm(x), mix, cache)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), cache


def make_blocks(config: StackConfig, layout: LayoutConfig, rngs: nnx.Rngs) -> Block:
    """`config.layers` blocks as one Block whose weights have a leading "layers" axis."""
    names = {nnx.PARTITION_NAME: "layers"}
    stacked = nnx.vmap(lambda r: Block(config, layout, rngs=r), transform_metadata=names)(rngs.split(config.layers))
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
