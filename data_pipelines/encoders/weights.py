"""Files of the frozen encoders: where they are, and their arrays by the names of our layers."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from data_pipelines.encoders.layers import Weights


def package_folder(module: str, wanted: str, install: str) -> Path:
    """The folder `model` of an installed package, found without importing it: that may take PyTorch.

    Raises ValueError where it is not installed, with what it is `wanted` for and the command that installs it.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"got no package {module}, wanted it for {wanted}; run `{install}`, or give a folder")
    return Path(spec.origin).parent / "model"


def part(arrays: Mapping[str, np.ndarray], name: str, where: str) -> dict[str, np.ndarray]:
    """The weight of one layer and its bias, if it has one, in float32. Raises ValueError with the file, `where`,
    for a missing weight."""
    if f"{name}.weight" not in arrays:
        raise ValueError(f"{where}: got no {name}.weight, wanted the weights of such a model")
    kinds = [kind for kind in ("weight", "bias") if f"{name}.{kind}" in arrays]
    return {kind: arrays[f"{name}.{kind}"].astype(np.float32, copy=False) for kind in kinds}


def layers_of(
    arrays: Mapping[str, np.ndarray], names: Mapping[str, str], where: str, count: int | None = None
) -> list[Weights]:
    """The first `count` equal layers of a model, by default all, each with its parts under our names.

    names: our name of a part → its name in `arrays`, with `{}` for the layer's number. Raises ValueError that names the
    file, `where`, for a model of fewer layers.
    """
    depth = 0
    while f"{names['out'].format(depth)}.weight" in arrays:
        depth += 1
    count = depth if count is None else count
    if not 0 < count <= depth:
        raise ValueError(f"{where}: got layer {count}, wanted 1 to {depth}, the layers of this model")
    return [{ours: part(arrays, name.format(layer), where) for ours, name in names.items()} for layer in range(count)]


def stack(layers: Sequence[Weights]) -> Weights:
    """Equal layers as one, each array with a first axis for the layers, for `jax.lax.scan`."""
    return jax.tree.map(lambda *arrays: np.stack(arrays), *layers)
