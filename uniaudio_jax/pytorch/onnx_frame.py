"""One frame of a UniAudio model as a graph of ONNX, with its keys and values as inputs and outputs.

The caches grow by concatenation: a step reads and copies as many frames as there are so far, where caches of the whole
context's length would be read and copied whole each time. Each layer has its own, so that what comes out goes in again
without a copy. As the number of new frames is free, one graph reads a prompt and makes the frames after it.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uniaudio_jax.pytorch.modeling_uniaudio import ALIGNED_MARKS, LOCAL_START, Cache, UniAudio, run_blocks

ROWS, FRAMES, CACHED = 2, 3, 5
"""Sizes of the inputs that the graph is traced with; tracing takes a size of 1 for a constant."""
FREE = {
    "before": ("rows", "frames"),
    "text": ("rows", "frames"),
    "is_text": ("rows", "frames"),
    "padding": ("rows",),
    "aligned": ("rows", "frames"),
    "allowed": ("rows",),
    "noise": ("rows",),
    "temperature": (),
    "top_k": (),
}
"""The inputs of the graph before its caches, and the first axes of each, which may have any length."""


class GrowingCache(Cache):
    """Keys and values [B, H, T, E] of one attention layer, which each step makes longer."""

    def __init__(self, *past: Tensor):
        self.past = past

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values so far, these included."""
        if self.past:
            keys, values = (torch.cat(parts, dim=2) for parts in zip(self.past, (keys, values), strict=True))
        self.past = (keys, values)
        return keys, values


class Frame(nn.Module):
    """The next frame of each row, after N new frames that follow the cached ones."""

    def __init__(self, model: UniAudio):
        super().__init__()
        self.model = model

    def forward(
        self,
        before: Tensor,
        text: Tensor,
        is_text: Tensor,
        padding: Tensor,
        aligned: Tensor,
        allowed: Tensor,
        noise: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        past: list[Tensor],
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Ids [B, Q] and logits [B, Q, V] of the frame, and the caches: keys and values of each layer in turn.

        before: ids [B, N, Q] of the frame before each new one, `<mega_global>` before a row's first; text, is_text:
        vectors [B, N, W], and where they stand for the ids; padding: how many frames [B] of a row, its first ones,
        are none; aligned: ids [B, N, A, K, Q] of the frames of conditions at the time of each new one and ahead of
        it, -1 where there are none; allowed: which ids [B, Q, V] may come; noise: what `temperature` [1] times is
        added to their logits before the largest is taken, Gumbel noise to draw one; top_k: among how many [1] of
        the most likely.
        """
        model, caches = self.model, [GrowingCache(*pair) for pair in zip(past[::2], past[1::2], strict=True)]
        keys = torch.arange(past[0].shape[2] + before.shape[1])
        queries = past[0].shape[2] + torch.arange(before.shape[1])
        positions = (queries - padding.unsqueeze(1)).clamp(min=0)
        # A frame of padding sees itself, as a softmax over nothing is no number.
        seen = (keys >= padding[:, None, None]) | (keys == queries[:, None])
        mask = (seen & (keys <= queries[:, None])).unsqueeze(1)
        mapped = model.continuous_mappings["text_t5"](text)
        x = torch.where(is_text.unsqueeze(-1), mapped, model.frame_vectors(before))
        if model.config.layout.aligned:
            x = x + model.of_conditions(aligned)
        x = model.placed(x, positions)
        x = run_blocks(model.g_layers, x, mask, caches, model.turn(positions))
        ids, logits = self.levels(model.g_ln(x[:, -1]), allowed, temperature * noise, top_k)
        return ids, logits, [part for cache in caches for part in cache.past]

    def levels(self, vectors: Tensor, allowed: Tensor, noise: Tensor, top_k: Tensor) -> tuple[Tensor, Tensor]:
        """Ids [B, Q] and logits [B, Q, V] of the frames of these vectors [B, D], one level after the other."""
        model, caches = self.model, [GrowingCache() for _ in self.model.l_layers]
        inputs = model.linked(vectors) + model.l_pos.weight
        token, ids, logits = torch.full_like(allowed[:, 0, 0], LOCAL_START, dtype=torch.long), [], []
        for level in range(model.config.codebooks):
            x = run_blocks(model.l_layers, (model.l_emb(token) + inputs[:, level]).unsqueeze(1), caches=caches)
            logits.append(model.lm_head.level(model.l_ln(x[:, 0]), level, ids[0] if ids else None))
            kept = logits[-1].masked_fill(~allowed[:, level], -torch.inf)
            least = kept.sort(descending=True).values.index_select(1, top_k - 1)
            token = (kept + noise[:, level]).masked_fill(kept < least, -torch.inf).argmax(-1)
            ids.append(token)
        return torch.stack(ids, dim=1), torch.stack(logits, dim=1)


def traced_inputs(model: UniAudio) -> dict[str, Any]:
    """Inputs of `Frame` by their names."""
    sizes = model.config
    ids = (ROWS, sizes.codebooks, sizes.vocab)
    cache = torch.zeros(ROWS, sizes.heads, CACHED, sizes.head_width)
    looked_up = (len(sizes.layout.aligned), len(ALIGNED_MARKS))
    return {
        "before": torch.zeros(ROWS, FRAMES, sizes.codebooks, dtype=torch.long),
        "text": torch.zeros(ROWS, FRAMES, sizes.text_width),
        "is_text": torch.zeros(ROWS, FRAMES, dtype=torch.bool),
        "padding": torch.zeros(ROWS, dtype=torch.long),
        "aligned": torch.zeros(ROWS, FRAMES, *looked_up, sizes.codebooks, dtype=torch.long),
        "allowed": torch.ones(ids, dtype=torch.bool),
        "noise": torch.zeros(ids),
        "temperature": torch.ones(1),
        "top_k": torch.ones(1, dtype=torch.long),
        "past": [cache.clone() for _ in range(2 * sizes.global_layers)],
    }


def write_graph(model: UniAudio, path: Path) -> None:
    """Writes the graph of `Frame` to `path`, and its weights to a file beside it whose name has .data at the end."""
    inputs = traced_inputs(model)
    caches = [f"{name}_{layer}" for layer in range(model.config.global_layers) for name in ("keys", "values")]
    free = {name: dict(enumerate(axes)) for name, axes in FREE.items()}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own insides
        program = torch.onnx.export(
            Frame(model).eval(),
            kwargs=inputs,
            dynamic_shapes=free | {"past": [{0: "rows", 2: "cached"}] * len(caches)},
            input_names=[*FREE, *caches],
            output_names=["ids", "logits", *(f"new_{name}" for name in caches)],
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        for node in program.model.graph:
            node.metadata_props.clear()  # the stack and the paths of the machine that traced it
        program.save(str(path), external_data=True)
