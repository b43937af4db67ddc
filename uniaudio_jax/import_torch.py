"""A run, or a codec, out of weights in the names of the public PyTorch checkpoints.

    python -m uniaudio_jax.import_torch --weights model.pth --config config.json --out RUN
    python -m uniaudio_jax.import_torch --kind codec --weights encodec_24khz.th --layout encodec_24khz --out CODEC

config of a model: {"vocab", "context_frames", "width", "heads", "global_layers", "local_layers", "codebooks"}, or the
config.yaml of the public UniAudio code; of a codec: {"n_filters", "dimension", "ratios", "sample_rate", "bins",
"codebooks_stored"}. Either can be exported again bit-equal.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from uniaudio_jax.checkpoint import Checkpoints, describe, state_items
from uniaudio_jax.cli import main_guard, parse
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.codec.exchange import config_from_json as config_from_codec_json
from uniaudio_jax.codec.exchange import import_codec
from uniaudio_jax.codec.public import public_codec
from uniaudio_jax.codec.weights import published_tensors
from uniaudio_jax.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from uniaudio_jax.convert import config_from_json, from_torch_names, torch_shapes
from uniaudio_jax.export.public import sizes_of_public
from uniaudio_jax.files import read_json, read_text
from uniaudio_jax.locks import hold
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.optim import TrainState, make_optimizer
from uniaudio_jax.trees import WIDENED
from uniaudio_jax.weight_files import read_weights

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Make a run, or a codec, out of published weights."""

    weights: Path
    """A .pth, .pt, .th, .bin, .checkpoint or .safetensors file, read without PyTorch; the weights may stand below any
    keys and prefixes, beside other things; of several shards name any one, or their .index.json."""
    out: Path
    """Folder that the run or codec is written to."""
    kind: Literal["model", "codec"] = "model"
    """What the weights are of."""
    config: Path | None = None
    """JSON of the sizes, or of a model the public code's config.yaml; see above."""
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


def convert_sizes(path: Path, convert: Callable[[dict[str, Any]], Config]) -> Config:
    """The config that `convert` makes of a JSON of sizes. Raises ValueError that names the file where it cannot."""
    sizes = read_yaml(path) if path.suffix in (".yaml", ".yml") else read_json(path, "a JSON of sizes; see --help")
    try:
        return convert(sizes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The sizes that the config.yaml of the public code states. Raises ValueError that names the file."""
    wanted = "the config.yaml of a training with the public UniAudio code"
    if not path.is_file():
        raise ValueError(f"{path}: got no file, wanted {wanted}")
    try:
        values = yaml.safe_load(read_text(path, wanted))
        return sizes_of_public(values if isinstance(values, dict) else {})
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def read_noted(path: Path, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """The tensors of a file; prints where in it they stood and what was passed over.

    Raises ValueError for numbers that are not finite.
    """
    weights = read_weights(path, wanted)
    if weights.note:
        print(f"{path}: {weights.note}")
    floats = {name: tensor for name, tensor in weights.tensors.items() if tensor.dtype.name in WIDENED}
    if broken := [name for name, tensor in floats.items() if not np.isfinite(tensor).all()]:
        raise ValueError(
            f"{path}: {len(broken)} of {len(weights.tensors)} tensors hold NaN or infinite values (first: "
            f"{broken[0]}); copy it again"
        )
    return weights.tensors


def read_model(weights: Path, config: Path) -> tuple[ModelConfig, Params]:
    """The config and the weights of a language model. What its tensors are called does not depend on "text_width"."""
    named = convert_sizes(config, lambda sizes: config_from_json({"text_width": 1, **sizes}))
    state = read_noted(weights, torch_shapes(named))
    model = convert_sizes(config, lambda sizes: config_from_json(sizes, state))
    return model, jax.tree.map(jnp.asarray, from_torch_names(state, model))


def import_run(model: ModelConfig, params: Params, out: Path, codec: str | None) -> None:
    """Writes a run folder with one checkpoint, of step 0."""
    frames = min(1024, model.context_frames)
    data = DataConfig(
        root="tokens", tasks={"tts": 1.0}, row_frames=frames, target_frames=frames, rows=8, text_frames=128
    )
    config = RunConfig(name="imported", codec=codec, model=model, data=data, train=TrainConfig(steps=100_000))
    optimizer = make_optimizer(config.optim, config.train.steps)
    zero = jnp.zeros((), jnp.int32)
    meta = describe(config, load_codec(codec).passport() if codec else None)
    checkpoints = Checkpoints(out)
    if checkpoints.latest() is not None:
        raise ValueError(f"{out}: holds checkpoints up to step {checkpoints.latest()}; give an --out that does not")
    checkpoints.save(0, state_items(TrainState(params, optimizer.init(params), zero, zero)), meta)
    checkpoints.close()


def import_codec_files(options: ImportOptions) -> str:
    """Writes a codec folder; returns a line about it."""
    if options.config:
        layout = convert_sizes(options.config, config_from_codec_json)
    else:
        layout = public_codec(options.layout or "")
    state = read_noted(options.weights, [tensor.name for tensor in published_tensors(layout)])
    sha256 = import_codec(state, layout, options.out, options.weights.name)
    return f"{len(state)} tensors of codec {layout.name} into {options.out} (sha256 {sha256[:12]}…)"


def import_model_files(options: ImportOptions) -> str:
    """Writes a run folder; returns a line about it."""
    assert options.config is not None  # `ImportOptions` refuses a model without one
    model, params = read_model(options.weights, options.config)
    with hold(options.out, "give another --out"):
        import_run(model, params, options.out, options.codec)
    return (
        f"{len(torch_shapes(model))} tensors into {options.out}: {model.global_stack.layers} global and "
        f"{model.local_stack.layers} local layers of width {model.global_stack.width}, {model.vocabulary_size} ids "
        f"with the ranges {', '.join(model.ids.ranges) or '(none)'}"
    )


def main() -> None:
    with main_guard():
        options = parse(ImportOptions, __doc__)
        print("import:", (import_codec_files if options.kind == "codec" else import_model_files)(options))


if __name__ == "__main__":
    main()
