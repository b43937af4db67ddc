"""A linear map for each level, over the ids that can come there.

The first token of a frame is any id but a code of a later level. If it is a code, the token of each later level is one
of that level's codes; if not, all tokens of the frame repeat it, and nothing is left to predict (`sequence.to_frames`).
So Q maps together have about as many columns as a shared one, which each level would have to itself.
"""

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from uniaudio_jax.config import ModelConfig
from uniaudio_jax.model.heads.head import Head, Scored
from uniaudio_jax.model.kernels.kernel import MASKED


class LevelsHead(Head):
    """first_kernel: [D, ids of the first level]; later_kernel: [Q - 1, D, codes]."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        width, init = config.local_stack.width, nnx.initializers.normal(config.local_stack.init_std)
        self.codes, self.entries, self.levels = config.ids.level(0).start, config.entries, config.codebooks
        first, later = (width, config.first_ids), (config.codebooks - 1, width, config.entries)
        self.first_kernel = nnx.Param(init(rngs.params(), first), axes=("embed", "vocab"))
        self.later_kernel = nnx.Param(init(rngs.params(), later), axes=("levels", "embed", "vocab"))

    def score(self, x: Float[Array, "F Q D"], tokens: Int[Array, "F Q"]) -> list[Scored]:
        first, later = self._logits(x)
        targets = tokens[:, 1:] - self._starts(1)
        is_code = self._is_code(tokens[:, :1]) & (targets >= 0) & (targets < self.entries)
        return [
            Scored(first[:, None], self._place(tokens[:, :1])),
            Scored(later, jnp.where(is_code, targets, 0), ~is_code),
        ]

    def logits(self, x: Float[Array, "F Q D"], tokens: Int[Array, "F Q"]) -> Float[Array, "F Q V"]:
        first, later = self._logits(x)
        end = self.codes + self.entries
        gap, behind = (self.levels - 1) * self.entries, first.shape[-1] - end
        first = jnp.insert(first, jnp.full(gap, end), MASKED, axis=1)
        codes = [
            jnp.pad(
                later[:, level - 1],
                ((0, 0), (self.codes + level * self.entries, (self.levels - 1 - level) * self.entries + behind)),
                constant_values=MASKED,
            )
            for level in range(1, self.levels)
        ]
        repeated = jnp.where(jnp.arange(first.shape[-1]) == tokens[:, :1], 0.0, MASKED).astype(first.dtype)
        is_code = self._is_code(tokens[:, :1])
        return jnp.stack([first] + [jnp.where(is_code, each, repeated) for each in codes], axis=1)

    def columns(self, level: int, ids: Int[Array, " A"]) -> Float[Array, "D A"]:
        if level == 0:
            return self.first_kernel[...][:, self._place(ids)]
        places = ids - self._starts(level)[0]
        known = (places >= 0) & (places < self.entries)
        return jnp.where(known, self.later_kernel[...][level - 1][:, jnp.where(known, places, 0)], 0)

    def _logits(self, x: Float[Array, "F Q D"]) -> tuple[Float[Array, "F I"], Float[Array, "F L A"]]:
        """Logits of the ids of the first level, and of the codes of the later ones."""
        later = jnp.einsum("lfd,lda->lfa", rearrange(x[:, 1:], "f l d -> l f d"), self.later_kernel[...])
        return x[:, 0] @ self.first_kernel[...], rearrange(later, "l f a -> f l a")

    def _starts(self, level: int) -> Int[Array, " L"]:
        """The id of the first code of each level from `level` on."""
        return self.codes + self.entries * jnp.arange(level, self.levels)

    def _is_code(self, tokens: Int[Array, "*any"]) -> Bool[Array, "*any"]:
        """Whether a token is a code of the first level."""
        return (tokens >= self.codes) & (tokens < self.codes + self.entries)

    def _place(self, tokens: Int[Array, "*any"]) -> Int[Array, "*any"]:
        """Where a first token stands among the ids that can come first."""
        return jnp.where(tokens < self.codes + self.entries, tokens, tokens - (self.levels - 1) * self.entries)
