"""A flag for XLA that keeps the CPU's values right; it works only before jax starts its first backend."""

import os
from importlib.metadata import version

FUSIONS = "--xla_cpu_experimental_ynn_fusion_type"
FAULTY = ("0.10.2",)
"""Versions of jaxlib whose fusions of a product with a reduction give wrong values on a CPU, NaN among them
(github.com/jax-ml/jax/issues/39103). A flag that a jaxlib does not know ends the process, so others are left alone."""


def keep_reductions_right() -> None:
    """Adds to XLA_FLAGS that reductions are not given to those fusions, unless the user has chosen the fusions."""
    flags = os.environ.get("XLA_FLAGS", "")
    if version("jaxlib") in FAULTY and FUSIONS not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FUSIONS}=-reduce".strip()
