"""The names and shapes of SEANet's tensors in the PyPI package `encodec`, and where each lies in our parameters."""

from collections.abc import Iterator

from uniaudio_jax.codec.layouts.seanet import SeanetConfig
from uniaudio_jax.codec.layouts.tensors import Tensor


def seanet_tensors(config: SeanetConfig, width: int) -> tuple[Tensor, ...]:
    """Every tensor of encoder and decoder; `width` is that of the vectors between them."""
    return (*_encoder(config, width), *_decoder(config, width))


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
    """The names count the activations too: 0 first, then unit, ELU, down for each stage, LSTM, ELU, last."""
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
    """The names count the activations too: 0 first, 1 LSTM, then ELU, up, unit for each stage, ELU, last."""
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
