"""The separately compiled programs of a training step, and the step that runs them.

A step is global forward → local loss and gradient → global backward → update. The local stack treats frames as
independent rows, so its program runs over the counted frames alone, in chunks with a value-and-gradient each: the
[frames, Q, V] logits of a batch never exist at once. With `local_share` it learns from a few of them at each step, as
Sesame trained the audio decoder of its conversational speech model on a sixteenth of the frames ("Crossing the uncanny
valley of conversational voice", 2025).
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from uniaudio_jax.collectives import (
    gather_whole,
    join_shares,
    reduce_to_part,
    shares_of_row,
    sum_over_devices,
    take_share,
)
from uniaudio_jax.config import LoraConfig, ModelConfig, OptimConfig, TrainConfig
from uniaudio_jax.lora import Trained, merging, overlay
from uniaudio_jax.loss import Tally, add_tallies, empty_tally, tally_tokens
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.optim import TrainState, apply_gradients, make_optimizer, mean_weights
from uniaudio_jax.sequence import Batch
from uniaudio_jax.sharding import axes_sharding, on_each_device, place_stack, replicated, rows_sharding, tree_shardings
from uniaudio_jax.spikes import no_level


class Metrics(NamedTuple):
    """What one step measured: the tally of its counted tokens, the gradient's norm before clipping, and 1 where the
    update was skipped, else 0."""

    tally: Tally
    gradient_norm: Array
    skipped: Array


class Programs:
    """The compiled programs of one model on one mesh."""

    def __init__(
        self, model: ModelConfig, train: TrainConfig, optim: OptimConfig, mesh: Mesh, lora: LoraConfig | None = None
    ):
        self.model, self.train, self.optim, self.mesh = model, train, optim, mesh
        axes_sharding(mesh, ("heads",), (model.global_stack.heads,), "model.global_stack.heads")  # refuses others
        self.definition = ModelDefinition(model, mesh.devices.flat[0].platform)
        self.trained = Trained(lora or LoraConfig(), self.definition)
        self.optimizer = make_optimizer(optim, train.steps)
        self.dtype = jnp.dtype(train.compute_dtype)
        self.placement = place_stack(mesh, self.dtype)
        shardings = self.state_shardings()
        weights, whole = {part: shardings.params[part] for part in ("global", "local")}, replicated(mesh)
        vectors = rows_sharding(mesh)
        self.draw = jax.jit(self._draw, out_shardings=vectors)
        self.init = jax.jit(self._init, out_shardings=shardings)
        self.merged = merging(self.trained.config, weights)
        self.global_forward = jax.jit(self._global_forward, out_shardings=(vectors, None))
        self.global_backward = jax.jit(self._global_backward, out_shardings=weights["global"])
        self.local_shardings = weights["local"]
        local_inputs = (self.local_shardings, vectors, vectors)
        local_outputs = (whole, self.local_shardings, vectors)
        self.local_loss = jax.jit(on_each_device(mesh, self._local_loss, local_inputs, local_outputs), donate_argnums=1)
        self.local_tally = jax.jit(on_each_device(mesh, self._local_tally, local_inputs, whole))
        self.add = jax.jit(lambda total, more: jax.tree.map(jnp.add, total, more), donate_argnums=0)
        self.updated = shardings, whole, whole
        self.set_rate(1.0)

    def set_rate(self, factor: float) -> None:
        """Lets the updates from now on use the config's learning rate times `factor`."""
        optim = replace(self.optim, peak_learning_rate=factor * self.optim.peak_learning_rate)
        update = functools.partial(self._update, make_optimizer(optim, self.train.steps))
        self.update = jax.jit(update, out_shardings=self.updated, donate_argnums=0)

    def step(self, state: TrainState, batches: Sequence[Batch]) -> tuple[TrainState, Metrics]:
        """One update from the gradients of all `batches`, which count as one batch."""
        return self.apply(state, *self.measure(state.params, state.step, batches))

    def measure(self, params: Params, step: Int[Array, ""], batches: Sequence[Batch]) -> tuple[Params, Tally]:
        """What update number `step` is made of: the gradients of the summed loss of all `batches`, and their tally.

        The gradients are those of the merged weights, of which `apply` takes what is trained.
        """
        params = self.merged(params)
        if self.train.local_share < 1:
            batches = [self.draw(batch, step) for batch in batches]
        gradients, tally = self.gradients(params, batches[0])
        for batch in batches[1:]:
            gradients, tally = self.add((gradients, tally), self.gradients(params, batch))
        return gradients, tally

    def apply(self, state: TrainState, gradients: Params, tally: Tally) -> tuple[TrainState, Metrics]:
        """One update from what `measure` returned."""
        state, norm, skipped = self.update(state, gradients, tally)
        return state, Metrics(tally, norm, skipped)

    def gradients(self, params: Params, batch: Batch) -> tuple[Params, Tally]:
        """Gradients of the summed loss of the counted tokens, and their tally."""
        vectors, pullback = self.global_forward(params["global"], batch)
        tally, local, d_vectors = self.local_loss(params["local"], vectors, batch)
        return {"global": self.global_backward(pullback, params["global"], d_vectors), "local": local}, tally

    def evaluate(self, params: Params, batch: Batch) -> Tally:
        """The tally of the counted tokens, without gradients."""
        params = self.merged(params)
        vectors, _ = self.global_forward(params["global"], batch)
        return self.local_tally(params["local"], vectors, batch)

    def place(self, params: Params) -> Params:
        """These weights, whole on one device, where the programs want them."""
        return jax.device_put(params, self.state_shardings().params)

    def state_shardings(self) -> TrainState:
        """Where each array of a TrainState lives: moments as their weights, counters everywhere."""
        shapes = jax.eval_shape(self.trained.init, jax.ShapeDtypeStruct((2,), jnp.uint32))
        params = tree_shardings(self.mesh, self.trained.axes(), shapes)
        whole = replicated(self.mesh)
        moments = optax.tree_map_params(
            self.optimizer,
            lambda moment, sharding: moment if isinstance(moment, optax.MaskedNode) else sharding,
            jax.eval_shape(self.optimizer.init, self.trained.of(shapes)),
            self.trained.of(params),
            transform_non_params=lambda _: whole,
            is_leaf=lambda node: isinstance(node, optax.MaskedNode),  # a weight that is another optimizer's
        )
        level = None if self.train.spike_deviations is None else jax.tree.map(lambda _: whole, no_level())
        return TrainState(params, moments, whole, whole, None if self.train.ema_decay is None else params, level)

    def state_shapes(self) -> TrainState:
        """A TrainState of ShapeDtypeStructs with their shardings: the targets of a restore."""
        shapes = jax.eval_shape(self._init, jax.ShapeDtypeStruct((2,), jnp.uint32))
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self.state_shardings(),
        )

    def _init(self, key: Array) -> TrainState:
        params = self.trained.init(key)
        level = None if self.train.spike_deviations is None else no_level()
        zero = jnp.zeros((), jnp.int32)
        state = TrainState(params, self.optimizer.init(self.trained.of(params)), zero, zero, level=level)
        return state if self.train.ema_decay is None else state.start_ema()

    def _draw(self, batch: Batch, step: Int[Array, ""]) -> Batch:
        """The batch with `local_frames` of each row's counted frames, drawn without replacement, their weights scaled
        by all over drawn: each gradient is expected to be that of all.

        The choice follows from the seed, the step and the tokens of the row, wherever the row lies.
        """
        most = self.train.local_frames(batch.loss_frames.shape[1])
        key = jax.random.fold_in(jax.random.key(self.train.seed), step)
        tokens = rearrange(batch.tokens, "rows frames levels -> rows (frames levels)").astype(jnp.uint32)
        digests = (tokens * (2 * jnp.arange(tokens.shape[1], dtype=jnp.uint32) + 1)).sum(axis=1)

        def chances(digest: Array) -> Array:
            return jax.random.uniform(jax.random.fold_in(key, digest), batch.loss_frames.shape[1:])

        counted = batch.loss_weights > 0
        _, drawn = jax.lax.top_k(jnp.where(counted, jax.vmap(chances)(digests), -1.0), most)
        count = counted.sum(axis=1, keepdims=True)
        frames, weights, task = (
            jnp.take_along_axis(field, drawn, axis=1) for field in (batch.loss_frames, batch.loss_weights, batch.task)
        )
        scale = jnp.maximum(count / most, 1.0)
        return batch._replace(loss_frames=frames, loss_weights=weights * scale, task=task)

    def _global_forward(self, params: Params, batch: Batch) -> tuple[Float[Array, "B T D"], Any]:
        """The frame vectors, and their pullback without its copy of the weights, which the backward is given again."""

        def forward(weights: Params) -> Array:
            stack = self.placement.weights(self.definition.merge("global", weights))
            return stack(batch, self.train.global_remat, self.placement)

        vectors, pullback = jax.vjp(forward, params)
        pullback.args_res = [None] * len(pullback.args_res)
        return vectors, pullback

    def _global_backward(self, pullback: Any, params: Params, d_vectors: Float[Array, "B T D"]) -> Params:
        pullback.args_res = [params]
        return pullback(d_vectors)[0]

    def _local_loss(self, params: Params, vectors: Float[Array, "B T D"], batch: Batch):
        """Tally, gradients of the local weights, and the gradient at `vectors`, out of one device's parts.

        The weights are gathered once, before the loop over chunks, and the gradients reduced once, after it.
        """
        weights = self._whole(params)

        def chunk_loss(weights: Params, x: Array, frames: "Counted") -> tuple[Array, Tally]:
            tally = self._tally_frames(weights, x, frames)
            return tally.loss.sum(), tally

        def body(carry: tuple[Params, Tally], chunk: tuple[Array, Counted]):
            (_, tally), (gradients, dx) = jax.value_and_grad(chunk_loss, (0, 1), has_aux=True)(weights, *chunk)
            return (jax.tree.map(jnp.add, carry[0], gradients), add_tallies(carry[1], tally)), dx

        zeros = jax.tree.map(lambda weight: jnp.zeros(weight.shape, jnp.float32), weights)
        start = (zeros, empty_tally(self.model.codebooks))
        (gradients, tally), dx = jax.lax.scan(body, start, self._chunks(vectors, batch))
        d_vectors = self._scatter(dx, vectors, batch.loss_frames)
        parts = jax.tree.map(reduce_to_part, gradients, self.local_shardings)
        return sum_over_devices(tally, self.mesh), parts, d_vectors

    def _local_tally(self, params: Params, vectors: Float[Array, "B T D"], batch: Batch) -> Tally:
        weights = self._whole(params)

        def body(tally: Tally, chunk: tuple[Array, Counted]) -> tuple[Tally, None]:
            return add_tallies(tally, self._tally_frames(weights, *chunk)), None

        tally, _ = jax.lax.scan(body, empty_tally(self.model.codebooks), self._chunks(vectors, batch))
        return sum_over_devices(tally, self.mesh)

    def _whole(self, params: Params) -> Params:
        """The local weights out of all devices' parts, in the number format of the computation."""
        return jax.tree.map(
            lambda part, sharding: gather_whole(part.astype(self.dtype), sharding), params, self.local_shardings
        )

    def _tally_frames(self, weights: Params, vectors: Float[Array, "F D"], frames: "Counted") -> Tally:
        local = self.definition.merge("local", weights)
        scored = local(vectors, frames.tokens, self.train.local_remat)
        return tally_tokens(scored, frames.weights, frames.task)

    def _chunks(self, vectors: Float[Array, "B T D"], batch: Batch) -> tuple[Array, "Counted"]:
        """This device's share of its rows' counted frames, [chunks, frames of a chunk, …]."""
        rows = jnp.arange(len(vectors))[:, None]
        counted = Counted(batch.tokens[rows, batch.loss_frames], batch.loss_weights, batch.task)
        return jax.tree.map(self._split, (vectors[rows, batch.loss_frames], counted))

    def _split(self, x: Array) -> Array:
        """[B, N, …] → [chunks, frames of a chunk, …]."""
        chunks, size = self._chunk_shape(x.shape[0] * x.shape[1])
        x = rearrange(x, "rows frames ... -> (rows frames) ...")
        room = shares_of_row(self.mesh) * chunks * size - len(x)
        x = take_share(jnp.pad(x, [(0, room)] + [(0, 0)] * (x.ndim - 1)), self.mesh)
        return rearrange(x, "(chunks size) ... -> chunks size ...", chunks=chunks)

    def _scatter(self, dx: Array, vectors: Float[Array, "B T D"], places: Int[Array, "B N"]) -> Float[Array, "B T D"]:
        """The gradient at all vectors, given those at the counted frames as `_split` cut them."""
        rows, frames = places.shape
        dx = join_shares(rearrange(dx, "chunks size ... -> (chunks size) ..."), self.mesh)[: rows * frames]
        dx = rearrange(dx, "(rows frames) ... -> rows frames ...", rows=rows)
        return jnp.zeros_like(vectors).at[jnp.arange(rows)[:, None], places].add(dx)

    def _chunk_shape(self, frames: int) -> tuple[int, int]:
        """(chunks, frames of a chunk) of one device, where the devices with the same rows have `frames` together."""
        each = -(-frames // shares_of_row(self.mesh))
        chunks = -(-each // self.train.local_chunk_frames)
        return chunks, -(-each // chunks)

    def _update(
        self, optimizer: optax.GradientTransformation, state: TrainState, gradients: Params, tally: Tally
    ) -> tuple[TrainState, Array, Array]:
        tokens, loss, of = tally.tokens.sum(), tally.loss.sum(), self.trained.of
        gradients = self.trained.gradients(state.params, gradients)
        part = state._replace(params=of(state.params))
        new, norm = apply_gradients(optimizer, part, gradients, tokens, loss, self.train.spike_deviations)
        if self.train.ema_decay is not None:
            mean = mean_weights(of(state.ema), new.params, new.step, self.train.ema_decay)
            new = new._replace(ema=overlay(state.ema, mean))
        return new._replace(params=overlay(state.params, new.params)), norm, new.skipped - state.skipped


class Counted(NamedTuple):
    """Counted frames: tokens [F, Q], weights [F], task [F]."""

    tokens: Array
    weights: Array
    task: Array
