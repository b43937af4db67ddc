"""What devices exchange inside a function that each of them runs on its own parts (`sharding.on_each_device`).

Axes of the mesh with a single device need no exchange, and get none.
"""

import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from uniaudio_jax.sharding import RULES


def gather_whole(part: jax.Array, sharding: NamedSharding) -> jax.Array:
    """The whole array, of which each device holds the part that `sharding` says."""
    for dimension, axes in _cut_dimensions(sharding):
        part = jax.lax.all_gather(part, axes, axis=dimension, tiled=True)
    return part


def reduce_to_part(whole: jax.Array, sharding: NamedSharding) -> jax.Array:
    """This device's part of the sum over all devices of an array that each of them holds whole."""
    rest = [axis for axis, size in sharding.mesh.shape.items() if size > 1]
    for dimension, axes in _cut_dimensions(sharding):
        whole = jax.lax.psum_scatter(whole, axes, scatter_dimension=dimension, tiled=True)
        rest = [axis for axis in rest if axis not in axes]
    return jax.lax.psum(whole, tuple(rest)) if rest else whole


def sum_over_devices(tree: Any, mesh: Mesh) -> Any:
    """The sums of the arrays over all devices."""
    axes = _real(mesh, mesh.axis_names)
    return jax.lax.psum(tree, axes) if axes else tree


def shares_of_row(mesh: Mesh) -> int:
    """Devices that hold the same rows; each takes an equal share of their counted frames."""
    return math.prod(mesh.shape[axis] for axis in _share_axes(mesh))


def take_share(frames: jax.Array, mesh: Mesh) -> jax.Array:
    """This device's share of frames [shares * n, …] that all devices with the same rows hold: [n, …]."""
    axes = _share_axes(mesh)
    if not axes:
        return frames
    size = len(frames) // shares_of_row(mesh)
    return jax.lax.dynamic_slice_in_dim(frames, jax.lax.axis_index(axes) * size, size)


def join_shares(share: jax.Array, mesh: Mesh) -> jax.Array:
    """The shares [n, …] of all devices with the same rows, in their order: [shares * n, …]."""
    axes = _share_axes(mesh)
    return jax.lax.all_gather(share, axes, axis=0, tiled=True) if axes else share


def _cut_dimensions(sharding: NamedSharding) -> list[tuple[int, tuple[str, ...]]]:
    """The dimensions that are cut, and over which axes of more than one device."""
    cut = ((place, _real(sharding.mesh, axes or ())) for place, axes in enumerate(sharding.spec))
    return [(place, axes) for place, axes in cut if axes]


def _share_axes(mesh: Mesh) -> tuple[str, ...]:
    return _real(mesh, [axis for axis in RULES["act_frames"] if axis not in RULES["act_rows"]])


def _real(mesh: Any, axes: Any) -> tuple[str, ...]:
    return tuple(axis for axis in ((axes,) if isinstance(axes, str) else axes) if mesh.shape[axis] > 1)
