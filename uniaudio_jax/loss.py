"""Cross-entropy of the tokens that count, tallied by task and codebook level."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uniaudio_jax.model.heads.head import Scored
from uniaudio_jax.tasks import TASKS


class Tally(NamedTuple):
    """Sums over tokens, [tasks, Q]: of their losses in nats and of right guesses, and the number of tokens."""

    loss: Any
    hits: Any
    tokens: Any

    @property
    def mean_loss(self) -> Any:
        """Nats per token over everything."""
        return self.loss.sum() / jnp.maximum(self.tokens.sum(), 1)


def empty_tally(codebooks: int) -> Tally:
    """A tally of no tokens."""
    return Tally(*[jnp.zeros((len(TASKS), codebooks))] * 3)


def add_tallies(total: Tally, more: Tally) -> Tally:
    return jax.tree.map(jnp.add, total, more)


@jax.custom_vjp
def cross_entropy(
    logits: Float[Array, "F Q V"], tokens: Int[Array, "F Q"]
) -> tuple[Float[Array, "F Q"], Float[Array, "F Q"]]:
    """Nats of each token, in float32, and 1 where no other id has a larger logit (one pass less than an argmax).

    The gradient is written out, softmax minus one at the token: it keeps one array of [F, Q, V] and allocates one.
    """
    return _cross_entropy(logits, tokens)[0]


def _cross_entropy(logits: Array, tokens: Array) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
    wide = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(wide, tokens[..., None], axis=-1)[..., 0]
    best = wide.max(axis=-1)
    powers = jnp.exp(wide - best[..., None])
    total = powers.sum(axis=-1)
    hits = (chosen >= best).astype(jnp.float32)
    return (jnp.log(total) + best - chosen, hits), (powers.astype(logits.dtype), total, tokens)


def _cross_entropy_back(kept: tuple[Array, Array, Array], d: tuple[Array, Array]) -> tuple[Array, None]:
    (powers, total, tokens), d_loss = kept, d[0]
    chosen = jnp.arange(powers.shape[-1]) == tokens[..., None]
    d_logits = powers * (d_loss / total)[..., None] - jnp.where(chosen, d_loss[..., None], 0.0)
    return d_logits.astype(powers.dtype), None


cross_entropy.defvjp(_cross_entropy, _cross_entropy_back)


def tally_tokens(scored: Sequence[Scored], weights: Float[Array, " F"], task: Int[Array, " F"]) -> Tally:
    """The tally of these frames, whose weights count; the training differentiates its summed loss."""
    rows = jax.nn.one_hot(task, len(TASKS)) * weights[:, None]

    def by_task(values: Array) -> Array:
        return jnp.einsum("fk,fq->kq", rows, values)

    groups = [_losses_and_hits(group) for group in scored]
    losses, hits = (jnp.concatenate(parts, axis=1) for parts in zip(*groups, strict=True))
    return Tally(by_task(losses), by_task(hits), by_task(jnp.ones_like(losses)))


def _losses_and_hits(group: Scored) -> tuple[Float[Array, "F n"], Float[Array, "F n"]]:
    losses, hits = cross_entropy(group.logits, group.targets)
    if group.certain is None:
        return losses, hits
    return jnp.where(group.certain, 0.0, losses), jnp.where(group.certain, 1.0, hits)
