"""Published codec weights to our parameters and back, bit-equal.

The names and shapes are those of a PyTorch module that holds encoder, decoder and the `encodec` package's residual
vector quantiser under `encoder`, `decoder` and `quantizer`; the layout knows those of encoder and decoder.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from flax import traverse_util

from uniaudio_jax.codec.config import CodecConfig
from uniaudio_jax.codec.layouts.tensors import Tensor
from uniaudio_jax.trees import WIDENED, check_arrays

CODEBOOK_TENSORS = {"codebooks": "embed", "average": "embed_avg", "cluster_size": "cluster_size", "inited": "inited"}


def _quantizer(config: CodecConfig) -> Iterator[Tensor]:
    entries, width = config.quantizer.entries, config.quantizer.width
    shapes = {"embed": (entries, width), "embed_avg": (entries, width), "cluster_size": (entries,), "inited": (1,)}
    for level in range(config.quantizer.codebooks):
        for ours, theirs in CODEBOOK_TENSORS.items():
            shape = shapes[theirs]
            name = f"quantizer.vq.layers.{level}._codebook.{theirs}"
            yield Tensor(name, shape, ("quantizer", ours, level), tuple(range(len(shape))))


def published_tensors(config: CodecConfig) -> tuple[Tensor, ...]:
    """Every tensor of a published codec of this config. Raises ValueError where the layout has no PyTorch format."""
    return (*config.layout.torch_tensors(config.quantizer.width), *_quantizer(config))


def from_torch(state_dict: Mapping[str, np.ndarray], config: CodecConfig) -> dict:
    """The parameters {"encoder", "decoder", "quantizer"} of a published state dict, as nested dicts of float32 arrays.

    "encoder" and "decoder" are the pure dict of the layout's module. "quantizer" holds "codebooks" [K, entries, width]
    and the running means of the package's training, for a later export: "average", "cluster_size" and "inited", each
    stacked over levels. float16 and bfloat16 are widened. Raises ValueError that names missing, surplus or
    misshapen tensor.
    """
    tensors = published_tensors(config)
    check_arrays(
        f"from_torch, codec {config.name!r}",
        state_dict,
        {tensor.name: tensor.shape for tensor in tensors},
        "give the weights of this config, or the config of these weights",
        WIDENED,
    )
    flat = {
        tensor.path: np.transpose(state_dict[tensor.name], tensor.axes).astype(np.float32, order="C")
        for tensor in tensors
    }
    for ours in CODEBOOK_TENSORS:
        levels = range(config.quantizer.codebooks)
        flat["quantizer", ours] = np.stack([flat.pop(("quantizer", ours, level)) for level in levels])
    return traverse_util.unflatten_dict(flat)


def to_torch(params: Mapping, config: CodecConfig) -> dict[str, np.ndarray]:
    """The published state dict of parameters {"encoder", "decoder", "quantizer"}: the inverse of `from_torch`.

    Raises ValueError that names missing, surplus or misshapen tensor as it is published (a surplus one by its
    path in the parameters).
    """
    tensors = {tensor.path: tensor for tensor in published_tensors(config)}
    flat: dict[tuple, np.ndarray] = {}
    for path, value in traverse_util.flatten_dict(params).items():
        value = np.asarray(value)
        stacked = path[0] == "quantizer" and value.ndim > 0
        flat |= {(*path, level): part for level, part in enumerate(value)} if stacked else {path: value}
    arrays = {}
    for path, value in flat.items():
        tensor = tensors.get(path)
        if tensor is not None and value.ndim == len(tensor.axes):
            value = np.transpose(value, np.argsort(tensor.axes))
        arrays[tensor.name if tensor else ".".join(map(str, path))] = np.ascontiguousarray(value)
    check_arrays(
        f"to_torch, codec {config.name!r}",
        arrays,
        {tensor.name: tensor.shape for tensor in tensors.values()},
        "give the parameters and codebooks of a codec of this config",
    )
    return {tensor.name: arrays[tensor.name] for tensor in tensors.values()}
