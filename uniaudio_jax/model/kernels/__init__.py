"""Attention kernels by name. A new one is a file here and a line in KERNELS."""

from typing import Literal

import jax

from uniaudio_jax.errors import did_you_mean
from uniaudio_jax.model.kernels import blocked, cudnn, pairwise, splash
from uniaudio_jax.model.kernels.kernel import Kernel

KERNELS = {"blocked": blocked.KERNEL, "cudnn": cudnn.KERNEL, "pairwise": pairwise.KERNEL, "splash": splash.KERNEL}
AUTOMATIC = {
    "global": {"cpu": "blocked", "tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"},
    "local": {"cpu": "pairwise"},
}
"""What `auto` takes for a stack by platform; a platform without an entry takes the CPU's."""


def choose_kernel(name: str, stack: Literal["global", "local"], platform: str | None = None) -> Kernel:
    """The kernel of this name, or the platform's for `auto`; without a platform, for the one that JAX computes on.

    Raises ValueError for an unknown name, and for a kernel of another platform.
    """
    platform = platform or jax.default_backend()
    if name == "auto":
        platforms = AUTOMATIC[stack]
        name = platforms.get(platform, platforms["cpu"])
    where = f"model.{stack}_stack.attention"
    if name not in KERNELS:
        raise ValueError(
            f"{where}: got {name!r}, wanted auto or one of {', '.join(KERNELS)}{did_you_mean(name, KERNELS)}"
        )
    kernel = KERNELS[name]
    if kernel.platforms and platform not in kernel.platforms:
        raise ValueError(
            f"{where}: got {name!r} on {platform}, wanted a kernel for this platform, as {name} is for "
            f"{' or '.join(kernel.platforms)} alone; choose auto"
        )
    return kernel
