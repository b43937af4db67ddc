"""How one tensor of a PyTorch checkpoint lies in our parameters."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tensor:
    """One published tensor: its name and shape, its path in our parameters, and the order of its axes there.

    The last part of a quantizer's path is the level in a stacked array.
    """

    name: str
    shape: tuple[int, ...]
    path: tuple[str | int, ...]
    axes: tuple[int, ...]
