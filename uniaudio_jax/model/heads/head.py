"""What a head is."""

from abc import abstractmethod
from typing import NamedTuple

from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from uniaudio_jax.config import ModelConfig


class Scored(NamedTuple):
    """Logits of some levels, [F, n, A], which of the A ids each token is, [F, n], and whether it is certain, [F, n]:
    then its loss is zero, whatever the logits are. `certain` is None where no token is."""

    logits: Float[Array, "F n A"]
    targets: Int[Array, "F n"]
    certain: Bool[Array, "F n"] | None = None


class Head(nnx.Module):
    """Vectors [F, Q, D] of the local stack to logits."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        """Fresh weights."""

    @abstractmethod
    def score(self, x: Float[Array, "F Q D"], tokens: Int[Array, "F Q"]) -> list[Scored]:
        """What the loss of the tokens is computed from; the levels of all groups, in their order, are the Q levels."""

    @abstractmethod
    def logits(self, x: Float[Array, "F Q D"], tokens: Int[Array, "F Q"]) -> Float[Array, "F Q V"]:
        """Logits of all ids at all levels. What a level's ids are may depend on the first of the frame's tokens."""

    @abstractmethod
    def columns(self, level: int, ids: Int[Array, " A"]) -> Float[Array, "D A"]:
        """The weights that map a vector to the logits of these ids, of those that the level can choose among; others
        get zeros."""
