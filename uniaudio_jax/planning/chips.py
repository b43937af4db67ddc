"""What accelerators can do, by the maker's figures, and which of them a topology's name means."""

import os
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import mesh_utils, topologies
from jax.sharding import AxisType, Mesh

from uniaudio_jax.config import MeshConfig
from uniaudio_jax.packages import load_package
from uniaudio_jax.sharding import MESH_AXES, mesh_shape


class Chip(NamedTuple):
    """One device as jax counts them: a chip, but a core of TPU v3 and v4.

    tflops: 1e12 bfloat16 operations a second; memory_gib: what the compiler lets a program use; memory_gb_s,
    link_gb_s: 1e9 bytes a second of the main memory, and of both directions of one axis of the interconnect.
    """

    tflops: float
    memory_gib: float
    memory_gb_s: float
    link_gb_s: float
    devices: int = 1


CHIPS = {
    "TPU v3": Chip(61.5, 15.48, 450, 200, 2),
    "TPU v4": Chip(137.5, 15.25, 614, 90, 2),
    "TPU v5 lite": Chip(197, 15.75, 819, 90),
    "TPU v5": Chip(459, 95.73, 2765, 180),
    "TPU v6 lite": Chip(918, 31.24, 1640, 180),
    "NVIDIA H100 80GB HBM3": Chip(989, 79.1, 3350, 450),
}
"""By jax's name of the device. Sources: cloud.google.com/tpu/docs (operations, memory), the scaling book
(jax-ml.github.io/scaling-book, links), libtpu 0.0.52's own limit (memory_gib of TPUs), NVIDIA's H100 SXM data sheet;
the H100's memory is what XLA may use of 80 GB."""

SHAPES = {
    "v3": "2x2 4x4 8x8 16x16",
    "v4": "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8",
    "v5e": "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16",
    "v5p": "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8",
    "v6e": "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16",
    "h100": "8 16 32 64",
}
"""Sizes by generation that were tried with libtpu 0.0.52 and jax-cuda12-pjrt 0.10.2."""

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84942979072
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""The H100 SXM as XLA's compiler wants it described; numbers of NVIDIA's data sheet and tuning guide."""


def find_devices(topology: str) -> list[Any]:
    """Descriptions of all devices of a topology such as v5e:16x16, v5p:4x4x8 or h100:8, without the devices.

    Raises ValueError for a name that the compiler does not know, with some that it does, and without the package that
    holds the compiler.
    """
    generation, _, size = topology.partition(":")
    if generation not in SHAPES or not size:
        raise ValueError(f"--topology: got {topology!r}, wanted a generation and a size; {_known()}")
    if generation == "h100":
        load_package("jax_plugins.xla_cuda12", "a plan for GPUs", "bash launch/install.sh plan_gpu")
    else:
        load_package("libtpu", "a plan for TPUs", "bash launch/install.sh plan")
    try:
        return _h100s(int(size)) if generation == "h100" else _tpus(topology)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise ValueError(f"--topology: got {topology!r}, which the compiler refuses ({reason}); {_known()}") from error


def _tpus(topology: str) -> list[Any]:
    # libtpu looks for the machine that it is on, and for other processes that use it; there is none.
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    for name, value in {**quiet, "TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_WORKER_ID": "0"}.items():
        os.environ.setdefault(name, value)
    return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)


def _h100s(count: int) -> list[Any]:
    shape = f"1x{-(-count // 8)}x{min(count, 8)}"
    description = topologies.get_topology_desc(
        topology_name="h100", platform="cuda", target_config=H100, topology=shape
    )
    return list(description.devices)


def _known() -> str:
    known = "; ".join(f"{name}: {sizes.replace(' ', ', ')}" for name, sizes in SHAPES.items())
    return f"known are, among others, {known}"


def plan_mesh(config: MeshConfig, devices: list[Any]) -> Mesh:
    """The mesh over these devices, as `sharding.make_mesh` lays it out on real ones; raises ValueError likewise."""
    shape = mesh_shape(config, len(devices))
    if devices[0].platform == "tpu":
        placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        placed = np.asarray(devices).reshape(shape)
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def chip_of(devices: list[Any]) -> Chip:
    """The figures of these devices. Raises ValueError for a kind that has none here."""
    kind = devices[0].device_kind
    if kind not in CHIPS:
        raise ValueError(f"--topology: got devices of kind {kind!r}, wanted one of {', '.join(CHIPS)}")
    return CHIPS[kind]
