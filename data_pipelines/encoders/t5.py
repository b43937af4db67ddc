"""Text to continuous vectors: the encoder of T5 v1.1 (arXiv 1910.10683, 2002.05202), computed by numpy."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float16, Int
from threadpoolctl import ThreadpoolController

from data_pipelines.encoders.layers import Weights, attention, linear, rms_norm
from data_pipelines.encoders.minilm import LONGEST
from data_pipelines.encoders.weights import layers_of, part, read_weights, require_files
from uniaudio_jax.files import file_sha256

LAYER_NAMES = {
    "attention_norm": "encoder.block.{}.layer.0.layer_norm",
    "query": "encoder.block.{}.layer.0.SelfAttention.q",
    "key": "encoder.block.{}.layer.0.SelfAttention.k",
    "value": "encoder.block.{}.layer.0.SelfAttention.v",
    "out": "encoder.block.{}.layer.0.SelfAttention.o",
    "mlp_norm": "encoder.block.{}.layer.1.layer_norm",
    "gate": "encoder.block.{}.layer.1.DenseReluDense.wi_0",
    "up": "encoder.block.{}.layer.1.DenseReluDense.wi_1",
    "down": "encoder.block.{}.layer.1.DenseReluDense.wo",
}


class T5Vectors:
    """Vectors [n, width] of the tokens of a text, </s> included, at most 100.

    folder: a Hugging Face folder of a T5 v1.1 or Flan-T5 model: model.safetensors, config.json, and tokenizer.json
    (read by the package tokenizers) or spiece.model (by sentencepiece).
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        files = ("model.safetensors", "config.json")
        require_files(folder, files, "a Hugging Face folder of a T5 model (transformers' `save_pretrained` writes one)")
        config = json.loads((folder / "config.json").read_text())
        if config.get("feed_forward_proj") != "gated-gelu":
            raise ValueError(
                f"{folder}/config.json: got feed_forward_proj {config.get('feed_forward_proj')!r}, wanted "
                "'gated-gelu', that of T5 v1.1 and Flan-T5; give such a model"
            )
        self.name, self.width, self.end = folder.name, config["d_model"], config.get("eos_token_id", 1)
        self.heads, self.epsilon = config["num_heads"], config["layer_norm_epsilon"]
        self.buckets = config["relative_attention_num_buckets"]
        self.farthest = config.get("relative_attention_max_distance", 128)
        path = folder / "model.safetensors"
        self.sha256 = file_sha256(path)
        self.weights = t5_weights(read_weights(path), str(path))
        self.threads = ThreadpoolController()  # for one thread, as in MiniLmVectors
        self.tokens = _tokenizer(folder)

    def encode(self, text: str) -> Float16[np.ndarray, "n W"]:
        """Vectors of the tokens of `text`; longer texts are cut to 99 tokens before </s>.

        Raises ValueError for a text without any token.
        """
        ids = self.tokens(text)
        if not ids:
            raise ValueError(f"T5Vectors.encode: got text {text!r} without any token, wanted some words")
        with self.threads.limit(limits=1, user_api="blas"):
            return self.forward(np.array([*ids[: LONGEST - 1], self.end])).astype(np.float16)

    def forward(self, ids: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n W"]:
        """Vectors of token ids: pre-norm layers with one bias of relative positions, then a last norm."""
        buckets = distance_buckets(len(ids), self.buckets, self.farthest)
        bias = self.weights["distances"]["weight"][buckets].transpose(2, 0, 1)
        x = self.weights["words"]["weight"][ids]
        for layer in self.weights["layers"]:
            normed = rms_norm(x, layer["attention_norm"], self.epsilon)
            x = x + attention(normed, layer, self.heads, scale=1.0, bias=bias)
            normed = rms_norm(x, layer["mlp_norm"], self.epsilon)
            x = x + linear(tanh_gelu(linear(normed, layer["gate"])) * linear(normed, layer["up"]), layer["down"])
        return rms_norm(x, self.weights["norm"], self.epsilon)


def tanh_gelu(x: np.ndarray) -> np.ndarray:
    """GELU in the tanh form that the model was trained with."""
    return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def distance_buckets(tokens: int, buckets: int, farthest: int) -> Int[np.ndarray, "n n"]:
    """The bucket of the distance from each token (row) to each other one (column).

    The first half of the buckets is for earlier tokens, the second for later ones. In each, half of the buckets hold
    one distance, and the others share the longer distances on a logarithmic scale; the last one holds all distances
    from `farthest` on.
    """
    distance = np.arange(tokens)[None, :] - np.arange(tokens)[:, None]
    half, exact = buckets // 2, buckets // 4
    far = np.log(np.maximum(np.abs(distance), 1).astype(np.float32) / exact) / math.log(farthest / exact)
    far = np.minimum(exact + (far * (half - exact)).astype(int), half - 1)
    return np.where(np.abs(distance) < exact, np.abs(distance), far) + half * (distance > 0)


def t5_weights(arrays: Mapping[str, np.ndarray], where: str) -> Weights:
    """The arrays of T5's encoder under our names. Raises ValueError that names `where` for a missing one."""
    words = "shared" if "shared.weight" in arrays else "encoder.embed_tokens"
    distances = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    return {
        "words": part(arrays, words, where),
        "distances": part(arrays, distances, where),
        "norm": part(arrays, "encoder.final_layer_norm", where),
        "layers": layers_of(arrays, LAYER_NAMES, where),
    }


def _tokenizer(folder: Path) -> Callable[[str], list[int]]:
    """Text to token ids without </s>, by tokenizer.json or else spiece.model."""
    try:
        if (folder / "tokenizer.json").is_file():
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            tokenizer.no_padding()
            tokenizer.no_truncation()
            return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        if (folder / "spiece.model").is_file():
            from sentencepiece import SentencePieceProcessor

            return SentencePieceProcessor(model_file=str(folder / "spiece.model")).encode
    except ImportError as error:
        raise ValueError(
            f"T5Vectors: got no package {error.name}, wanted it to read the tokenizer of {folder}; "
            f"run `pip install --no-deps {error.name}`"
        ) from error
    raise ValueError(f"{folder}: got neither tokenizer.json nor spiece.model, wanted the tokenizer of the model")
