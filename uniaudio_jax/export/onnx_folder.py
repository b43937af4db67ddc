"""A model as a graph of ONNX, and what the graph and the program of an exported folder compute."""

import importlib.metadata
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from uniaudio_jax import pytorch
from uniaudio_jax.config import ModelConfig
from uniaudio_jax.export.certificate import module_of
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.packages import load_package
from uniaudio_jax.pytorch.load import load_torch_model
from uniaudio_jax.sequence import Batch, Frames
from uniaudio_jax.tasks import Task
from uniaudio_jax.vocab import GLOBAL_START

GRAPH, PROGRAM = "frame.onnx", "onnx_generate.py"
INSTALL = "bash launch/install.sh onnx"
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


def load_packages() -> None:
    """Raises ValueError unless all that an export to ONNX needs is installed."""
    for name in PACKAGES:
        load_package(name, "--format onnx", INSTALL)


def write_onnx(model: ModelConfig, params: Params, folder: Path) -> str:
    """Writes the graph of a model with its weights, and the program that runs it; returns a phrase about them."""
    from uniaudio_jax.pytorch.onnx_frame import write_graph

    write_graph(load_torch_model(model, params)[1], folder / GRAPH)
    shutil.copy(Path(pytorch.__path__[0]) / PROGRAM, folder / PROGRAM)
    return f"{(folder / f'{GRAPH}.data').stat().st_size / 1e6:.1f} MB of weights beside {GRAPH}"


class Span(NamedTuple):
    """One example of a packed row: the row, and its frames there."""

    row: int
    frames: np.ndarray


class OnnxFolder:
    """The graph of a folder, run by its own program."""

    runtime, decode = "onnxruntime", None

    def __init__(self, folder: Path):
        load_package("onnxruntime", f"{folder / GRAPH}", INSTALL)
        installed = {each.name for each in importlib.metadata.distributions()}
        self.versions = {name: importlib.metadata.version(name) for name in PACKAGES if name in installed}
        self.program = module_of(folder / PROGRAM)
        self.model = self.program.UniAudio(folder)

    def logits(self, batch: Batch) -> np.ndarray:
        """Logits [B, T, Q, V] of packed rows.

        Each example is a row of its own, of which the graph reads one frame a step; it chooses the ids that are there,
        as no others are allowed.
        """
        spans = [
            Span(row, np.flatnonzero(segments == segment))
            for row, segments in enumerate(batch.segments)
            for segment in np.unique(segments[segments > 0])
        ]
        longest = max(len(span.frames) for span in spans)
        padded = [self._padded(batch, span, longest) for span in spans]
        before, aligned, text, is_text, wanted = (np.stack(field) for field in zip(*padded, strict=True))
        padding = np.array([longest - len(span.frames) for span in spans])
        logits, caches = np.zeros((*batch.tokens.shape, self.model.size), np.float32), None
        noise = np.zeros((len(spans), self.model.levels, self.model.size), np.float32)
        for frame in range(longest):
            now = slice(frame, frame + 1)
            inputs = {"before": before[:, now], "padding": padding, "aligned": aligned[:, now]}
            inputs |= {"text": text[:, now], "is_text": is_text[:, now]}
            allowed = np.arange(self.model.size) == wanted[:, frame, :, None]
            _, made, caches = self.model.step(inputs, caches, allowed=allowed, noise=noise, temperature=0, top_k=1)
            for span, pad, row in zip(spans, padding, made, strict=True):
                if frame >= pad:
                    logits[span.row, span.frames[frame - pad]] = row
        return logits

    def greedy(self, task: Task, streams: Mapping[str, np.ndarray], prefix: Frames, frames: int) -> np.ndarray:
        """The most likely codes [frames, Q] after a prefix."""
        texts = [prefix.text_vectors] if len(prefix.text_vectors) else None
        (tokens,) = self.model.generate([prefix.tokens], frames, texts=texts, end=-1, temperature=0)
        return self.model.codes(tokens)

    def _padded(self, batch: Batch, span: Span, length: int) -> tuple[np.ndarray, ...]:
        """Ids before each frame of an example, those of conditions at its time, the text vectors there and where they
        are, and its ids; all [length, …], behind padding."""
        tokens, slots = batch.tokens[span.row, span.frames], batch.text_slots[span.row, span.frames]
        room = ((length - len(tokens), 0), (0, 0))
        before = np.concatenate([np.full_like(tokens[:1], GLOBAL_START), tokens[:-1]]).astype(np.int64)
        aligned = self.model.aligned_frames(tokens, 0)
        slots = np.pad(slots[:-1], (length - len(slots) + 1, 0), constant_values=-1)
        text = batch.text_vectors[span.row][np.maximum(slots, 0)]
        beside = np.pad(aligned, (room[0], *[(0, 0)] * 3), constant_values=-1)
        return np.pad(before, room), beside, text, slots >= 0, np.pad(tokens, room)
