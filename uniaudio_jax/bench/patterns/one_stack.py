"""Training of the plain decoder on a pattern, as one program.

As in the multi-scale model's local program, the head runs over the counted positions alone, in chunks with a
value-and-gradient each, so that no more logits exist at once.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from uniaudio_jax.bench.patterns.decoder import DecoderDefinition, layers_for, level_index, level_logits, parameters
from uniaudio_jax.bench.patterns.generation import Decoding
from uniaudio_jax.bench.patterns.pattern import Pattern, Positions, lay_out, sizes_of
from uniaudio_jax.config import RunConfig
from uniaudio_jax.loss import cross_entropy
from uniaudio_jax.optim import TrainState, apply_gradients, make_optimizer
from uniaudio_jax.planning.step import used_bytes
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sequence import Batch, Frames
from uniaudio_jax.tasks import Task


class OneStack:
    """The decoder that predicts codes by `pattern`; rows get as many positions as `batches` need."""

    def __init__(self, pattern: Pattern, config: RunConfig, batches: Iterable[Batch]):
        self.pattern, self.config, self.vocabulary = pattern, config, config.model.ids
        self.layers = layers_for(config.model)
        self.definition = DecoderDefinition(config.model, self.layers)
        self.optimizer = make_optimizer(config.optim, config.train.steps)
        self.sizes = sizes_of(pattern, batches, self.vocabulary)
        self.positions = self.sizes.positions
        self.dtype = jnp.dtype(config.train.compute_dtype)
        self.init, self.tally = jax.jit(self._init), jax.jit(self._tally)
        self.update = jax.jit(self._update, donate_argnums=0)
        self.decoding = Decoding(self.definition, pattern)
        self.start()

    def start(self) -> None:
        self.state = self.init(jax.random.key(self.config.train.seed))

    def step(self, batches: Sequence[Batch]) -> None:
        (batch,) = batches
        self.state = self.update(self.state, self.lay_out(batch))

    def loss(self, task: Task, batches: Iterable[Batch]) -> float:
        tallies = [self.tally(self.state.params, self.lay_out(batch)) for batch in batches]
        losses, tokens = zip(*jax.device_get(tallies), strict=True)
        return float(sum(losses) / sum(tokens))

    @property
    def parameters(self) -> int:
        return parameters(self.state.params)

    def peak_bytes(self, batch: Batch) -> int:
        """The memory of the compiled training step."""
        return used_bytes(self.update.lower(self.state, self.lay_out(batch)).compile())

    def generator(self) -> Callable[[Task, Sequence[Frames], Sampling, int], Any]:
        """Generation with the present weights."""
        return partial(self.decoding.generate, self.state.params)

    def lay_out(self, batch: Batch) -> Positions:
        return lay_out(self.pattern, batch, self.vocabulary, self.sizes)

    def _init(self, key: Array) -> TrainState:
        params, zero = self.definition.init(key), jnp.zeros((), jnp.int32)
        return TrainState(params, self.optimizer.init(params), zero, zero)

    def _update(self, state: TrainState, rows: Positions) -> TrainState:
        gradients, loss = self._gradients(state.params, rows)
        return apply_gradients(self.optimizer, state, gradients, rows.weights.sum(), loss)[0]

    def _gradients(self, params: Any, rows: Positions) -> tuple[Any, Float[Array, ""]]:
        """Gradients of the summed loss of the counted tokens, and this loss."""
        vectors, pullback = jax.vjp(lambda weights: self._vectors(weights, rows), params)
        head = params["head"]["kernel"]

        def body(carry: tuple[Array, Array], chunk: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
            loss, (d_head, dx) = jax.value_and_grad(self._loss, (0, 1))(head, *chunk)
            return (carry[0] + loss, carry[1] + d_head), dx

        start = (jnp.zeros(()), jnp.zeros_like(head))
        (loss, d_head), dx = jax.lax.scan(body, start, self._chunks(vectors, rows))
        each = jnp.arange(len(vectors))[:, None]
        dx = rearrange(dx, "chunks size D -> (chunks size) D")[: rows.counted.size].reshape(*rows.counted.shape, -1)
        (gradients,) = pullback(jnp.zeros_like(vectors).at[each, rows.counted].add(dx))
        return gradients | {"head": {"kernel": d_head}}, loss

    def _tally(self, params: Any, rows: Positions) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The summed loss of the counted tokens, and their number."""
        head, chunks = params["head"]["kernel"], self._chunks(self._vectors(params, rows), rows)
        loss, _ = jax.lax.scan(lambda loss, chunk: (loss + self._loss(head, *chunk), None), jnp.zeros(()), chunks)
        return loss, rows.weights.sum()

    def _vectors(self, params: Any, rows: Positions) -> Float[Array, "B P D"]:
        weights = jax.tree.map(lambda weight: weight.astype(self.dtype), params)
        return self.definition.merge(weights)(rows, self.config.train.global_remat)

    def _loss(
        self, head: Float[Array, "D V"], x: Float[Array, "C D"], tokens: Int[Array, "C Q"], weights: Float[Array, "C Q"]
    ) -> Float[Array, ""]:
        """The summed loss of a chunk of positions."""
        parts = level_logits(x @ head.astype(self.dtype), self.vocabulary)
        indices = level_index(tokens, self.vocabulary)
        losses = [cross_entropy(part[:, None], index[:, None])[0] for part, index in zip(parts, indices, strict=True)]
        return (jnp.concatenate(losses, axis=1) * weights).sum()

    def _chunks(self, vectors: Float[Array, "B P D"], rows: Positions) -> tuple[Array, Array, Array]:
        """Vectors, tokens and weights of the counted positions, [chunks, positions of a chunk, …]."""
        each, size = jnp.arange(len(vectors))[:, None], self.config.train.local_chunk_frames * rows.tokens.shape[-1]
        chunks = -(-rows.counted.size // size)
        size = -(-rows.counted.size // chunks)

        def split(x: Array) -> Array:
            x = rearrange(x, "B N ... -> (B N) ...")
            x = jnp.pad(x, ((0, chunks * size - len(x)), (0, 0)))
            return rearrange(x, "(chunks size) ... -> chunks size ...", chunks=chunks)

        counted = (vectors[each, rows.counted], rows.tokens[each, rows.counted], rows.weights)
        return tuple(split(x) for x in counted)  # type: ignore[return-value]
