"""Where every axis lives: the mesh, the one rules table, and the shardings they give."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from uniaudio_jax.config import MeshConfig
from uniaudio_jax.sequence import Batch

MESH_AXES = ("data", "fsdp", "tensor")
RULES: dict[str, tuple[str, ...]] = {
    "act_rows": ("data", "fsdp"),
    "act_frames": ("data", "fsdp", "tensor"),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "channels": ("fsdp",),
    "layers": (),
    "positions": (),
    "levels": (),
    "text": (),
    "token": (),
    "none": (),
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


def axes_sharding(mesh: Mesh, axes: tuple[str, ...], shape: tuple[int, ...], what: str = "array") -> NamedSharding:
    """The sharding of an array whose first axes have these names; axes without a name stay whole.

    Raises ValueError, which calls the array `what`, where a size does not divide over the mesh, or two axes would be
    cut over the same axis of the mesh.
    """
    owners: dict[str, str] = {}
    for name, size in zip(axes, shape, strict=False):
        if not divides(mesh, name, size):
            raise ValueError(_remedy(mesh, name, size, what))
        for mesh_axis in RULES[name]:
            if mesh_axis in owners:
                raise ValueError(
                    f"{what}: its axes {owners[mesh_axis]!r} and {name!r} would both be cut over the mesh axis "
                    f"{mesh_axis!r}; give one of them a name with another rule in sharding.RULES"
                )
            owners[mesh_axis] = name
    return NamedSharding(mesh, PartitionSpec(*(RULES[name] or None for name in axes)))


def divides(mesh: Mesh, name: str, size: int) -> bool:
    """Whether an axis of this name and size can be cut as the rules say."""
    return size % _parts(mesh, name) == 0


def _parts(mesh: Mesh, name: str) -> int:
    return int(np.prod([mesh.shape[mesh_axis] for mesh_axis in RULES[name]]))


def _remedy(mesh: Mesh, name: str, size: int, what: str) -> str:
    parts = _parts(mesh, name)
    sizes = " x ".join(f"{mesh_axis}={mesh.shape[mesh_axis]}" for mesh_axis in RULES[name])
    fitting = f"{size + -size % parts} (the next that divides)"
    choice = f"pad it with model.vocabulary {fitting}" if name == "vocab" else f"choose a size such as {fitting}"
    return (
        f"{what}: axis {name!r} of size {size} does not divide over the {parts} parts of the mesh's {sizes}; "
        f"{choice}, or another mesh"
    )


def tree_shardings(mesh: Mesh, axes: Mapping[str, Any], shapes: Mapping[str, Any]) -> Any:
    """The shardings of a tree of weights, given the names of their axes and their shapes."""

    def sharding(path: Any, leaf: Any, names: tuple[str, ...]) -> NamedSharding:
        return axes_sharding(
            mesh, names, leaf.shape, f"weight {jax.tree_util.keystr(path, simple=True, separator='.')}"
        )

    return jax.tree_util.tree_map_with_path(sharding, shapes, axes)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def constrain(x: jax.Array, mesh: Mesh, *axes: str) -> jax.Array:
    """`x`, which the compiler then keeps sharded as the names of its first axes say."""
    return jax.lax.with_sharding_constraint(x, axes_sharding(mesh, axes, x.shape))


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Rows cut over the data and fsdp axes, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(RULES["act_rows"]))


def check_rows(mesh: Mesh, rows: int, what: str = "batch") -> None:
    """Raises ValueError unless this number of rows divides over the mesh."""
    axes_sharding(mesh, ("act_rows",), (rows,), what)


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
    """This process's rows as its part of the global arrays."""
    check_rows(mesh, len(batch.tokens) * jax.process_count())
    sharding = rows_sharding(mesh)
    return Batch(*(jax.make_array_from_process_local_data(sharding, field) for field in batch))
