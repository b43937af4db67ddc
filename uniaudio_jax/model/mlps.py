"""The MLP of a block, and its activations by name. A new one is a function here and a line in MLPS."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from uniaudio_jax.config import LayoutConfig, StackConfig
from uniaudio_jax.errors import did_you_mean
from uniaudio_jax.model.attention import linear


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


def squared_relu(x: Float[Array, "*any D"]) -> Float[Array, "*any D"]:
    """max(x, 0)² (arXiv 2109.08668)."""
    return jnp.square(jax.nn.relu(x))


class Mlp(nnx.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, config: StackConfig, layout: LayoutConfig, activation: Callable[[Array], Array], rngs: nnx.Rngs):
        width, hidden = config.width, config.hidden
        self.activation = activation
        self.up = linear(width, hidden, ("embed", "mlp"), config.init_std, rngs, layout.biases)
        self.down = linear(hidden, width, ("mlp", "embed"), layout.output_std(config), rngs, layout.biases)

    def __call__(self, x: Float[Array, "*any D"]) -> Float[Array, "*any D"]:
        return self.down(self.activation(self.up(x)))


MLPS = {"gelu": gelu, "squared_relu": squared_relu}


def make_mlp(config: StackConfig, layout: LayoutConfig, rngs: nnx.Rngs) -> Mlp:
    """The fresh MLP of one block. Raises ValueError for an unknown name."""
    name = layout.mlp
    if name not in MLPS:
        raise ValueError(f"model.layout.mlp: got {name!r}, wanted {' or '.join(MLPS)}{did_you_mean(name, MLPS)}")
    return Mlp(config, layout, MLPS[name], rngs)
