"""Rotary positions: pairs of a head's channels are turned by angles that grow with the position (arXiv 2104.09864)."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uniaudio_jax.model.positions.kind import Positions

BASE = 10_000.0
"""The slowest pair turns by 1 / BASE at each position, nearly."""


class Rotary(Positions):
    """Channel i of the first half of a head is paired with channel i of the second half."""

    def turn(self, positions: Int[Array, "*B T"]) -> Callable[[Float[Array, "B T H E"]], Float[Array, "B T H E"]]:
        def turned(x: Float[Array, "B T H E"]) -> Float[Array, "B T H E"]:
            half = x.shape[-1] // 2
            angles = positions[..., None, None] * BASE ** (-jnp.arange(half) / half)
            cos, sin = jnp.cos(angles), jnp.sin(angles)
            one, other, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
            mixed = [one * cos - other * sin, one * sin + other * cos]
            return jnp.concatenate([part.astype(x.dtype) for part in mixed] + [rest], axis=-1)

        return turned
