"""Where every axis lives: the mesh, the one rules table, and the shardings they give."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from uniaudio_jax.config import MeshConfig
from uniaudio_jax.model.placement import GATHERED, Placement, Rows
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
    "ahead": (),
    "token": (),
    "rank": (),
    "none": (),
}

IN_USE = {"heads", "mlp"}
"""Axes of weights that stay cut while the global stack computes; along all others it gathers them."""
LOOKED_UP = {"vocab", "positions"}
"""First axes of tables. Their gradients are summed whole: summed into parts, all vectors that were looked up would have
to change places first."""


def mesh_shape(config: MeshConfig, devices: int) -> tuple[int, int, int]:
    """Sizes of the mesh's axes over so many devices. Raises ValueError when they do not fit their number."""
    rest = config.fsdp * config.tensor
    data = devices // rest if config.data == -1 else config.data
    if data * rest != devices or data < 1:
        raise ValueError(
            f"mesh data={config.data} x fsdp={config.fsdp} x tensor={config.tensor}: got {devices} devices; choose "
            f"sizes whose product is {devices}, or data=-1"
        )
    return data, config.fsdp, config.tensor


def make_mesh(config: MeshConfig, devices: Any = None) -> Mesh:
    """A ("data", "fsdp", "tensor") mesh over all devices. Raises ValueError when the sizes do not fit their number."""
    devices = np.asarray(jax.devices() if devices is None else devices)
    shape = mesh_shape(config, devices.size)
    if devices.flat[0].platform == "tpu":
        return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices.flatten().tolist())
    return Mesh(devices.reshape(shape), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def axes_sharding(mesh: Mesh, axes: Sequence[str], shape: tuple[int, ...], what: str = "array") -> NamedSharding:
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


def place_stack(mesh: Mesh, dtype: Any) -> Placement:
    """The placement of the global stack on this mesh, computing in `dtype`.

    Each layer's weights are gathered where it is used, as fully sharded data parallelism does (arXiv 1910.02054,
    2304.11277), and their gradients reduced straight into the stored parts.
    """

    def weights(module: Any) -> Any:
        graph, state = nnx.split(module)
        ready = functools.partial(_ready_weight, mesh, dtype)
        return nnx.merge(graph, jax.tree.map(ready, state, is_leaf=lambda node: isinstance(node, nnx.Variable)))

    if mesh.size == 1:
        return Placement(weights)
    return Placement(weights, lambda x: constrain(x, mesh, "act_rows"), lambda rows: _on_each_device(mesh, rows), True)


def _ready_weight(mesh: Mesh, dtype: Any, weight: nnx.Variable) -> nnx.Variable:
    value, axes = weight[...], weight.get_metadata("axes")
    if axes[0] == "layers" and len(axes) == value.ndim:
        return weight  # of all layers; each is made ready when it is taken out
    if mesh.size == 1:
        return weight.replace(value.astype(dtype))
    axes = axes[-value.ndim :]
    stored = axes_sharding(mesh, axes, value.shape)
    used = axes_sharding(mesh, [name if name in IN_USE else "none" for name in axes], value.shape)
    summed = used if axes[0] in LOOKED_UP else stored
    return weight.replace(checkpoint_name(_gather(value.astype(dtype), stored, used, summed), GATHERED))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gather(weight: jax.Array, stored: NamedSharding, used: NamedSharding, summed: NamedSharding) -> jax.Array:
    """The weight, stored and then used as these shardings say, whose gradient is summed as `summed`, then stored."""
    weight = jax.lax.with_sharding_constraint(weight, stored)
    return jax.lax.with_sharding_constraint(weight, used)


def _gather_forward(weight: jax.Array, *shardings: NamedSharding) -> tuple[jax.Array, None]:
    return _gather(weight, *shardings), None


def _gather_backward(
    stored: NamedSharding, used: NamedSharding, summed: NamedSharding, _: None, gradient: jax.Array
) -> tuple[jax.Array]:
    gradient = jax.lax.with_sharding_constraint(gradient, summed)
    return (jax.lax.with_sharding_constraint(gradient, stored),)


_gather.defvjp(_gather_forward, _gather_backward)


def _on_each_device(mesh: Mesh, kernel: Rows) -> Rows:
    """The attention kernel, which each device runs for its own rows and heads."""
    rows, vectors = PartitionSpec(RULES["act_rows"]), PartitionSpec(RULES["act_rows"], None, RULES["heads"])
    return jax.shard_map(
        kernel, mesh=mesh, in_specs=(vectors, vectors, vectors, rows), out_specs=vectors, check_vma=False
    )


def on_each_device(mesh: Mesh, function: Callable, inputs: Any, outputs: Any) -> Callable:
    """`function`, run by each device on its own parts of the arguments; inputs, outputs: trees of NamedShardings."""
    inputs, outputs = (jax.tree.map(lambda sharding: sharding.spec, tree) for tree in (inputs, outputs))
    return jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False)


def check_rows(mesh: Mesh, rows: int, what: str = "batch") -> None:
    """Raises ValueError unless this number of rows divides over the mesh."""
    axes_sharding(mesh, ("act_rows",), (rows,), what)


@functools.cache
def row_share(mesh: Mesh) -> tuple[int, int]:
    """Which share of a batch's rows this process must bring, and of how many; processes among whose devices the same
    rows are cut over another axis bring the same share.

    Raises ValueError when two processes have a part of the rows in common and another one not.
    """
    places = rows_sharding(mesh).devices_indices_map((_parts(mesh, "act_rows"),))
    parts: dict[int, frozenset[int]] = {}
    for device, (part,) in places.items():
        parts[device.process_index] = parts.get(device.process_index, frozenset()) | {part.start or 0}
    shares = sorted(set(parts.values()), key=min)
    if len({len(share) for share in shares}) > 1 or sum(map(len, shares)) > len(frozenset().union(*shares)):
        raise ValueError(
            f"mesh {' x '.join(f'{axis}={size}' for axis, size in mesh.shape.items())}: its {_parts(mesh, 'act_rows')} "
            f"parts of the rows do not divide over {len(parts)} processes of {mesh.size // len(parts)} devices; choose "
            "a mesh.tensor that divides the devices of a process, or is a multiple of them"
        )
    return shares.index(parts[jax.process_index()]), len(shares)


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
    """This process's share of the rows (see `row_share`) as its part of the global arrays."""
    check_rows(mesh, len(batch.tokens) * row_share(mesh)[1])
    sharding = rows_sharding(mesh)
    return Batch(*(jax.make_array_from_process_local_data(sharding, field) for field in batch))
