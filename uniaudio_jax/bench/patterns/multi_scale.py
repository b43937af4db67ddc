"""Multi-scale: a global stack over frames and a local one over the codes of each; the project's own programs."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from uniaudio_jax.bench.patterns.decoder import level_index, level_logits, parameters
from uniaudio_jax.checkpoint import describe
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import RunConfig
from uniaudio_jax.decoding import Generator
from uniaudio_jax.growth import first_state
from uniaudio_jax.loss import cross_entropy
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.planning.step import GIB, compile_step
from uniaudio_jax.programs import Programs
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sequence import Batch, Frames
from uniaudio_jax.sharding import make_mesh, place_batch
from uniaudio_jax.tasks import Task
from uniaudio_jax.validation import heldout_tally, losses_of


class MultiScale:
    """The model of a run in training, on the devices of its mesh, by default all."""

    def __init__(self, config: RunConfig, batches: Iterable[Batch] = (), devices: Any = None):
        self.config = config
        self.meta = describe(config, load_codec(config.codec_of_tokens()).passport())
        mesh = make_mesh(config.mesh, devices)
        self.programs = Programs(config.model, config.train, config.optim, mesh, config.lora)
        self.layers = f"{config.model.global_stack.layers}+{config.model.local_stack.layers}"
        self.positions = config.data.row_frames
        self.start()

    def start(self) -> None:
        self.state = first_state(self.config, self.meta, self.programs)

    def step(self, batches: Sequence[Batch]) -> None:
        placed = [place_batch(batch, self.programs.mesh) for batch in batches]
        self.state, _ = self.programs.step(self.state, placed)

    def loss(self, task: Task, batches: Iterable[Batch]) -> float:
        return losses_of(task, heldout_tally(self.programs, self.state.weights, batches))["loss"]

    @property
    def parameters(self) -> int:
        return parameters(self.state.params)

    def peak_bytes(self, batch: Batch) -> float:
        """The memory of the compiled program of a step that needs most, with what waits beside it."""
        return max(plan.needs_gib for plan in compile_step(self.config, self.programs, lambda _: None)) * GIB

    def generator(self) -> Callable[[Task, Sequence[Frames], Sampling, int], Any]:
        """Generation with the present weights."""
        return Generator(self.programs.definition, self.state.weights, self.config.model.ids).generate


class WithinLevels(MultiScale):
    """The same, whose held-out losses take each code among those of its level, as the decoder's do.

    Among all ids, as it is trained, it gives a few percent to ids that cannot come, which would be compared too.
    """

    def __init__(self, config: RunConfig, batches: Iterable[Batch] = (), devices: Any = None):
        super().__init__(config, batches, devices)
        self.tally = jax.jit(partial(tally_within_levels, self.programs.definition), static_argnames="levels")

    def loss(self, task: Task, batches: Iterable[Batch]) -> float:
        levels = self.config.model.codebooks if task.makes_audio else 1
        placed = (place_batch(batch, self.programs.mesh) for batch in batches)
        tallies = [self.tally(self.state.weights, batch, levels=levels) for batch in placed]
        losses, tokens = zip(*jax.device_get(tallies), strict=True)
        return float(sum(losses) / sum(tokens))


def tally_within_levels(
    definition: ModelDefinition, params: Params, batch: Batch, levels: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The summed loss of the first `levels` tokens of the counted frames, and their number."""
    vectors, local = definition.merge("global", params["global"])(batch), definition.merge("local", params["local"])
    vocabulary = definition.config.ids

    def of_row(row: tuple[Array, Array, Array]) -> Array:
        vectors, tokens, weights = row
        logits, indices = local.logits(vectors, tokens), level_index(tokens, vocabulary)
        parts = [level_logits(logits[:, level], vocabulary)[level] for level in range(levels)]
        losses = [cross_entropy(part[:, None], indices[level][:, None])[0] for level, part in enumerate(parts)]
        return (jnp.concatenate(losses, axis=1).sum(axis=1) * weights).sum()

    each = jnp.arange(len(vectors))[:, None]
    rows = (vectors[each, batch.loss_frames], batch.tokens[each, batch.loss_frames], batch.loss_weights)
    return jax.lax.map(of_row, rows).sum(), batch.loss_weights.sum() * levels
