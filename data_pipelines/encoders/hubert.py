"""Features of speech: a layer of HuBERT (arXiv 2106.07447) in JAX, from a Hugging Face folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from data_pipelines.encoders.layers import convolve, encoder_stack, gelu, layer_norm, linear
from data_pipelines.encoders.weights import layers_of, part, stack
from data_pipelines.encoders.whisper import FRAME_SAMPLES, NORM_EPSILON, frames_of
from uniaudio_jax.files import file_sha256, read_json
from uniaudio_jax.weight_files import read_weights

LAYER = 9
"""The layer whose features the public k-means files are fitted to."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
ALWAYS_THERE = ("encoder.layer_norm.weight",)
"""A name by which the weights are found below the prefix that a larger model gives them."""
WAVE_EPSILON = 1e-7
CONFIG_KEYS = (
    "feat_extract_norm",
    "conv_kernel",
    "conv_stride",
    "num_conv_pos_embedding_groups",
    "do_stable_layer_norm",
    "num_attention_heads",
    "layer_norm_eps",
)

LAYER_NAMES = {
    "query": "encoder.layers.{}.attention.q_proj",
    "key": "encoder.layers.{}.attention.k_proj",
    "value": "encoder.layers.{}.attention.v_proj",
    "out": "encoder.layers.{}.attention.out_proj",
    "attention_norm": "encoder.layers.{}.layer_norm",
    "up": "encoder.layers.{}.feed_forward.intermediate_dense",
    "down": "encoder.layers.{}.feed_forward.output_dense",
    "mlp_norm": "encoder.layers.{}.final_layer_norm",
}


@dataclass(frozen=True, kw_only=True)
class HubertConfig:
    """What the forward pass takes from config.json."""

    kernels: tuple[int, ...]
    """Kernel sizes of the convolutions over samples."""
    strides: tuple[int, ...]
    normed_convolutions: bool
    """A layer norm follows each convolution; otherwise a group norm over time follows the first."""
    position_groups: int
    """Groups of the positional convolution."""
    norm_first: bool
    """Layer norms stand before attention and MLP ("stable layer norm")."""
    normed_wave: bool
    """Samples are brought to mean 0 and variance 1."""
    heads: int
    epsilon: float

    def lengths(self, samples: Any) -> list[Any]:
        """Number of vectors after each convolution."""
        lengths = []
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = (samples - kernel) // stride + 1
            lengths.append(samples)
        return lengths

    @property
    def right_context(self) -> int:
        """Samples behind its own that a frame sees."""
        field = 1
        for kernel, stride in zip(self.kernels[::-1], self.strides[::-1], strict=True):
            field = (field - 1) * stride + kernel
        return field - FRAME_SAMPLES


class HubertEncoder:
    """Vectors [T, width] of speech, 50 a second, after `layer` of HuBERT's layers (9 by default).

    folder: config.json, and model.safetensors or pytorch_model.bin, of a model that transformers
    calls HubertModel. The convolutions of a frame see its own samples and `right_context` more, zeros behind the clip's
    end. The features are `hidden_states[layer]` of transformers.
    """

    def __init__(self, folder: str | Path, layer: int | None = None) -> None:
        folder = Path(folder)
        self.name, self.layer = folder.name, LAYER if layer is None else layer
        self.config = read_config(folder)
        path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
        if path is None:
            raise ValueError(f"{folder}: got neither {' nor '.join(WEIGHTS)}, wanted the model's weights")
        self.sha256 = file_sha256(path)
        tensors = read_weights(path, ALWAYS_THERE).tensors
        self._weights = jax.device_put(hubert_weights(tensors, self.layer, str(path)))
        self.width = self._weights["projection"]["bias"].shape[0]

    def features(self, wavs: Float[np.ndarray, "B S"], samples: Int[np.ndarray, " B"]) -> Float[Array, "B T D"]:
        """Features of clips of 16 kHz with so many `samples`, padded to S, a multiple of `FRAME_SAMPLES`.

        The first `frames_of(samples)` frames of a row do not depend on the padding and the other rows; later ones mean
        nothing.
        """
        return hubert_features(self._weights, jnp.asarray(wavs), jnp.asarray(samples), self.config)


@partial(jax.jit, static_argnames="config")
@jax.default_matmul_precision("highest")
def hubert_features(
    weights: Mapping[str, Any], wavs: Float[Array, "B S"], samples: Int[Array, " B"], config: HubertConfig
) -> Float[Array, "B T D"]:
    """The forward pass with the weights of `hubert_weights`; a row sees only its own samples and frames."""
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
    norm_first, epsilon = config.norm_first, config.epsilon
    return encoder_stack(x, weights["layers"], frames_of(samples), config.heads, norm_first=norm_first, epsilon=epsilon)


def normalize(x: Float[Array, "B T *C"], inside: Bool[Array, "B T *C"], epsilon: float) -> Float[Array, "B T *C"]:
    """Each channel of each row at mean 0 and variance 1 over the time that is `inside`."""
    mean = jnp.mean(x, axis=1, keepdims=True, where=inside)
    variance = jnp.var(x, axis=1, keepdims=True, where=inside)
    return (x - mean) * jax.lax.rsqrt(variance + epsilon)


def _convolutions(
    wavs: Float[Array, "B S"], samples: Int[Array, " B"], weights: list[Mapping[str, Any]], config: HubertConfig
) -> Float[Array, "B T C"]:
    """The vectors of frames; the group norm's mean and variance are those of a row's own `samples`."""
    x = wavs[..., None]
    for layer, stride, length in zip(weights, config.strides, config.lengths(samples), strict=True):
        x = convolve(x, layer, stride, (0, 0))
        if config.normed_convolutions:
            x = layer_norm(x, layer["norm"], NORM_EPSILON)
        elif layer["norm"]:
            inside = (np.arange(x.shape[1]) < length[:, None])[..., None]
            x = normalize(x, inside, NORM_EPSILON) * layer["norm"]["weight"] + layer["norm"]["bias"]
        x = gelu(x)
    return x


def read_config(folder: Path) -> HubertConfig:
    """The config of a Hugging Face folder. Raises ValueError for a missing file or a model of another kind."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{folder}: got no config.json, wanted a Hugging Face folder of a HuBERT model (or one with "
            "model.bin, Whisper in CTranslate2's form)"
        )
    saved = read_json(path, "the config.json of a HuBERT model; copy its folder again", CONFIG_KEYS)
    wanted = {"model_type": "hubert", "hidden_act": "gelu", "feat_extract_activation": "gelu"}
    refused = {name: saved.get(name, value) for name, value in wanted.items() if saved.get(name, value) != value}
    refused |= {name: saved[name] for name in ("conv_pos_batch_norm", "adapter_attn_dim") if saved.get(name)}
    if refused:
        raise ValueError(f"{path}: got {refused}, wanted {wanted}, without batch norm and adapters")
    normed = saved["feat_extract_norm"] == "layer"
    preprocessor = folder / "preprocessor_config.json"
    about_waves = read_json(preprocessor, "the model's own; copy its folder again") if preprocessor.is_file() else {}
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

    def optional(name: str) -> dict[str, np.ndarray]:
        return part(state, name, where) if f"{name}.weight" in state else {}

    convolutions = []
    while convolution := optional(f"feature_extractor.conv_layers.{len(convolutions)}.conv"):
        norm = optional(f"feature_extractor.conv_layers.{len(convolutions)}.layer_norm")
        convolutions.append(convolution | {"norm": norm})
    return {
        "convolutions": convolutions,
        "projection": part(state, "feature_projection.projection", where),
        "projection_norm": optional("feature_projection.layer_norm"),
        "positions": _position_weights(state),
        "position_norm": part(state, "encoder.layer_norm", where),
        "layers": stack(layers_of(state, LAYER_NAMES, where, layer)),
    }


def _position_weights(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The positional convolution with its weight norm applied: length times direction for each tap of the kernel."""
    prefix = "encoder.pos_conv_embed.conv"
    old, new = ("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")
    names = old if f"{prefix}.{old[0]}" in state else new
    length, direction = (state[f"{prefix}.{name}"].astype(np.float32) for name in names)
    norm = np.sqrt(np.square(direction).sum(axis=(0, 1), keepdims=True))
    return {"weight": length * direction / norm, "bias": state[f"{prefix}.bias"].astype(np.float32)}
