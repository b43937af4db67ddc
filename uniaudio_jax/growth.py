"""Weights of a finished run as the start of another one, whose vocabulary may have grown."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from uniaudio_jax.checkpoint import Checkpoints, check_growth, load_config_of
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.sharding import tree_shardings


def start_weights(run: Path, meta: dict[str, Any], definition: ModelDefinition, fresh: Params, mesh: Mesh) -> Params:
    """The newest weights of `run` in the shapes of `fresh`; what the vocabulary has more keeps its fresh values.

    Raises ValueError when codec, sizes or the meaning of old ids differ between the run and `meta`.
    """
    config, saved = load_config_of(run)
    check_growth(run, saved, meta)
    old = ModelDefinition(config.model)
    shapes = old.shapes()
    places = tree_shardings(mesh, old.axes(), shapes)
    checkpoints = Checkpoints(run)
    targets = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places
    )
    known = checkpoints.restore({"params": targets})["params"]
    checkpoints.close()
    axes = definition.axes()

    def grow(known: Params, fresh: Params) -> Params:
        return jax.tree.map(grown, known, fresh, axes)

    return jax.jit(grow, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, fresh))(known, fresh)


def grown(known: jax.Array, fresh: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """`known`, followed along its vocabulary axis by what `fresh` has more."""
    if known.shape == fresh.shape:
        return known
    axis = axes.index("vocab")
    more = jax.lax.slice_in_dim(fresh, known.shape[axis], fresh.shape[axis], axis=axis)
    return jnp.concatenate([known, more], axis=axis)
