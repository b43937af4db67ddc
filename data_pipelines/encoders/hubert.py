"""Features of speech: a layer of HuBERT (arXiv 2106.07447) in JAX, from a Hugging Face folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import Array, Bool, Float, Int

from data_pipelines.encoders.minilm import file_sha256
from data_pipelines.encoders.whisper import (
    FRAME_SAMPLES,
    NORM_EPSILON,
    attention,
    convolve,
    frames_of,
    gelu,
    layer_norm,
    linear,
)

LAYER = 9
"""The layer whose features the public k-means files are fitted to."""
WAVE_EPSILON = 1e-7
TORCH = "pip install torch==2.13.0"

LAYER_NAMES = {
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "out": "attention.out_proj",
    "attention_norm": "layer_norm",
    "up": "feed_forward.intermediate_dense",
    "down": "feed_forward.output_dense",
    "mlp_norm": "final_layer_norm",
}


@dataclass(frozen=True, kw_only=True)
class HubertConfig:
    """What the forward pass needs to know beside the weights.

    kernels, strides: of the convolutions over samples. normed_convolutions: a layer norm after each of them; otherwise
    a group norm over time after the first. position_groups: of the positional convolution. norm_first: layer norms
    stand before attention and MLP ("stable layer norm"). normed_wave: samples are brought to mean 0 and variance 1.
    """

    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    normed_convolutions: bool
    position_groups: int
    norm_first: bool
    normed_wave: bool
    heads: int
    epsilon: float

    def lengths(self, samples: Any) -> list[Any]:
        """Number of vectors after each convolution."""
        found = []
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = (samples - kernel) // stride + 1
            found.append(samples)
        return found

    @property
    def right_context(self) -> int:
        """Samples that a frame sees behind its own 320."""
        field = 1
        for kernel, stride in zip(self.kernels[::-1], self.strides[::-1], strict=True):
            field = (field - 1) * stride + kernel
        return field - FRAME_SAMPLES


class HubertEncoder:
    """Vectors [T, width] of speech, 50 a second, after `layer` of HuBERT's layers (9 by default).

    folder: config.json, and model.safetensors or pytorch_model.bin (which needs PyTorch), of a model that transformers
    calls HubertModel. Frame t sees the samples 320 t to 320 t + 399 in its convolutions, zeros behind the clip's end.
    The features are `hidden_states[layer]` of transformers.
    """

    def __init__(self, folder: str | Path, layer: int | None = None) -> None:
        folder = Path(folder)
        self.name, self.layer = folder.name, LAYER if layer is None else layer
        self.config = read_config(folder)
        path = weights_path(folder)
        self.sha256 = file_sha256(path)
        self._weights = jax.device_put(hubert_weights(read_weights(path), self.layer, str(path)))
        self.width = self._weights["projection"]["bias"].shape[0]

    def features(self, wavs: Float[np.ndarray, "B S"], samples: Int[np.ndarray, " B"]) -> Float[Array, "B S/320 D"]:
        """Features of clips of 16 kHz with so many `samples`, padded to S, a multiple of 320.

        A row has ceil(samples / 320) frames, the same whatever stands beside and behind it; later ones mean nothing.
        """
        return hubert_features(self._weights, jnp.asarray(wavs), jnp.asarray(samples), self.config)


@partial(jax.jit, static_argnames="config")
@jax.default_matmul_precision("highest")
def hubert_features(
    weights: Mapping[str, Any], wavs: Float[Array, "B S"], samples: Int[Array, " B"], config: HubertConfig
) -> Float[Array, "B S/320 D"]:
    """The forward pass with the weights of `hubert_weights`; a row sees its own samples and frames only."""
    is_sample = jnp.arange(wavs.shape[1]) < samples[:, None]
    if config.normed_wave:
        wavs = normalize(wavs, is_sample, WAVE_EPSILON)
    wavs = jnp.pad(jnp.where(is_sample, wavs, 0), ((0, 0), (0, config.right_context)))
    x = _convolutions(wavs, FRAME_SAMPLES * frames_of(samples) + config.right_context, weights["convolutions"], config)
    if weights["projection_norm"]:
        x = layer_norm(x, weights["projection_norm"], config.epsilon)
    is_frame = np.arange(x.shape[1]) < frames_of(samples)[:, None]
    x = jnp.where(is_frame[..., None], linear(x, weights["projection"]), 0)
    width = weights["positions"]["weight"].shape[-1]
    x = x + gelu(convolve(x, weights["positions"], 1, (width // 2, (width - 1) // 2), config.position_groups))
    if not config.norm_first:
        x = layer_norm(x, weights["position_norm"], config.epsilon)
    x, _ = jax.lax.scan(lambda x, layer: (_layer(x, layer, is_frame, config), None), x, weights["layers"])
    return x


def normalize(x: Float[Array, "B T *C"], inside: Bool[Array, "B T *C"], epsilon: float) -> Float[Array, "B T *C"]:
    """Each row, and channel of it, at mean 0 and variance 1 over the time that is `inside`."""
    mean = jnp.mean(x, axis=1, keepdims=True, where=inside)
    variance = jnp.var(x, axis=1, keepdims=True, where=inside)
    return (x - mean) * jax.lax.rsqrt(variance + epsilon)


def _convolutions(
    wavs: Float[Array, "B S"], samples: Int[Array, " B"], weights: list[Mapping[str, Any]], config: HubertConfig
) -> Float[Array, "B T C"]:
    """Samples to 50 vectors a second; the group norm's mean and variance are those of a row's own `samples`."""
    x = wavs[..., None]
    for layer, stride, length in zip(weights, config.strides, config.lengths(samples), strict=True):
        x = convolve(x, layer, stride, (0, 0))
        if config.normed_convolutions:
            x = layer_norm(x, layer["norm"])
        elif "norm" in layer:
            inside = (np.arange(x.shape[1]) < length[:, None])[..., None]
            x = normalize(x, inside, NORM_EPSILON) * layer["norm"]["weight"] + layer["norm"]["bias"]
        x = gelu(x)
    return x


def _layer(
    x: Float[Array, "B T D"], weights: Mapping[str, Any], is_frame: Array, config: HubertConfig
) -> Float[Array, "B T D"]:
    """Attention, then a GELU MLP, each with its layer norm before or after it."""

    def attend(x: Array) -> Array:
        query, key, value = (linear(x, weights[name]) for name in ("query", "key", "value"))
        return linear(attention(query, key, value, is_frame, config.heads), weights["out"])

    def think(x: Array) -> Array:
        return linear(gelu(linear(x, weights["up"])), weights["down"])

    for part, norm in ((attend, weights["attention_norm"]), (think, weights["mlp_norm"])):
        if config.norm_first:
            x = x + part(layer_norm(x, norm, config.epsilon))
        else:
            x = layer_norm(x + part(x), norm, config.epsilon)
    return x


def read_config(folder: Path) -> HubertConfig:
    """The config of a Hugging Face folder. Raises ValueError for a missing file or a model of another kind."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{folder}: got no config.json, wanted a Hugging Face folder of a HuBERT model (or one with "
            "model.bin, Whisper in CTranslate2's form)"
        )
    saved = json.loads(path.read_text())
    wanted = {"model_type": "hubert", "hidden_act": "gelu", "feat_extract_activation": "gelu"}
    refused = {name: saved.get(name, value) for name, value in wanted.items() if saved.get(name, value) != value}
    refused |= {name: saved[name] for name in ("conv_pos_batch_norm", "adapter_attn_dim") if saved.get(name)}
    if refused:
        raise ValueError(f"{path}: got {refused}, wanted {wanted}, without batch norm and adapters")
    normed = saved["feat_extract_norm"] == "layer"
    preprocessor = folder / "preprocessor_config.json"
    about_waves = json.loads(preprocessor.read_text()) if preprocessor.is_file() else {}
    config = HubertConfig(
        kernels=tuple(saved["conv_kernel"]),
        strides=tuple(saved["conv_stride"]),
        normed_convolutions=normed,
        position_groups=saved["num_conv_pos_embedding_groups"],
        norm_first=saved["do_stable_layer_norm"],
        normed_wave=about_waves.get("do_normalize", normed),
        heads=saved["num_attention_heads"],
        epsilon=saved["layer_norm_eps"],
    )
    if np.prod(config.strides) != FRAME_SAMPLES or config.right_context < 0:
        raise ValueError(f"{path}: got strides {config.strides}, wanted strides of {FRAME_SAMPLES} samples in all")
    return config


def hubert_weights(state: Mapping[str, np.ndarray], layer: int, where: str) -> dict[str, Any]:
    """The arrays of `hubert_features`: those of the first `layer` layers stacked.

    Raises ValueError that names `where` for fewer layers or a missing array.
    """
    state = {name.removeprefix("hubert."): np.asarray(array, np.float32) for name, array in state.items()}
    count = sum(name.startswith("encoder.layers.") and name.endswith("final_layer_norm.bias") for name in state)
    if not 0 < layer <= count:
        raise ValueError(f"{where}: got layer {layer}, wanted 1 to {count}, the layers of this model")

    def part_if_there(name: str) -> dict[str, np.ndarray]:
        return {kind: state[f"{name}.{kind}"] for kind in ("weight", "bias") if f"{name}.{kind}" in state}

    def part(name: str) -> dict[str, np.ndarray]:
        if len(found := part_if_there(name)) < 2:
            raise ValueError(f"{where}: got no {name}.weight and .bias, wanted those of a HuBERT model")
        return found

    convolutions = []
    while found := part_if_there(f"feature_extractor.conv_layers.{len(convolutions)}.conv"):
        norm = part_if_there(f"feature_extractor.conv_layers.{len(convolutions)}.layer_norm")
        convolutions.append(found | ({"norm": norm} if norm else {}))
    layers = [
        {ours: part(f"encoder.layers.{number}.{name}") for ours, name in LAYER_NAMES.items()} for number in range(layer)
    ]
    return {
        "convolutions": convolutions,
        "projection": part("feature_projection.projection"),
        "projection_norm": part_if_there("feature_projection.layer_norm"),
        "positions": _position_weights(state),
        "position_norm": part("encoder.layer_norm"),
        "layers": jax.tree.map(lambda *arrays: np.stack(arrays), *layers),
    }


def _position_weights(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The positional convolution with its weight norm applied: length times direction for each place of the kernel."""
    place = "encoder.pos_conv_embed.conv"
    old, new = ("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")
    names = old if f"{place}.{old[0]}" in state else new
    length, direction = (state[f"{place}.{name}"] for name in names)
    norm = np.sqrt(np.square(direction).sum(axis=(0, 1), keepdims=True))
    return {"weight": length * direction / norm, "bias": state[f"{place}.bias"]}


def weights_path(folder: Path) -> Path:
    """The file of weights in a Hugging Face folder. Raises ValueError where there is none."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder}: got neither model.safetensors nor pytorch_model.bin, wanted the model's weights")


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file or, where PyTorch is there, of a pytorch_model.bin."""
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path}: got no PyTorch, wanted it to read this file; run `{TORCH}`, or give a folder with "
            "model.safetensors (transformers' `save_pretrained` writes it)"
        ) from error
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.float().numpy() for name, tensor in state.items()}
