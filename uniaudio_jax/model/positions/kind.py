"""What a kind of positions is: how a stack knows where an item stands."""

from collections.abc import Callable

from flax import nnx
from jaxtyping import Array, Float, Int


class Positions:
    """No positions at all; a kind overrides what it needs."""

    def table(self, shape: tuple[int, int], axes: tuple[str, str], std: float, rngs: nnx.Rngs) -> nnx.Param | None:
        """Fresh weights of this shape, (positions, D), whose axes have these names; None for a kind without weights."""
        return None

    def add(
        self, vectors: Float[Array, "*any D"], positions: Int[Array, "..."], table: nnx.Param | None
    ) -> Float[Array, "*any D"]:
        """The vectors of items at `positions`, as the first block wants them; positions broadcast against vectors."""
        return vectors

    def turn(self, positions: Int[Array, "*B T"]) -> Callable[[Float[Array, "B T H E"]], Float[Array, "B T H E"]]:
        """What queries and keys of items at `positions`, [B, T] or [T], go through before their scores."""
        return lambda x: x
