"""Published SEANet codec weights to the parameters of `Seanet` and its codebooks, and back, bit-equal.

The names and shapes are those of a PyTorch module that holds the `encodec` package's encoder, decoder and residual
vector quantiser under `encoder`, `decoder` and `quantizer`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from flax import traverse_util

from uniaudio_jax.codec.config import CodecConfig, SeanetConfig

CODEBOOK_TENSORS = {"codebooks": "embed", "average": "embed_avg", "cluster_size": "cluster_size", "inited": "inited"}


@dataclass(frozen=True)
class Tensor:
    """One published tensor: its name and shape, where it lies in our parameters, and the order of its axes there.

    The last part of a quantizer's path is the level in a stacked array.
    """

    name: str
    shape: tuple[int, ...]
    path: tuple[str | int, ...]
    axes: tuple[int, ...]


def _kernel(
    config: SeanetConfig, name: str, path: tuple, shape: tuple[int, int, int], axes: tuple[int, int, int], outputs: int
) -> Iterator[Tensor]:
    """A kernel in its PyTorch shape, whose first axis is normed; its bias; and the norm that follows, if any."""
    inner, norm = name + "." + name.rsplit(".", 1)[1], name + ".norm"
    if config.norm == "weight_norm":
        yield Tensor(f"{inner}.bias", (outputs,), (*path, "bias"), (0,))
        yield Tensor(f"{inner}.weight_g", (shape[0], 1, 1), (*path, "weight_g"), axes)
        yield Tensor(f"{inner}.weight_v", shape, (*path, "weight_v"), axes)
    else:
        yield Tensor(f"{inner}.weight", shape, (*path, "weight"), axes)
        yield Tensor(f"{inner}.bias", (outputs,), (*path, "bias"), (0,))
        yield Tensor(f"{norm}.weight", (outputs,), (*path, "scale"), (0,))
        yield Tensor(f"{norm}.bias", (outputs,), (*path, "shift"), (0,))


def _conv(config: SeanetConfig, name: str, path: tuple, inputs: int, outputs: int, kernel: int) -> Iterator[Tensor]:
    return _kernel(config, f"{name}.conv", path, (outputs, inputs, kernel), (2, 1, 0), outputs)


def _transposed_conv(config: SeanetConfig, name: str, path: tuple, inputs: int, outputs: int, kernel: int):
    return _kernel(config, f"{name}.convtr", path, (inputs, outputs, kernel), (0, 2, 1), outputs)


def _lstm(name: str, path: tuple, width: int, layers: int) -> Iterator[Tensor]:
    for layer in range(layers):
        for part in ("ih", "hh"):
            where = (*path, "layers", layer)
            yield Tensor(f"{name}.lstm.weight_{part}_l{layer}", (4 * width, width), (*where, f"weight_{part}"), (1, 0))
            yield Tensor(f"{name}.lstm.bias_{part}_l{layer}", (4 * width,), (*where, f"bias_{part}"), (0,))


def _unit(config: SeanetConfig, name: str, path: tuple, width: int) -> Iterator[Tensor]:
    hidden = width // config.compress
    yield from _conv(config, f"{name}.block.1", (*path, "narrow"), width, hidden, config.residual_kernel)
    yield from _conv(config, f"{name}.block.3", (*path, "wide"), hidden, width, 1)
    yield from _conv(config, f"{name}.shortcut", (*path, "shortcut"), width, width, 1)


def _encoder(config: SeanetConfig, width: int) -> Iterator[Tensor]:
    """Numbers in the names count the activations too: 0 first, then unit, ELU, down for each stage, LSTM, ELU, last."""
    yield from _conv(config, "encoder.model.0", ("encoder", "first"), config.channels, config.filters, config.kernel)
    at, inner = 1, config.filters
    for stage, ratio in enumerate(reversed(config.ratios)):
        path = ("encoder", "stages", stage)
        yield from _unit(config, f"encoder.model.{at}", (*path, "unit"), inner)
        yield from _conv(config, f"encoder.model.{at + 2}", (*path, "down"), inner, 2 * inner, 2 * ratio)
        at, inner = at + 3, 2 * inner
    yield from _lstm(f"encoder.model.{at}", ("encoder", "lstm"), inner, config.lstm_layers)
    yield from _conv(config, f"encoder.model.{at + 2}", ("encoder", "last"), inner, width, config.kernel)


def _decoder(config: SeanetConfig, width: int) -> Iterator[Tensor]:
    """Numbers in the names: 0 first, 1 LSTM, then ELU, up, unit for each stage, ELU, last."""
    inner = config.filters * 2 ** len(config.ratios)
    yield from _conv(config, "decoder.model.0", ("decoder", "first"), width, inner, config.kernel)
    yield from _lstm("decoder.model.1", ("decoder", "lstm"), inner, config.lstm_layers)
    at = 2
    for stage, ratio in enumerate(config.ratios):
        path = ("decoder", "stages", stage)
        yield from _transposed_conv(config, f"decoder.model.{at + 1}", (*path, "up"), inner, inner // 2, 2 * ratio)
        at, inner = at + 3, inner // 2
        yield from _unit(config, f"decoder.model.{at - 1}", (*path, "unit"), inner)
    yield from _conv(config, f"decoder.model.{at + 1}", ("decoder", "last"), inner, config.channels, config.kernel)


def _quantizer(config: CodecConfig) -> Iterator[Tensor]:
    entries, width = config.quantizer.entries, config.quantizer.width
    shapes = {"embed": (entries, width), "embed_avg": (entries, width), "cluster_size": (entries,), "inited": (1,)}
    for level in range(config.quantizer.codebooks):
        for ours, theirs in CODEBOOK_TENSORS.items():
            shape = shapes[theirs]
            name = f"quantizer.vq.layers.{level}._codebook.{theirs}"
            yield Tensor(name, shape, ("quantizer", ours, level), tuple(range(len(shape))))


def published_tensors(config: CodecConfig) -> tuple[Tensor, ...]:
    """Every tensor of a published SEANet codec of this config.

    Raises ValueError where the config's layout is not SEANet: no weights are published for another.
    """
    if not isinstance(config.layout, SeanetConfig):
        raise ValueError(
            f"codec {config.name!r}: got layout {type(config.layout).__name__}, wanted SeanetConfig; "
            "only the SEANet layout has a PyTorch format"
        )
    width = config.quantizer.width
    return (*_encoder(config.layout, width), *_quantizer(config), *_decoder(config.layout, width))


def _check(where: str, found: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], remedy: str) -> None:
    """Raises one ValueError that names every missing, surplus and misshapen tensor."""
    problems = [f"{name}: missing, wanted float32 {wanted[name]}" for name in wanted if name not in found]
    problems += [f"{name}: surplus, got {found[name].shape}" for name in found if name not in wanted]
    problems += [
        f"{name}: wanted float32 {shape}, got {found[name].dtype} {found[name].shape}"
        for name, shape in wanted.items()
        if name in found and (found[name].shape != shape or found[name].dtype != np.float32)
    ]
    if problems:
        raise ValueError(f"{where}: {len(problems)} tensors do not fit; {remedy}\n  " + "\n  ".join(problems))


def from_torch(state_dict: Mapping[str, np.ndarray], config: CodecConfig) -> dict:
    """The parameters {"encoder", "decoder", "quantizer"} of a published state dict, as nested dicts of float32 arrays.

    "encoder" and "decoder" are what `nnx.replace_by_pure_dict` wants for a `Seanet`. "quantizer" holds "codebooks"
    [K, entries, width] and what else an export needs: "average", "cluster_size", "inited", each stacked over levels.
    Raises ValueError that names every missing, surplus or misshapen tensor.
    """
    tensors = published_tensors(config)
    _check(
        f"from_torch, codec {config.name!r}",
        state_dict,
        {tensor.name: tensor.shape for tensor in tensors},
        "give the weights of this config, or the config of these weights",
    )
    flat = {tensor.path: np.transpose(state_dict[tensor.name], tensor.axes).copy() for tensor in tensors}
    for ours in CODEBOOK_TENSORS:
        levels = range(config.quantizer.codebooks)
        flat["quantizer", ours] = np.stack([flat.pop(("quantizer", ours, level)) for level in levels])
    return traverse_util.unflatten_dict(flat)


def to_torch(params: Mapping, config: CodecConfig) -> dict[str, np.ndarray]:
    """The published state dict of parameters {"encoder", "decoder", "quantizer"}: the inverse of `from_torch`.

    Raises ValueError that names every missing, surplus or misshapen tensor in published names and shapes (a surplus
    one by its path in the parameters).
    """
    tensors = {tensor.path: tensor for tensor in published_tensors(config)}
    flat: dict[tuple, np.ndarray] = {}
    for path, value in traverse_util.flatten_dict(params).items():
        value = np.asarray(value)
        stacked = path[0] == "quantizer" and value.ndim > 0
        flat |= {(*path, level): part for level, part in enumerate(value)} if stacked else {path: value}
    found = {}
    for path, value in flat.items():
        tensor = tensors.get(path)
        if tensor is not None and value.ndim == len(tensor.axes):
            value = np.transpose(value, np.argsort(tensor.axes))
        found[tensor.name if tensor else ".".join(map(str, path))] = np.ascontiguousarray(value)
    _check(
        f"to_torch, codec {config.name!r}",
        found,
        {tensor.name: tensor.shape for tensor in tensors.values()},
        "give the parameters of a Seanet of this config and its codebooks",
    )
    return {tensor.name: found[tensor.name] for tensor in tensors.values()}
