"""A learned vector for each position, as in the public checkpoints."""

from flax import nnx
from jaxtyping import Array, Float, Int

from uniaudio_jax.model.positions.kind import Positions


class Learned(Positions):
    """Adds a row of a table to the vector of an item."""

    def table(self, shape: tuple[int, int], axes: tuple[str, str], std: float, rngs: nnx.Rngs) -> nnx.Param:
        return nnx.Param(nnx.initializers.normal(std)(rngs.params(), shape), axes=axes)

    def add(
        self, vectors: Float[Array, "*any D"], positions: Int[Array, "..."], table: nnx.Param | None
    ) -> Float[Array, "*any D"]:
        assert table is not None
        return vectors + table[...][positions]
