"""Where every axis lives: the mesh, the one rules table, and the shardings made of them."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from uniaudio_jax.config import MeshConfig
from uniaudio_jax.sequence import Batch

MESH_AXES = ("data", "fsdp", "tensor")
RULES: dict[str, str | tuple[str, ...] | None] = {
    "act_rows": ("data", "fsdp"),
    "act_frames": ("data", "fsdp", "tensor"),
    "embed": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
    "layers": None,
    "positions": None,
    "levels": None,
    "text": None,
    "token": None,
    "none": None,
}


def make_mesh(config: MeshConfig, devices: Any = None) -> Mesh:
    """A ("data", "fsdp", "tensor") mesh over all devices. Raises ValueError when the sizes do not fit their number."""
    devices = np.asarray(jax.devices() if devices is None else devices)
    rest = config.fsdp * config.tensor
    data = devices.size // rest if config.data == -1 else config.data
    if data * rest != devices.size or data < 1:
        raise ValueError(
            f"mesh data={config.data} x fsdp={config.fsdp} x tensor={config.tensor}: got {devices.size} "
            f"devices; choose sizes whose product is {devices.size}, or data=-1"
        )
    shape = (data, config.fsdp, config.tensor)
    if devices.flat[0].platform == "tpu":
        return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices.flatten().tolist())
    return Mesh(devices.reshape(shape), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def axes_sharding(mesh: Mesh, axes: tuple[str, ...], shape: tuple[int, ...] | None = None) -> NamedSharding:
    """The placement of an array whose axes have these names; a size that its mesh axes do not divide stays whole."""
    places: list[Any] = []
    for number, name in enumerate(axes):
        place = RULES[name]
        names = (place,) if isinstance(place, str) else place or ()
        parts = int(np.prod([mesh.shape[n] for n in names]))
        places.append(place if shape is None or shape[number] % parts == 0 else None)
    return NamedSharding(mesh, PartitionSpec(*places))


def tree_shardings(mesh: Mesh, axes: Any, shapes: Any) -> Any:
    """The placements of a tree of weights, given the tree of their axes and of their shapes."""
    return jax.tree.map(lambda shape, names: axes_sharding(mesh, names, shape.shape), shapes, axes)


def batch_shardings(mesh: Mesh) -> Batch:
    """Rows spread over the data and fsdp axes, everything else whole."""
    return Batch(*[axes_sharding(mesh, ("act_rows",))] * len(Batch._fields))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def constrain(x: jax.Array, mesh: Mesh, *axes: str) -> jax.Array:
    """`x`, told to the compiler to lie as its axes' names say."""
    return jax.lax.with_sharding_constraint(x, axes_sharding(mesh, axes, x.shape))


def row_parts(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are cut."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
    """This process's rows as its part of the global arrays."""
    return Batch(*map(jax.make_array_from_process_local_data, batch_shardings(mesh), batch))
