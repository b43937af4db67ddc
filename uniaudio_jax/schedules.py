"""Learning rates by step. A new schedule is a function here and a line in SCHEDULES."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from uniaudio_jax.config import OptimConfig
from uniaudio_jax.errors import did_you_mean

Schedule = Callable[[Any], Any]
"""Number of updates so far → learning rate of the next one."""


def inverse_sqrt(config: OptimConfig, steps: int) -> Schedule:
    """Rises linearly to the peak at `warmup_steps`, then falls with 1 / sqrt(step)."""

    def rate(step):
        number = jnp.maximum(jnp.asarray(step) + 1.0, 1.0)
        return config.peak_learning_rate * jnp.minimum(
            number / config.warmup_steps, jnp.sqrt(config.warmup_steps / number)
        )

    return rate


def warmup_cosine(config: OptimConfig, steps: int) -> Schedule:
    """Rises linearly to the peak at `warmup_steps`, then falls along a cosine to a hundredth of it at the last step."""
    peak = config.peak_learning_rate
    return optax.warmup_cosine_decay_schedule(0.0, peak, min(config.warmup_steps, steps - 1), steps, peak / 100)


def warmup_stable_decay(config: OptimConfig, steps: int) -> Schedule:
    """Rises linearly to the peak at `warmup_steps`, stays there, and falls with 1 - sqrt (arXiv 2405.18392) over the
    last `decay_share` of the steps, to zero after the last one."""
    decay_steps = config.decay_share * steps

    def rate(step):
        risen = jnp.minimum((jnp.asarray(step) + 1.0) / config.warmup_steps, 1.0)
        fallen = jnp.clip(1 - (steps - jnp.asarray(step)) / decay_steps, 0.0, 1.0)
        return config.peak_learning_rate * risen * (1 - jnp.sqrt(fallen))

    return rate


def constant(config: OptimConfig, steps: int) -> Schedule:
    """The peak at every step."""
    return optax.constant_schedule(config.peak_learning_rate)


SCHEDULES: dict[str, Callable[[OptimConfig, int], Schedule]] = {
    "inverse_sqrt": inverse_sqrt,
    "warmup_cosine": warmup_cosine,
    "warmup_stable_decay": warmup_stable_decay,
    "constant": constant,
}


def make_schedule(config: OptimConfig, steps: int) -> Schedule:
    """The learning rate by step of a training of `steps` updates."""
    if config.schedule not in SCHEDULES:
        raise ValueError(
            f"OptimConfig.schedule: got {config.schedule!r}, wanted one of {', '.join(SCHEDULES)}"
            f"{did_you_mean(config.schedule, SCHEDULES)}"
        )
    return SCHEDULES[config.schedule](config, steps)
