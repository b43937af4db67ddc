"""The language model's weights in the names and shapes of the public PyTorch checkpoints, and back.

A checkpoint is a flat dict: one tensor for each layer, a linear map as [out, in]. Our tree stacks equal layers along a
leading axis, and a linear map (`kernel`) is [in, out]. Only axes move, so a round trip is bit-equal in float32. Arrays
are numpy on both sides; reading and writing of files is left to the entry points.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from uniaudio_jax.config import PAPER, LayoutConfig, ModelConfig, StackConfig
from uniaudio_jax.config_files import from_dict, to_dict
from uniaudio_jax.trees import WIDENED, check_arrays, flatten, unflatten
from uniaudio_jax.vocab import ranges_within

TEXT_MAP = "continuous_mappings.text_t5"
NOTE = " (float16 and bfloat16 are widened to float32, other types are refused)"

OPTIONAL_FIELDS = {"entries": ModelConfig.entries, "appended": {}, "layout": {}}
"""Fields that a JSON states only where they differ from those of the public checkpoints."""
JSON_FIELDS = ("vocab", "context_frames", "width", "heads", "global_layers", "local_layers", "codebooks")


class Tensor(NamedTuple):
    """One tensor of a checkpoint: its name and shape there, its path in our tree, its layer where ours is stacked."""

    name: str
    path: str
    shape: tuple[int, ...]
    layer: int | None = None

    def convert(self, array: np.ndarray) -> np.ndarray:
        """A fresh float32 array: a linear map with its two axes exchanged, anything else as it is."""
        return (array.T if self.path.endswith("kernel") else array).astype(np.float32, order="C")


def to_torch_names(params: Mapping[str, Any], config: ModelConfig) -> dict[str, np.ndarray]:
    """The checkpoint of our tree {"global", "local"}, as float32 arrays: the inverse of `from_torch_names`.

    float16 and bfloat16 weights are widened to float32. Raises one ValueError that lists missing, surplus and
    misshapen array by its path and our shape.
    """
    arrays = {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    check_arrays(
        "to_torch_names", arrays, tree_shapes(config), f"give the weights of a model of this config{NOTE}", WIDENED
    )
    state = {}
    for tensor in published_tensors(config):
        array = arrays[tensor.path]
        state[tensor.name] = tensor.convert(array if tensor.layer is None else array[tensor.layer])
    return state


def from_torch_names(state: Mapping[str, np.ndarray], config: ModelConfig) -> dict[str, Any]:
    """Our tree {"global", "local"} of a checkpoint, as nested dicts of float32 arrays that share no memory with it.

    float16 and bfloat16 tensors are widened to float32. Raises one ValueError that lists missing, surplus and
    misshapen tensor with its wanted and got shape.
    """
    arrays = {name: np.asarray(value) for name, value in state.items()}
    check_arrays(
        "from_torch_names",
        arrays,
        torch_shapes(config),
        f"give the weights of this config, or their config{NOTE}",
        WIDENED,
    )
    layers: dict[str, list[np.ndarray]] = {}
    flat: dict[str, np.ndarray] = {}
    for tensor in published_tensors(config):
        array = tensor.convert(arrays[tensor.name])
        if tensor.layer is None:
            flat[tensor.path] = array
        else:
            layers.setdefault(tensor.path, []).append(array)
    return unflatten(flat | {path: np.stack(parts) for path, parts in layers.items()})


def torch_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor of a checkpoint, in the public order."""
    return {tensor.name: tensor.shape for tensor in published_tensors(config)}


def tree_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The path and shape of every array of our tree, such as "global.blocks.mlp.up.kernel": (L, D, 4 D)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor in published_tensors(config):
        shape = tensor.shape[::-1] if tensor.path.endswith("kernel") else tensor.shape
        shapes[tensor.path] = shape if tensor.layer is None else (tensor.layer + 1, *shape)
    return shapes


def published_tensors(config: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint: in the paper's layout those of the public UniAudio v1 format (arXiv 2310.00704), in
    the public order; other layouts have fewer biases and other tensors in their places."""
    layout, width = config.layout, config.global_stack.width
    ahead = len(layout.aligned)
    positions = [Tensor("g_pos.weight", "global.positions", (config.context_frames, width))]
    return [
        Tensor("g_emb.weight", "global.embedding", (config.vocabulary_size, config.token_width)),
        *(positions if layout.positions == "learned" else []),
        *_blocks("g_layers", "global.blocks", config.global_stack, layout),
        *_norm("g_ln", "global.norm", width, layout.norm),
        Tensor("l_emb.weight", "local.embedding", (config.vocabulary_size, width)),
        Tensor("l_pos.weight", "local.positions", (config.codebooks, width)),
        *_blocks("l_layers", "local.blocks", config.local_stack, layout),
        *_norm("l_ln", "local.norm", width, layout.norm),
        *_linear("g2l_linear", "local.link", config.token_width, width),
        *_head(config),
        *_linear(TEXT_MAP, "global.text", config.text_width, width),
        *([Tensor("g_aligned.weight", "global.aligned.kernel", (width, ahead * width))] if ahead else []),
    ]


def config_to_json(config: ModelConfig) -> dict[str, Any]:
    """The sizes of the model as the JSON that lies beside a checkpoint.

    Raises ValueError where the stacks differ in heads: the format has one number for both.
    """
    heads = (config.global_stack.heads, config.local_stack.heads)
    if heads[0] != heads[1]:
        raise ValueError(
            f"config_to_json: got {heads[0]} global and {heads[1]} local heads, wanted the same number; "
            "the checkpoint format has one `heads`"
        )
    paper = to_dict(PAPER)
    layout = {name: value for name, value in to_dict(config.layout).items() if value != paper[name]}
    optional = {"entries": config.entries, "appended": config.appended, "layout": layout}
    return {
        "vocab": config.vocabulary_size,
        "context_frames": config.context_frames,
        "width": config.global_stack.width,
        "heads": heads[0],
        "global_layers": config.global_stack.layers,
        "local_layers": config.local_stack.layers,
        "codebooks": config.codebooks,
        "text_width": config.text_width,
        **{name: value for name, value in optional.items() if value != OPTIONAL_FIELDS[name]},
    }


def config_from_json(values: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> ModelConfig:
    """The config of the JSON beside a checkpoint; a missing "text_width" is read from the shapes in `state`.

    The model keeps the checkpoint's number of ids, and has the public ranges that lie within them.

    Raises one ValueError that lists missing fields, surplus fields, and sizes that are not positive integers.
    """
    values = OPTIONAL_FIELDS | dict(values)
    if "text_width" not in values and state is not None:
        values["text_width"] = _text_width(state)
    appended, layout = values.pop("appended"), values.pop("layout")
    wanted = (*JSON_FIELDS, "text_width", "entries")
    problems = _size_problems(values, wanted)
    if isinstance(appended, dict):
        problems += _size_problems(appended, tuple(appended))
    else:
        problems.append(f"appended: got {appended!r}, wanted sizes of ranges by name")
    if problems:
        raise ValueError(
            f"model JSON: {len(problems)} fields do not fit; wanted {', '.join(wanted)}\n  " + "\n  ".join(problems)
        )

    def stack(layers: int) -> StackConfig:
        return StackConfig(layers=layers, width=values["width"], heads=values["heads"])

    return ModelConfig(
        vocabulary=values["vocab"],
        ranges=ranges_within(values["vocab"] - sum(appended.values()), values["codebooks"], values["entries"]),
        entries=values["entries"],
        appended=appended,
        context_frames=values["context_frames"],
        codebooks=values["codebooks"],
        text_width=values["text_width"],
        layout=from_dict(LayoutConfig, layout, "model JSON, layout"),
        global_stack=stack(values["global_layers"]),
        local_stack=stack(values["local_layers"]),
    )


def _size_problems(sizes: Mapping[str, Any], wanted: tuple[str, ...]) -> list[str]:
    """What is wrong with these sizes, a line for each that is missing, surplus or no positive integer."""
    problems = [f"{name}: surplus, got {value!r}" for name, value in sizes.items() if name not in wanted]
    for name in wanted:
        if name not in sizes:
            problems.append(f"{name}: missing, wanted a positive integer")
        elif type(sizes[name]) is not int or sizes[name] < 1:
            problems.append(f"{name}: got {sizes[name]!r}, wanted a positive integer")
    return problems


def _text_width(state: Mapping[str, Any]) -> int:
    name = f"{TEXT_MAP}.weight"
    shape = np.shape(state[name]) if name in state else None
    if shape is None or len(shape) != 2:
        raise ValueError(
            f"weights, {name}: got {'no such tensor' if shape is None else shape}, wanted [width, text "
            'width]; name the width in the JSON as "text_width"'
        )
    return int(shape[1])


def _linear(name: str, path: str, inputs: int, outputs: int, layer: int | None = None, bias: bool = True):
    weight = Tensor(f"{name}.weight", f"{path}.kernel", (outputs, inputs), layer)
    return [weight, Tensor(f"{name}.bias", f"{path}.bias", (outputs,), layer)] if bias else [weight]


def _norm(name: str, path: str, width: int, kind: str, layer: int | None = None) -> list[Tensor]:
    weight = Tensor(f"{name}.weight", f"{path}.scale", (width,), layer)
    return [weight, Tensor(f"{name}.bias", f"{path}.bias", (width,), layer)] if kind == "layer" else [weight]


def _head(config: ModelConfig) -> list[Tensor]:
    width = config.local_stack.width
    if config.layout.head == "shared":
        return _linear("lm_head", "local.head", width, config.vocabulary_size, bias=False)
    first = Tensor("lm_head.first.weight", "local.head.first_kernel", (config.first_ids, width))
    shape = (config.entries, width)
    return [first] + [
        Tensor(f"lm_head.later.{level}.weight", "local.head.later_kernel", shape, level)
        for level in range(config.codebooks - 1)
    ]


def _blocks(name: str, path: str, stack: StackConfig, layout: LayoutConfig) -> list[Tensor]:
    width, hidden, tensors = stack.width, stack.hidden, []
    for layer in range(stack.layers):
        at = f"{name}.{layer}"
        for part in ("query", "key", "value", "out"):
            bias = layout.biases and part != "key"
            tensors += _linear(f"{at}.attn.{part}", f"{path}.attention.{part}", width, width, layer, bias)
        for part in ("query_norm", "key_norm") if layout.query_key_norm else ():
            tensors += _norm(f"{at}.attn.{part}", f"{path}.attention.{part}", stack.head_width, "rms", layer)
        tensors += _norm(f"{at}.attn_ln", f"{path}.attention_norm", width, layout.norm, layer)
        tensors += _linear(f"{at}.mlp.0", f"{path}.mlp.up", width, hidden, layer, layout.biases)
        tensors += _linear(f"{at}.mlp.2", f"{path}.mlp.down", hidden, width, layer, layout.biases)
        tensors += _norm(f"{at}.mlp_ln", f"{path}.mlp_norm", width, layout.norm, layer)
    return tensors
