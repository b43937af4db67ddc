"""EnCodec's loss balancer (arXiv 2210.13438 equation 5): each loss has its share of the gradient at any scale."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-12


def balanced_gradient(
    losses: Mapping[str, Callable[[Float[Array, "B S"]], Float[Array, ""]]],
    weights: Mapping[str, float],
    output: Float[Array, "B S"],
    norms: Mapping[str, Float[Array, ""]],
    decay: float,
) -> tuple[Float[Array, "B S"], dict[str, Float[Array, ""]], dict[str, Float[Array, ""]]]:
    """(gradient at `output`, values of the losses, new `norms`).

    The gradient is the mean, weighted by `weights`, of the losses' own gradients, each divided by the running mean of
    its length. norms: those running means; 0 before the first update.
    """
    total, values, fresh = jnp.zeros_like(output), {}, {}
    share = sum(weights[name] for name in losses)
    for name, loss in losses.items():
        values[name], gradient = jax.value_and_grad(loss)(output)
        length = jnp.sqrt(jnp.sum(jnp.square(gradient)))
        fresh[name] = jnp.where(norms[name] > 0, decay * norms[name] + (1 - decay) * length, length)
        total += weights[name] / share * gradient / (fresh[name] + EPSILON)
    return total, values, fresh
