"""Weights of a run, or of a SEANet codec, in the names of the public PyTorch checkpoints.

    python -m uniaudio_jax.export_torch --run RUN --out DIR
    python -m uniaudio_jax.export_torch --kind codec --run CODEC --out DIR

writes DIR/model.safetensors, DIR/model.pth and DIR/config.json, reads both back, and checks the logits of a run on
random frames against the PyTorch model in uniaudio_jax/pytorch. A run's adapters are merged into its weights, and stand
alone in DIR/adapters.safetensors, in the names of the package PEFT.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from safetensors.numpy import save_file

from uniaudio_jax.cli import main_guard, parse
from uniaudio_jax.codec.exchange import export_codec
from uniaudio_jax.convert import config_to_json, published_tensors, to_torch_names
from uniaudio_jax.files import atomic_write, check_local, write_json
from uniaudio_jax.lora import ADAPTERS, adapters_of
from uniaudio_jax.packages import load_package
from uniaudio_jax.paths import PlaceOption
from uniaudio_jax.pytorch.load import INSTALL, load_torch_model
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.trees import flatten
from uniaudio_jax.vocab import CONTINUOUS
from uniaudio_jax.weight_files import read_weights

TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, and where to."""

    run: PlaceOption
    """Folder of a training, or of a codec."""
    out: Path
    """Folder of the exported files."""
    kind: Literal["model", "codec"] = "model"
    """What `run` is the folder of: a training, or a SEANet codec."""


def write_files(state: dict[str, np.ndarray], sizes: dict[str, Any], out: Path) -> None:
    """Writes the three files of a state dict and its sizes, each whole or not at all, and reads the tensors back."""
    torch = load_package("torch", "export_torch, which writes a .pth", INSTALL)
    with atomic_write(out / "model.safetensors") as partial:
        save_file(state, partial)
    with atomic_write(out / "model.pth") as partial:
        torch.save({name: torch.from_numpy(value.copy()) for name, value in state.items()}, partial)
    write_json(out / "config.json", sizes)
    for name in ("model.safetensors", "model.pth"):
        tensors = read_weights(out / name, state).tensors
        if tensors.keys() != state.keys() or any(not np.array_equal(tensors[key], state[key]) for key in state):
            raise ValueError(f"{out / name}: read back, its tensors are not those that were written; export again")


def adapter_tensors(run: Run) -> dict[str, np.ndarray]:
    """The adapters of a run by PEFT's names: base_model.model.LAYER.lora_A.weight [rank, in] and .lora_B.weight [out,
    rank]."""
    flat, tensors = flatten({ADAPTERS: jax.device_get(run.adapters)}), {}
    for tensor in published_tensors(run.config.model):
        for end, name in zip("AB", adapters_of(tensor.path), strict=True):
            if name in flat:
                adapter = flat[name] if tensor.layer is None else flat[name][tensor.layer]
                tensors[f"base_model.model.{tensor.name.removesuffix('.weight')}.lora_{end}.weight"] = adapter.T.copy()
    return tensors


def logits_difference(run: Run, frames: int = 48) -> float:
    """The largest difference between our logits and PyTorch's over random frames of every kind of token."""
    torch, torch_model = load_torch_model(run.config.model, jax.device_get(run.params))
    model, rng = run.config.model, np.random.default_rng(0)
    tokens = rng.integers(2, model.vocabulary_size, (2, frames, model.codebooks))
    tokens[:, 3:7] = CONTINUOUS
    vectors = rng.normal(size=(2, 4, model.text_width)).astype(np.float32)
    slots = np.full((2, frames), -1)
    slots[:, 3:7] = np.arange(4)
    with torch.no_grad():
        logits = torch_model(
            torch.from_numpy(tokens), text_vectors=torch.from_numpy(vectors), text_slots=torch.from_numpy(slots)
        )
    return float(np.abs(np.asarray(run.logits(tokens, vectors)) - logits.numpy()).max())


def export_codec_files(options: ExportOptions) -> None:
    check_local("run", str(options.run))
    state, sizes = export_codec(Path(options.run))
    write_files(state, sizes, options.out)
    print(f"export: {len(state)} tensors of codec {sizes['name']}, read back bit-equal: {options.out}")


def export_run(options: ExportOptions) -> None:
    """Exports a run. Raises ValueError when the exported model's logits are not the run's."""
    run = load_run(options.run)
    state = to_torch_names(jax.device_get(run.params), run.config.model)
    write_files(state, config_to_json(run.config.model), options.out)
    if tensors := adapter_tensors(run):
        with atomic_write(options.out / "adapters.safetensors") as partial:
            save_file(tensors, partial, {"r": str(run.config.lora.rank), "lora_alpha": str(run.config.lora.alpha)})
    millions = sum(value.size for value in state.values()) / 1e6
    print(
        f"export: {len(state)} tensors, {millions:.2f} M parameters of step {run.step}, read back bit-equal: "
        f"{options.out}"
    )
    difference = logits_difference(run)
    if not difference < TOLERANCE:
        raise ValueError(f"{options.out}: logits differ from PyTorch's by {difference:.2e}, wanted below {TOLERANCE}")
    print(f"export: logits agree with PyTorch's within {difference:.1e} (wanted {TOLERANCE})")


def main() -> None:
    with main_guard():
        options = parse(ExportOptions, __doc__)
        if options.kind == "codec":
            export_codec_files(options)
        else:
            export_run(options)


if __name__ == "__main__":
    main()
