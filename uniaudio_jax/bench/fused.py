"""The training loss as one fused program over all frames: what the two programs are measured and tested against."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from uniaudio_jax.config import ModelConfig
from uniaudio_jax.loss import cross_entropy
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.sequence import Batch


def fused_loss_and_gradients(model: ModelConfig) -> Callable[[Params, Batch], tuple[Array, Params]]:
    """A function of weights and batch: the summed loss of the counted tokens and its gradients, by one jax.grad."""
    definition = ModelDefinition(model)

    def loss(params: Params, batch: Batch) -> Array:
        losses = cross_entropy_of_rows(definition, params, batch)
        rows = jnp.arange(len(losses))[:, None]
        counts = jnp.zeros(losses.shape[:2]).at[rows, batch.loss_frames].add(batch.loss_weights)
        return (losses * counts[..., None]).sum()

    return jax.value_and_grad(loss)


def cross_entropy_of_rows(definition: ModelDefinition, params: Params, batch: Batch) -> Array:
    """Nats of every token of the rows, [B, T, Q]."""
    logits = definition.logits(params, batch)
    rows, frames, codebooks, ids = logits.shape
    flat, _ = cross_entropy(logits.reshape(-1, codebooks, ids), batch.tokens.reshape(-1, codebooks))
    return flat.reshape(rows, frames, codebooks)
