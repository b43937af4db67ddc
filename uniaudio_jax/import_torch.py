"""A run, or a codec, out of weights in the names of the public PyTorch checkpoints.

    python -m uniaudio_jax.import_torch --weights model.pth --config config.json --out RUN
    python -m uniaudio_jax.import_torch --kind codec --weights encodec_24khz.th --layout encodec_24khz --out CODEC

config of a model: {"vocab", "context_frames", "width", "heads", "global_layers", "local_layers", "codebooks"}; of a
codec: {"n_filters", "dimension", "ratios", "sample_rate", "bins", "codebooks_stored"}. Either can be exported again
bit-equal.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from safetensors import SafetensorError
from safetensors.numpy import load_file

from uniaudio_jax.checkpoint import Checkpoints, describe, state_items
from uniaudio_jax.cli import main_guard
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.codec.exchange import config_from_json as config_from_codec_json
from uniaudio_jax.codec.exchange import import_codec
from uniaudio_jax.codec.public import public_codec
from uniaudio_jax.config import DataConfig, RunConfig, TrainConfig
from uniaudio_jax.convert import config_from_json, from_torch_names
from uniaudio_jax.optim import TrainState, make_optimizer


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Make a run, or a codec, out of published weights."""

    weights: Path
    """A .pth, .pt, .th or .safetensors file; a dict below the key "model" or "state_dict" is read too."""
    out: Path
    """Folder that the run or codec is written to."""
    kind: Literal["model", "codec"] = "model"
    """What the weights are of."""
    config: Path | None = None
    """JSON of the sizes; see above."""
    layout: str | None = None
    """Of a codec, instead of a config: uniaudio_16k, encodec_24khz or encodec_48khz."""
    codec: str | None = None
    """The codec that a model was trained on: a shipped one's name or a folder; leave it out where it is not at hand."""

    def __post_init__(self):
        wanted = "--config or --layout, one of them" if self.kind == "codec" else "--config and no --layout"
        if (self.config is None) == (self.layout is None) or (self.kind == "model" and self.layout):
            raise ValueError(
                f"import of a {self.kind}: got config={self.config}, layout={self.layout}; wanted {wanted}"
            )


def read_state(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint file as numpy arrays. Raises ValueError when it is none."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; --weights wants a .pth or .safetensors")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a safetensors file ({error}); copy it again") from error
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path}: PyTorch is needed to read it: {error}; `pip install torch==2.13.0`, or give a .safetensors file"
        ) from error
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path}: PyTorch could not read it ({str(error).splitlines()[0]}); wanted a dict of tensors "
            "saved by torch.save"
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path}: got a {type(state).__name__} that is not a dict of tensors; wanted a state dict")
    return {name: value.float().numpy() for name, value in state.items()}


def read_config(path: Path | None) -> dict[str, Any]:
    """The JSON of a model's sizes."""
    if path is None or not path.is_file():
        raise ValueError(f"{path}: no such file; --config wants a JSON, see --help")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error


def import_run(state: dict[str, np.ndarray], sizes: dict[str, Any], out: Path, codec: str | None) -> RunConfig:
    """Writes a run folder with one checkpoint, of step 0, and returns its config."""
    model = config_from_json(sizes, state)
    params = jax.tree.map(jnp.asarray, from_torch_names(state, model))
    frames = min(1024, model.context_frames)
    data = DataConfig(
        root="tokens", tasks={"tts": 1.0}, row_frames=frames, target_frames=frames, rows=8, text_frames=128
    )
    config = RunConfig(name="imported", codec=codec, model=model, data=data, train=TrainConfig(steps=100_000))
    optimizer = make_optimizer(config.optim, config.train.steps)
    zero = jnp.zeros((), jnp.int32)
    checkpoints = Checkpoints(out)
    if checkpoints.latest() is not None:
        raise ValueError(f"{out}: holds checkpoints up to step {checkpoints.latest()}; give an --out that does not")
    meta = describe(config, load_codec(codec).passport() if codec else None)
    checkpoints.save(0, state_items(TrainState(params, optimizer.init(params), zero, zero)), meta)
    checkpoints.close()
    return config


def main() -> None:
    with main_guard():
        options = tyro.cli(ImportOptions, description=__doc__)
        state = read_state(options.weights)
        if options.kind == "codec":
            layout = (
                public_codec(options.layout) if options.layout else config_from_codec_json(read_config(options.config))
            )
            sha256 = import_codec(state, layout, options.out, options.weights.name)
            print(f"import: {len(state)} tensors of codec {layout.name} into {options.out} (sha256 {sha256[:12]}…)")
            return
        config = import_run(state, read_config(options.config), options.out, options.codec)
        model = config.model
        print(
            f"import: {len(state)} tensors into {options.out}: {model.global_stack.layers} global and "
            f"{model.local_stack.layers} local layers of width {model.global_stack.width}, {model.vocabulary_size} ids "
            f"with the ranges {', '.join(model.ids.ranges) or '(none)'}"
        )


if __name__ == "__main__":
    main()
