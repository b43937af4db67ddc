"""The arithmetic of the model: multiply-adds times two of its matrix products, not look-ups, norms and softmax.

A layer of width D does 24 D² for each item, projections and MLP, and attention 4 D for each item that another one sees:
2 D for the scores, 2 D for the mixture.
"""

from uniaudio_jax.config import ModelConfig, Remat, StackConfig


def forward_flops(model: ModelConfig, frames: int, loss_frames: int, row_frames: int) -> float:
    """Of one forward pass; a training step is three times this.

    frames: all frames of the rows; loss_frames: those that the local stack runs over; row_frames: T.
    """
    return global_flops(model, frames, row_frames) + local_flops(model, loss_frames)


def global_flops(model: ModelConfig, frames: int, row_frames: int) -> float:
    """Of a forward pass of the global stack over `frames` frames in rows of T = `row_frames`."""
    return sum(_stack(model.global_stack, frames, (row_frames + 1) / 2))


def local_flops(model: ModelConfig, loss_frames: int) -> float:
    """Of a forward pass of the local stack over so many frames, with the link and the head."""
    tokens, width = loss_frames * model.codebooks, model.local_stack.width
    columns = model.codebooks * model.vocabulary_size if model.layout.head == "shared" else model.vocabulary_size
    ends = 2 * loss_frames * width * (columns + width)
    return sum(_stack(model.local_stack, tokens, (model.codebooks + 1) / 2)) + ends


def recomputed_flops(config: StackConfig, items: int, seen: float, remat: Remat) -> float:
    """What the backward pass of a stack computes again of the forward pass, where each item sees `seen` on average."""
    products, attention = _stack(config, items, seen)
    return {"none": 0.0, "dots": attention, "full": products + attention}[remat]


def _stack(config: StackConfig, items: int, seen: float) -> tuple[float, float]:
    """Of the products with weights, and of attention."""
    return items * config.layers * 24.0 * config.width**2, items * config.layers * 4.0 * seen * config.width
