"""Text to continuous vectors: the encoder of T5 v1.1 (arXiv 1910.10683, 2002.05202), computed by numpy."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import ml_dtypes  # noqa: F401  makes bfloat16 known to numpy, for checkpoints in it
import numpy as np
import safetensors.numpy
from jaxtyping import Float, Float16, Int
from threadpoolctl import ThreadpoolController

from data_pipelines.encoders.minilm import LONGEST, file_sha256


class T5Vectors:
    """Vectors [n, width] of the tokens of a text, </s> included, at most 100 (arXiv 2310.00704 keeps 100).

    folder: a Hugging Face folder of a T5 v1.1 or Flan-T5 model: model.safetensors, config.json, and tokenizer.json
    (read by the package tokenizers) or spiece.model (by sentencepiece).
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if missing := [name for name in ("model.safetensors", "config.json") if not (folder / name).is_file()]:
            raise ValueError(
                f"{folder}: got no {', '.join(missing)}, wanted a Hugging Face folder of a T5 model "
                "(transformers' `save_pretrained` writes one)"
            )
        config = json.loads((folder / "config.json").read_text())
        if config.get("feed_forward_proj") != "gated-gelu":
            raise ValueError(
                f"{folder}/config.json: got feed_forward_proj {config.get('feed_forward_proj')!r}, wanted "
                "'gated-gelu', that of T5 v1.1 and Flan-T5; give such a model"
            )
        self.name, self.width, self.end = folder.name, config["d_model"], config.get("eos_token_id", 1)
        self.layers, self.heads = config["num_layers"], config["num_heads"]
        self.buckets = config["relative_attention_num_buckets"]
        self.farthest = config.get("relative_attention_max_distance", 128)
        self.epsilon = config["layer_norm_epsilon"]
        self.sha256 = file_sha256(folder / "model.safetensors")
        self.weights = _encoder_weights(folder / "model.safetensors")
        self.threads = ThreadpoolController()  # one thread, for the reason that MiniLmVectors has
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
        table = self.weights["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        bias = table[buckets].transpose(2, 0, 1)
        x = self.weights["embedding"][ids]
        for layer in range(self.layers):
            name = f"encoder.block.{layer}.layer"
            x = x + self._attention(self._norm(x, f"{name}.0.layer_norm"), bias, f"{name}.0.SelfAttention")
            x = x + self._mlp(self._norm(x, f"{name}.1.layer_norm"), f"{name}.1.DenseReluDense")
        return self._norm(x, "encoder.final_layer_norm")

    def _attention(
        self, x: Float[np.ndarray, "n W"], bias: Float[np.ndarray, "heads n n"], name: str
    ) -> Float[np.ndarray, "n W"]:
        """Attention over all tokens; the scores are not divided by the square root of the heads' width."""
        query, key, value = (
            self._linear(x, f"{name}.{part}").reshape(len(x), self.heads, -1).swapaxes(0, 1) for part in "qkv"
        )
        scores = query @ key.swapaxes(1, 2) + bias
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        return self._linear(mixed.swapaxes(0, 1).reshape(len(x), -1), f"{name}.o")

    def _mlp(self, x: Float[np.ndarray, "n W"], name: str) -> Float[np.ndarray, "n W"]:
        """An MLP gated by GELU, in the tanh form that the model was trained with."""
        gate = self._linear(x, f"{name}.wi_0")
        gate = gate * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
        return self._linear(gate * self._linear(x, f"{name}.wi_1"), f"{name}.wo")

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        """Root mean square norm: no mean is taken off, nothing is added."""
        return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + self.epsilon) * self.weights[f"{name}.weight"]


def distance_buckets(tokens: int, buckets: int, farthest: int) -> Int[np.ndarray, "n n"]:
    """The bucket of the distance from each token (row) to each other one (column).

    The first half of the buckets is for tokens before, the second for those behind. In each, the nearer half of the
    distances have a bucket for each distance, the others share on a logarithmic scale; all from `farthest` on are one.
    """
    distance = np.arange(tokens)[None, :] - np.arange(tokens)[:, None]
    half, exact = buckets // 2, buckets // 4
    far = np.log(np.maximum(np.abs(distance), 1).astype(np.float32) / exact) / math.log(farthest / exact)
    far = np.minimum(exact + (far * (half - exact)).astype(int), half - 1)
    return np.where(np.abs(distance) < exact, np.abs(distance), far) + half * (distance > 0)


def _encoder_weights(path: Path) -> dict[str, np.ndarray]:
    """Float32 arrays of the encoder by their names, and `embedding`. Raises ValueError for a file without them."""
    arrays = safetensors.numpy.load_file(path)
    embedding = next((name for name in ("shared.weight", "encoder.embed_tokens.weight") if name in arrays), None)
    if embedding is None:
        raise ValueError(f"{path}: got neither shared.weight nor encoder.embed_tokens.weight, wanted a T5 encoder")
    found = {name: array.astype(np.float32) for name, array in arrays.items() if name.startswith("encoder.")}
    return found | {"embedding": arrays[embedding].astype(np.float32)}


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
