"""Weights of a finished run as the start of another one, whose vocabulary may have grown."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from uniaudio_jax.checkpoint import check_growth, read_newest
from uniaudio_jax.config import RunConfig
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.optim import TrainState
from uniaudio_jax.paths import Place
from uniaudio_jax.programs import Programs
from uniaudio_jax.sharding import tree_shardings
from uniaudio_jax.shipped import place_of_run
from uniaudio_jax.trees import flatten


def first_state(config: RunConfig, meta: dict[str, Any], programs: Programs) -> TrainState:
    """The state before the first update: of fresh weights, or of those of the run that `start_from` names."""
    state = programs.init(jax.random.key(config.train.seed))
    if config.start_from is None:
        return state
    fresh = {part: state.params[part] for part in ("global", "local")}
    weights = start_weights(place_of_run(config.start_from), meta, programs, fresh)
    state = state._replace(params=state.params | weights)
    return state if state.ema is None else state.start_ema()


def start_weights(run: Place, meta: dict[str, Any], programs: Programs, fresh: Params) -> Params:
    """The newest weights of `run` in the shapes of `fresh`; ids that only the new vocabulary has keep fresh values, and
    what conditions hold further ahead than the run looked counts for nothing at first.

    Raises ValueError when codec, sizes or the meaning of old ids differ between the run and `meta`, or where new ids
    would not be learned.
    """

    def targets(config: RunConfig, saved: dict[str, Any]) -> Any:
        check_growth(run, saved, meta)
        if saved["vocabulary"] != meta["vocabulary"]:
            _check_learned(run, programs)
        return _placed(ModelDefinition(config.model.canonical()), programs.mesh)

    known = read_newest(run, targets).weights

    def grow(known: Params, fresh: Params) -> Params:
        return jax.tree.map(grown, known, fresh, programs.definition.axes())

    return jax.jit(grow, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, fresh))(known, fresh)


def _check_learned(run: Place, programs: Programs) -> None:
    """Raises ValueError where the weights of the ids are frozen beside adapters."""
    frozen = [
        name
        for name, axes in flatten(programs.definition.axes()).items()
        if "vocab" in axes and name not in programs.trained.names
    ]
    if frozen:
        raise ValueError(
            f"{run}: start_from has fewer ids than the run, and {', '.join(frozen)} would keep random values for the "
            f"new ones; train them beside the adapters, as by --lora.also {' '.join(frozen)}"
        )


def _placed(old: ModelDefinition, mesh: Mesh) -> Any:
    """The shapes of the weights of a run, placed on the mesh of another."""
    shapes = old.shapes()
    # The old vocabulary stays whole on each device, as its size need not divide over this mesh.
    axes = {part: _whole_vocabulary(tree) for part, tree in old.axes().items()}
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        tree_shardings(mesh, axes, shapes),
    )


def _whole_vocabulary(axes: Any) -> Any:
    """The tree of axis names with `none` in place of `vocab`."""
    if isinstance(axes, tuple):
        return tuple("none" if name == "vocab" else name for name in axes)
    return {name: _whole_vocabulary(value) for name, value in axes.items()}


def grown(known: jax.Array, fresh: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """`known`, followed along its vocabulary axis by the ids that only `fresh` has, or by zeros for the conditions
    further ahead that only `fresh` looks at."""
    if known.shape == fresh.shape:
        return known
    axis = axes.index("vocab" if "vocab" in axes else "ahead")
    more = jax.lax.slice_in_dim(fresh, known.shape[axis], fresh.shape[axis], axis=axis)
    return jnp.concatenate([known, more if "vocab" in axes else jnp.zeros_like(more)], axis=axis)
