"""Attention kernels by name. A new one is a file here and a line in KERNELS."""

from typing import Literal

import jax

from uniaudio_jax.errors import did_you_mean
from uniaudio_jax.model.kernels import blocked, pairwise
from uniaudio_jax.model.kernels.kernel import Kernel

KERNELS = {"blocked": blocked.KERNEL, "pairwise": pairwise.KERNEL}
AUTOMATIC = {"global": {"cpu": "blocked"}, "local": {"cpu": "pairwise"}}
"""What `auto` takes for a stack by platform; a platform without an entry takes the CPU's."""


def choose_kernel(name: str, stack: Literal["global", "local"], platform: str | None = None) -> Kernel:
    """The kernel of this name, or the platform's for `auto`. Raises ValueError for an unknown name."""
    if name == "auto":
        platforms = AUTOMATIC[stack]
        name = platforms.get(platform or jax.default_backend(), platforms["cpu"])
    if name not in KERNELS:
        raise ValueError(
            f"model.{stack}_stack.attention: got {name!r}, wanted auto or one of {', '.join(KERNELS)}"
            f"{did_you_mean(name, KERNELS)}"
        )
    return KERNELS[name]
