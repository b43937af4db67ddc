"""Values of the model, its gradients and the codec at odd and large sizes, for comparison between two ways to compile.

python -m tests.values OUT.npz
"""

import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from configs import quickstart
from tests.tiny import MODEL, make_programs, random_batch, start
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import ModelConfig
from uniaudio_jax.sequence import Batch


def small() -> tuple[ModelConfig, Batch]:
    return MODEL, random_batch(rows=3, frames=59, loss_frames=31)


def large() -> tuple[ModelConfig, Batch]:
    """The quickstart's widths and ids, at lengths that divide by nothing."""
    model = replace(quickstart.get_config().model, text_width=MODEL.text_width, appended=MODEL.appended)
    return model, random_batch(rows=2, frames=211, loss_frames=127)


def values() -> dict[str, np.ndarray]:
    """Arrays by name: losses, gradients, logits, codes and waveforms."""
    found = {}
    for name, (model, batch) in {"small": small(), "large": large()}.items():
        programs = make_programs(model=model, local_chunk_frames=37)
        state, placed = start(programs, batch)
        gradients, tally = programs.gradients(state.params, placed)
        found[f"{name}/loss"] = tally.loss
        found[f"{name}/logits"] = jax.jit(programs.definition.logits)(state.params, placed)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
            found[f"{name}/gradient{jax.tree_util.keystr(path)}"] = leaf
    codec = load_codec("tiny_16k")
    for samples in (7013, 163_841):
        wav = 0.1 * np.random.default_rng(samples).normal(size=samples).astype(np.float32)
        codes = codec.encode(wav)
        found |= {f"codec/{samples}/codes": codes, f"codec/{samples}/wav": codec.decode(codes)}
    return {name: np.asarray(value) for name, value in found.items()}


if __name__ == "__main__":
    with Path(sys.argv[1]).open("wb") as file:
        np.savez(file, allow_pickle=False, **values())
