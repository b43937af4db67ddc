"""Kinds of positions by name. A new one is a file here and a line in POSITIONS."""

from uniaudio_jax.errors import did_you_mean
from uniaudio_jax.model.positions.kind import Positions
from uniaudio_jax.model.positions.learned import Learned
from uniaudio_jax.model.positions.rotary import Rotary

POSITIONS: dict[str, Positions] = {"learned": Learned(), "rotary": Rotary()}


def choose_positions(name: str) -> Positions:
    """The kind of positions of this name. Raises ValueError for an unknown name."""
    if name not in POSITIONS:
        raise ValueError(
            f"model.layout.positions: got {name!r}, wanted {' or '.join(POSITIONS)}{did_you_mean(name, POSITIONS)}"
        )
    return POSITIONS[name]
