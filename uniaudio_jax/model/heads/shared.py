"""One linear map for all levels, over all ids, as in the public checkpoints."""

from flax import nnx
from jaxtyping import Array, Float, Int

from uniaudio_jax.config import ModelConfig
from uniaudio_jax.model.heads.head import Head, Scored


class SharedHead(Head):
    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        stack = config.local_stack
        init = nnx.initializers.normal(stack.init_std)
        self.kernel = nnx.Param(init(rngs.params(), (stack.width, config.vocabulary_size)), axes=("embed", "vocab"))

    def score(self, x: Float[Array, "F Q D"], tokens: Int[Array, "F Q"]) -> list[Scored]:
        return [Scored(self.logits(x, tokens), tokens)]

    def logits(self, x: Float[Array, "F Q D"], tokens: Int[Array, "F Q"]) -> Float[Array, "F Q V"]:
        return x @ self.kernel[...]

    def columns(self, level: int, ids: Int[Array, " A"]) -> Float[Array, "D A"]:
        return self.kernel[...][:, ids]
