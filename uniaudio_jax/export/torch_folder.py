"""What the PyTorch modules and weights of an exported folder compute."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from uniaudio_jax.export.certificate import module_of
from uniaudio_jax.sequence import Batch, Frames
from uniaudio_jax.tasks import Task


class TorchFolder:
    """The model, vocabulary and codec of a folder, made by its own files; `torch` is the package."""

    runtime = "PyTorch"

    def __init__(self, folder: Path, torch: Any):
        model, prompts, codec = (
            module_of(folder / f"{name}.py") for name in ("modeling_uniaudio", "prompts", "modeling_codec")
        )
        self.torch = torch
        self.versions = {"torch": torch.__version__, "safetensors": safetensors.__version__}
        self.model, self.vocabulary = model.UniAudio.from_pretrained(folder), prompts.Vocabulary.from_pretrained(folder)
        self.codec = codec.Codec.from_pretrained(folder) if (folder / "codec.json").is_file() else None
        self.decode = None if self.codec is None else self._decode

    def logits(self, batch: Batch) -> np.ndarray:
        """Logits [B, T, Q, V] of packed rows."""
        arrays = {
            "tokens": batch.tokens,
            "positions": batch.positions,
            "segment_ids": batch.segments,
            "text_slots": batch.text_slots,
        }
        tensors = {name: self._ids(array) for name, array in arrays.items()}
        with self.torch.no_grad():
            return self.model(**tensors, text_vectors=self.torch.from_numpy(batch.text_vectors)).numpy()

    def greedy(self, task: Task, streams: Mapping[str, np.ndarray], prefix: Frames, frames: int) -> np.ndarray:
        """The most likely codes [frames, Q] after a task's conditions, of which the folder makes its own prompt."""
        conditions = {stream.key: self.torch.from_numpy(streams[stream.key].copy()) for stream in task.conditions}
        prompt = self.vocabulary.prompt(task.name, **conditions) | {"end": None}
        (codes,) = self.vocabulary.codes(self.model.generate(**prompt, frames=frames))
        return codes.numpy()

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        """The waveform of codes [n, Q]."""
        assert self.codec is not None
        return self.codec.decode(self._ids(codes)).numpy()

    def _ids(self, array: np.ndarray) -> Any:
        return self.torch.from_numpy(array.astype(np.int64))
