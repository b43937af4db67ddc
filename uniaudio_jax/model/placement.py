"""What a stack asks of the devices that it is spread over."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

Rows = Callable[[Array, Array, Array, Array | None], Array]
"""Attention over whole rows, as `Kernel.rows`."""

GATHERED = "gathered weight"
"""The name of a weight that was brought from other devices, for policies that say what a backward pass keeps."""


class Placement(NamedTuple):
    """How a stack computes on several devices; by default it has its device to itself.

    `sharding.place_stack` makes one for a mesh.
    """

    weights: Callable[[Any], Any] = lambda module: module
    """A module with its weights ready for use; a stack of layers is left as it is until a layer is taken out of it."""
    rows: Callable[[Array], Array] = lambda x: x
    """Vectors [B, T, D], kept cut by rows."""
    attention: Callable[[Rows], Rows] = lambda kernel: kernel
    """A kernel that runs on each device for the rows and heads that lie there."""
    gathers: bool = False
    """Whether getting weights ready brings them from other devices, so that it is better done again than kept."""


ALONE = Placement()
