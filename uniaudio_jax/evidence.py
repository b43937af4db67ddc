"""What an update is made of, measured apart from its training: the same programs on the same weights and batch."""

import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from uniaudio_jax import __version__
from uniaudio_jax.files import atomic_write
from uniaudio_jax.loss import Tally
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.paths import Place
from uniaudio_jax.programs import Programs
from uniaudio_jax.sequence import Batch, Frames
from uniaudio_jax.sharding import replicated
from uniaudio_jax.trees import flatten

Arrays = dict[str, np.ndarray]


def measure(programs: Programs, params: Params, step: int, batches: Sequence[Batch]) -> Arrays:
    """What update number `step` of a training, counted from 0, is made of, by name and whole on this host.

    tally.loss, .hits and .tokens as the training's; norm.W, of the gradient per token of weight W, one for each layer
    of a stack; frame_losses.K, [B, N], the loss of each counted frame of batch K, without its weight.
    """
    gradients, tally = programs.measure(params, jnp.int32(step), batches)
    arrays = {f"tally.{name}": value for name, value in tally._asdict().items()}
    arrays |= {f"norm.{name}": norm for name, norm in flatten(_norms(programs, gradients, tally)).items()}
    del gradients
    arrays |= {f"frame_losses.{number}": _frame_losses(programs, params, b) for number, b in enumerate(batches)}
    return whole(arrays, programs.mesh)


def _norms(programs: Programs, gradients: Params, tally: Tally) -> Any:
    """The norm of each gradient per token, [layers] of stacked ones."""

    def norm(gradient: jax.Array, axes: tuple[str, ...]) -> jax.Array:
        summed = tuple(range(1 if axes[0] == "layers" else 0, gradient.ndim))
        return jnp.sqrt(jnp.square(gradient / jnp.maximum(tally.tokens.sum(), 1.0)).sum(axis=summed))

    return jax.jit(lambda tree: jax.tree.map(norm, tree, programs.definition.axes()))(gradients)


def _frame_losses(programs: Programs, params: Params, batch: Batch) -> jax.Array:
    """The tally is linear in the weights of the frames: what it changes by with one of them is the loss there."""
    return jax.grad(lambda weights: programs.evaluate(params, batch._replace(loss_weights=weights)).loss.sum())(
        batch.loss_weights
    )


def whole(tree: Any, mesh: Mesh) -> Any:
    """The arrays in full on this host; each process must ask for them."""
    return jax.device_get(jax.jit(lambda leaves: leaves, out_shardings=replicated(mesh))(tree))


def mean_loss(arrays: Arrays) -> float:
    """Nats per token."""
    return float(arrays["tally.loss"].sum(dtype=np.float64) / max(arrays["tally.tokens"].sum(dtype=np.float64), 1))


def same_bits(one: Arrays, other: Arrays, beginning: str) -> bool:
    """Whether all arrays whose name begins so are equal to the bit; one NaN is as another."""
    names = [name for name in one if name.startswith(beginning)]
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in names)


class Example(NamedTuple):
    """An example of a batch: its row, its number there, from 1, and the mean of its counted tokens in nats."""

    batch: int
    row: int
    segment: int
    loss: float


def worst_first(batches: Sequence[Batch], arrays: Arrays) -> list[Example]:
    """The examples of batches on the host; those whose loss is not finite first, then by their losses."""
    examples = []
    for number, batch in enumerate(batches):
        losses = arrays[f"frame_losses.{number}"] / batch.tokens.shape[2]
        for row, (segments, frames) in enumerate(zip(batch.segments, batch.loss_frames, strict=True)):
            of_frame = np.where(batch.loss_weights[row] > 0, segments[frames], 0)
            for segment in np.unique(of_frame[of_frame > 0]):
                examples.append(Example(number, row, int(segment), float(losses[row][of_frame == segment].mean())))
    return sorted(examples, key=lambda example: -example.loss if np.isfinite(example.loss) else -np.inf)


def frames_of(batch: Batch, example: Example) -> Frames:
    """The frames of one example of a batch on the host."""
    row = example.row
    chosen = np.flatnonzero(batch.segments[row] == example.segment)
    tokens, slots = batch.tokens[row][chosen], batch.text_slots[row][chosen]
    return Frames(tokens, np.zeros(len(chosen), bool), slots, batch.text_vectors[row], task=0)


def facts() -> dict[str, Any]:
    """What decides, beside the weights and the batch, whether the same bits come out."""
    return {
        "platform": jax.devices()[0].platform,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "uniaudio_jax": __version__,
        **{package: version(package) for package in ("jax", "jaxlib")},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def batch_arrays(batches: Sequence[Batch]) -> Arrays:
    """The fields of batches by name."""
    return {f"{number}.{name}": v for number, batch in enumerate(batches) for name, v in batch._asdict().items()}


def save_arrays(path: Place, arrays: Arrays) -> None:
    """Writes arrays by name as an .npz file."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def batches_in(arrays: Arrays) -> list[Batch]:
    """The inverse of `batch_arrays`."""
    count = 1 + max(int(name.split(".")[0]) for name in arrays)
    return [Batch(*(arrays[f"{number}.{name}"] for name in Batch._fields)) for number in range(count)]
