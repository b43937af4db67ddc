"""Optimizers by name, and the update that is left out for a loss or gradient that is not finite or a spike of the loss.

A new optimizer is a function here and a line in OPTIMIZERS; schedules stand in `schedules.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from uniaudio_jax.config import OptimConfig
from uniaudio_jax.errors import did_you_mean
from uniaudio_jax.schedules import Schedule, make_schedule
from uniaudio_jax.spikes import LossLevel, loss_limit, with_loss


class TrainState(NamedTuple):
    """Everything that an update changes. step counts updates, skipped those that were left out for a loss or gradient
    that was not finite or a spike of the loss; ema is the running mean of the weights, level that of the loss, each
    None where none is kept."""

    params: Any
    optimizer: Any
    step: Any
    skipped: Any
    ema: Any = None
    level: LossLevel | None = None

    @property
    def weights(self) -> Any:
        """The weights to evaluate and generate with: their mean, where one is kept."""
        return self.params if self.ema is None else self.ema

    def start_ema(self) -> "TrainState":
        """The same state, whose mean of the weights is the weights."""
        return self._replace(ema=jax.tree.map(jnp.copy, self.params))

    def at(self, step: int) -> "TrainState":
        """The same weights and moments at another step, from which the schedule goes on."""

        def moved(path: Any, leaf: Any) -> Any:
            is_count = path[-1] == jax.tree_util.GetAttrKey("count")
            return jax.device_put(np.int32(step), leaf.sharding) if is_count else leaf

        optimizer = jax.tree_util.tree_map_with_path(moved, self.optimizer)
        return self._replace(optimizer=optimizer, step=jax.device_put(np.int32(step), self.step.sharding))


def mean_weights(ema: Any, params: Any, step: Int[Array, ""], decay: float) -> Any:
    """The running mean of the weights after update number `step`.

    The decay is at most (1 + step) / (10 + step), as in TensorFlow's ExponentialMovingAverage, so that the mean soon
    forgets the fresh weights.
    """
    return optax.incremental_update(params, ema, 1 - jnp.minimum(decay, (1 + step) / (10 + step)))


def adamw(config: OptimConfig, schedule: Schedule) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101); the weights that `config.decayed` names decay."""
    return optax.adamw(
        schedule,
        config.beta1,
        config.beta2,
        config.epsilon,
        weight_decay=config.weight_decay,
        mask=DECAYED[config.decayed],
    )


def muon(config: OptimConfig, schedule: Schedule) -> optax.GradientTransformation:
    """Muon (https://kellerjordan.github.io/posts/muon) for the matrices of the blocks, layer by layer; AdamW for the
    rest.

    Its updates are scaled to the size of AdamW's (arXiv 2502.16982), so that both take one learning rate and one decay.
    """
    matrices = optax.contrib.muon(
        schedule,
        weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=optax.contrib.MuonDimensionNumbers(-2, -1),
        consistent_rms=0.2,
    )
    return optax.partition({"muon": matrices, "adamw": adamw(config, schedule)}, muon_or_adamw)


OPTIMIZERS: dict[str, Callable[[OptimConfig, Schedule], optax.GradientTransformation]] = {"adamw": adamw, "muon": muon}


def kernels(params: Any) -> Any:
    """Which weights are the kernels of linear maps, as a tree of booleans."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key.endswith("kernel"), params)


def muon_or_adamw(params: Any) -> Any:
    """The tree with "muon" for each kernel inside a stack's blocks, and "adamw" for embeddings, heads and the rest."""

    def label(path: Any, is_kernel: bool) -> str:
        return "muon" if is_kernel and any(node.key == "blocks" for node in path) else "adamw"

    return jax.tree_util.tree_map_with_path(label, kernels(params))


DECAYED: dict[str, Callable[[Any], Any] | None] = {"kernels": kernels, "all": None}
"""Name of a rule → the mask of the weights that decay; None for all of them."""


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer of a training of `steps` updates: gradients are clipped to `clip_norm` first."""
    for field, name, known in (("name", config.name, OPTIMIZERS), ("decayed", config.decayed, DECAYED)):
        if name not in known:
            raise ValueError(
                f"OptimConfig.{field}: got {name!r}, wanted one of {', '.join(known)}{did_you_mean(name, known)}"
            )
    update = OPTIMIZERS[config.name](config, make_schedule(config, steps))
    whole = optax.chain(optax.clip_by_global_norm(config.clip_norm), update)
    return whole if config.state_dtype == "float32" else stored_as(whole, jnp.dtype(config.state_dtype))


def stored_as(optimizer: optax.GradientTransformation, dtype: Any) -> optax.GradientTransformation:
    """The optimizer whose arrays of float32 are kept as `dtype` between updates, and computed with in float32."""

    def cast(state: Any, old: Any, new: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(new) if leaf.dtype == old else leaf, state)

    def init(params: Any) -> Any:
        return cast(optimizer.init(params), jnp.float32, dtype)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = optimizer.update(updates, cast(state, dtype, jnp.float32), params)
        return updates, cast(state, jnp.float32, dtype)

    return optax.GradientTransformation(init, update)


def guarded_update(
    optimizer: optax.GradientTransformation,
    gradients: Any,
    moments: Any,
    params: Any,
    loss: Float[Array, ""],
    limit: Float[Array, ""] | None = None,
) -> tuple[Any, Any, Float[Array, ""], Bool[Array, ""]]:
    """The weights and moments after one update, the gradient's norm, and whether the update was made.

    Where the norm or the loss is not finite, or the loss is above a `limit`, weights and moments stay as they are.
    """
    norm = optax.tree.norm(gradients)
    good = jnp.isfinite(norm) & jnp.isfinite(loss)
    if limit is not None:
        good &= loss <= limit
    updates, new_moments = optimizer.update(gradients, moments, params)
    new = (optax.apply_updates(params, updates), new_moments)
    params, moments = jax.tree.map(lambda fresh, old: jnp.where(good, fresh, old), new, (params, moments))
    return params, moments, norm, good


def apply_gradients(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    gradients: Any,
    tokens: Float[Array, ""],
    loss: Float[Array, ""],
    spike_deviations: float | None = None,
) -> tuple[TrainState, Float[Array, ""]]:
    """The state after one update, and the gradient's norm.

    loss, gradients: summed over `tokens` tokens. A step whose update is skipped still counts, so that the data moves
    on; its loss does not enter the level of the loss.
    """
    gradients = jax.tree.map(lambda g: g / jnp.maximum(tokens, 1.0), gradients)
    level, limit = state.level, None
    if level is not None:
        loss = loss / jnp.maximum(tokens, 1.0)
        limit = loss_limit(level, spike_deviations)
    params, moments, norm, good = guarded_update(optimizer, gradients, state.optimizer, state.params, loss, limit)
    if level is not None:
        level = jax.tree.map(lambda new, old: jnp.where(good, new, old), with_loss(level, loss), level)
    return TrainState(params, moments, state.step + 1, state.skipped + jnp.where(good, 0, 1), state.ema, level), norm


@jax.jit
def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every number of a tree of arrays is finite."""
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


class SkippedInARow:
    """Updates that were skipped one after another; they are counted where the device is waited for anyway."""

    def __init__(self, most: int):
        self.most, self.count = most, 0
        self._waiting: list[Array] = []

    def add(self, skipped: Int[Array, ""]) -> None:
        """Notes whether an update was skipped, 1 or 0; nothing waits for it."""
        self._waiting.append(skipped)

    def in_a_row(self) -> int:
        """How many of the last updates were skipped one after another; waits for them."""
        for skipped in jax.device_get(self._waiting):
            self.count = self.count + 1 if skipped else 0
        self._waiting = []
        return self.count

    def check(self, step: int, seen: str) -> None:
        """Raises ValueError, which tells the `step` and what was `seen`, when too many were skipped in a row."""
        if self.in_a_row() >= self.most:
            raise ValueError(
                f"step {step}: the last {self.count} updates were skipped, each for a loss or gradient that was not "
                f"finite or for a spike of the loss ({seen}); stopped without saving, earlier checkpoints stay. Try a "
                "lower peak_learning_rate, more warmup_steps or float32, look at the data, or allow more by "
                "most_skipped_updates"
            )
