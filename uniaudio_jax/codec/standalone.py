"""A codec's decoder as the tensors and sizes of `pytorch/modeling_codec.py`, which needs no JAX."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from uniaudio_jax.codec.config import CodecConfig
from uniaudio_jax.trees import flatten


def _frame_rate(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    if name.endswith("depthwise.weight"):
        return name, array.T[:, None]
    if name.endswith(".kernel"):
        return f"{name.removesuffix('kernel')}weight", array.T
    return re.sub(r"(norm\w*)\.scale$", r"\1.weight", name), array


def _seanet(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    if match := re.fullmatch(r"(.*lstm)\.layers\.(\d+)\.(\w+)", name):
        return f"{match[1]}.{match[3]}_l{match[2]}", array.T
    name = name.replace(".unit.", ".").replace(".scale", ".norm.weight").replace(".shift", ".norm.bias")
    if array.ndim < 3:
        return name, array
    return name, array.transpose((0, 2, 1) if name.endswith(".up.weight") else (2, 1, 0))


NAMES: dict[str, Callable[[str, np.ndarray], tuple[str, np.ndarray]]] = {"frame_rate": _frame_rate, "seanet": _seanet}
"""How a layout's parameters are called and turned in PyTorch, by its kind."""


def standalone_decoder(config: CodecConfig, params: dict) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """(sizes, tensors) of a codec's decoder and codebooks; None for a layout that has no standalone decoder."""
    if config.layout.kind not in NAMES or config.segment is not None:
        return None
    layout, decoder = config.layout.for_inference({"decoder": params["decoder"]})
    state = dict(NAMES[layout.kind](name, np.asarray(array)) for name, array in flatten(decoder).items())
    state["codebooks"] = np.asarray(params["quantizer"]["codebooks"])
    sizes = {
        "name": config.name,
        "kind": layout.kind,
        "sample_rate_hz": config.sample_rate_hz,
        "codebooks": config.quantizer.codebooks,
        "entries": config.quantizer.entries,
        "vector_width": config.quantizer.width,
        "layout": dataclasses.asdict(dataclasses.replace(config, layout=layout))["layout"],
    }
    return sizes, {name: array.astype(np.float32, order="C") for name, array in state.items()}
