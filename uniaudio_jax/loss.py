"""Cross-entropy of the tokens that count, tallied by task and codebook level."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uniaudio_jax.tasks import TASKS


class Tally(NamedTuple):
    """Sums over tokens, [tasks, Q]: of their losses in nats, of right guesses, and their number."""

    loss: Any
    hits: Any
    tokens: Any

    @property
    def mean_loss(self) -> Any:
        """Nats per token over everything."""
        return self.loss.sum() / jnp.maximum(self.tokens.sum(), 1)


def empty_tally(codebooks: int) -> Tally:
    return Tally(*[jnp.zeros((len(TASKS), codebooks))] * 3)


def add_tallies(one: Tally, other: Tally) -> Tally:
    return jax.tree.map(jnp.add, one, other)


def cross_entropy(
    logits: Float[Array, "F Q V"], tokens: Int[Array, "F Q"]
) -> tuple[Float[Array, "F Q"], Float[Array, "F Q"]]:
    """Nats of each token, in float32, and 1 where no other id has a larger logit (one pass less than an argmax).

    The token's logit is taken by a sum over a mask, whose gradient needs no scatter into [F, Q, V].
    """
    wide = logits.astype(jnp.float32)
    chosen = jnp.where(jnp.arange(wide.shape[-1]) == tokens[..., None], wide, 0.0).sum(axis=-1)
    best = jax.lax.stop_gradient(wide.max(axis=-1))
    total = jnp.exp(wide - best[..., None]).sum(axis=-1)
    return jnp.log(total) + best - chosen, (chosen >= best).astype(jnp.float32)


def tally_tokens(
    logits: Float[Array, "F Q V"], tokens: Int[Array, "F Q"], weights: Float[Array, " F"], task: Int[Array, " F"]
) -> Tally:
    """The tally of these frames; its summed loss is what the gradient is taken of."""
    rows = jax.nn.one_hot(task, len(TASKS)) * weights[:, None]

    def by_task(values: Array) -> Array:
        return jnp.einsum("fk,fq->kq", rows, values)

    losses, hits = cross_entropy(logits, tokens)
    return Tally(by_task(losses), by_task(hits), by_task(jnp.ones_like(losses)))
