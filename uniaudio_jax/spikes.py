"""What counts as a spike of the loss: far above the running mean of the losses that were learned from."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

DECAY = 0.99
"""Of the running mean and variance at each update."""
LEAST_UPDATES = 50
"""Losses that must be known before one can be a spike."""
LEAST_DEVIATION = 0.01
"""A smaller deviation counts as this share of the mean: the losses of large batches barely differ."""


class LossLevel(NamedTuple):
    """Running mean and variance of the losses of the updates that were made, and how many these were."""

    mean: Any
    variance: Any
    updates: Any


def no_level() -> LossLevel:
    """The level before the first update."""
    return LossLevel(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))


def with_loss(level: LossLevel, loss: Float[Array, ""]) -> LossLevel:
    """The level after one more loss. While there are few of them each counts the same."""
    rate = jnp.maximum(1 / (level.updates + 1), 1 - DECAY)
    above = loss - level.mean
    variance = (1 - rate) * (level.variance + rate * above**2)
    return LossLevel(level.mean + rate * above, variance, level.updates + 1)


def loss_limit(level: LossLevel | None, deviations: float | None) -> Float[Array, ""]:
    """The highest loss that is no spike: `deviations` above the mean. Infinite without a level, or too young a one."""
    if level is None or deviations is None:
        return jnp.float32(jnp.inf)
    deviation = jnp.maximum(jnp.sqrt(level.variance), LEAST_DEVIATION * level.mean)
    return jnp.where(level.updates >= LEAST_UPDATES, level.mean + deviations * deviation, jnp.inf)
