"""AdamW with warm-up and inverse square root decay; a non-finite gradient changes nothing."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float

from uniaudio_jax.config import OptimConfig


class TrainState(NamedTuple):
    """Everything that an update changes. step counts updates, skipped those that a non-finite gradient stopped."""

    params: Any
    optimizer: Any
    step: Any
    skipped: Any


def learning_rate(config: OptimConfig, step: ArrayLike) -> Float[Array, ""]:
    """Rises linearly to the peak at `warmup_steps`, then falls with 1 / sqrt(step)."""
    step = jnp.maximum(jnp.asarray(step) + 1.0, 1.0)
    return config.peak_learning_rate * jnp.minimum(step / config.warmup_steps, jnp.sqrt(config.warmup_steps / step))


def make_optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """Clips to `clip_norm`, then AdamW; only the kernels of linear maps decay."""

    def kernels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            lambda step: learning_rate(config, step),
            config.beta1,
            config.beta2,
            weight_decay=config.weight_decay,
            mask=kernels,
        ),
    )


def apply_gradients(
    optimizer: optax.GradientTransformation, state: TrainState, gradients: Any, tokens: Float[Array, ""]
) -> tuple[TrainState, Float[Array, ""]]:
    """The state after one update, and the gradient's norm.

    gradients: of the loss summed over `tokens` tokens. When their norm is not finite, weights and moments stay as
    they are; the step still counts, so that the data moves on.
    """
    gradients = jax.tree.map(lambda g: g / jnp.maximum(tokens, 1.0), gradients)
    norm = optax.tree.norm(gradients)
    good = jnp.isfinite(norm)
    updates, moments = optimizer.update(gradients, state.optimizer, state.params)
    fresh = (optax.apply_updates(state.params, updates), moments)
    params, moments = jax.tree.map(lambda new, old: jnp.where(good, new, old), fresh, (state.params, state.optimizer))
    return TrainState(params, moments, state.step + 1, state.skipped + jnp.where(good, 0, 1)), norm
