"""Text to continuous vectors: the encoder of T5 v1.1 (arXiv 1910.10683, 2002.05202)."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from data_pipelines.encoders.layers import attention, linear, rms_norm
from data_pipelines.encoders.text import CONFIG, TOKENIZER, WEIGHTS, TextEncoder, load_tokenizer
from data_pipelines.encoders.weights import layers_of, part
from uniaudio_jax.packages import load_package
from uniaudio_jax.weight_files import read_weights

SENTENCEPIECE = "spiece.model"
CONFIG_KEYS = ("d_model", "num_heads", "layer_norm_epsilon", "relative_attention_num_buckets")
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


class T5Vectors(TextEncoder):
    """Vectors [n, width] of the tokens of a text, </s> included; longer texts are cut before </s>.

    folder: a Hugging Face folder of a T5 v1.1 or Flan-T5 model: model.safetensors, config.json, and tokenizer.json
    (read by the package tokenizers) or spiece.model (by sentencepiece).
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        wanted = "a Hugging Face folder of a T5 model (transformers' `save_pretrained` writes one)"
        super().__init__(folder, (WEIGHTS, CONFIG), wanted, CONFIG_KEYS)
        if (mlp := self.config.get("feed_forward_proj")) != "gated-gelu":
            raise ValueError(
                f"{folder / CONFIG}: got feed_forward_proj {mlp!r}, wanted 'gated-gelu', that of T5 v1.1 and Flan-T5; "
                "give such a model"
            )
        self.name, self.width = folder.name, self.config["d_model"]
        where = str(folder / WEIGHTS)
        arrays = read_weights(folder / WEIGHTS, ("encoder.final_layer_norm.weight",)).tensors
        words = "shared" if "shared.weight" in arrays else "encoder.embed_tokens"
        distances = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
        self.words = part(arrays, words, where)["weight"]
        self.distances = part(arrays, distances, where)["weight"]
        self.norm = part(arrays, "encoder.final_layer_norm", where)
        self.layers = layers_of(arrays, LAYER_NAMES, where)
        self.after = (self.config.get("eos_token_id", 1),)
        self.tokenizer = _tokenizer(folder)

    def tokens(self, text: str) -> list[int]:
        return self.tokenizer(text)

    def forward(self, ids: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n W"]:
        """Vectors of token ids: pre-norm layers with one bias of relative positions, then a last norm."""
        heads, epsilon = self.config["num_heads"], self.config["layer_norm_epsilon"]
        farthest = self.config.get("relative_attention_max_distance", 128)
        buckets = distance_buckets(len(ids), self.config["relative_attention_num_buckets"], farthest)
        bias = self.distances[buckets].transpose(2, 0, 1)
        x = self.words[ids]
        for layer in self.layers:
            # T5 does not divide the scores by the square root of the heads' width.
            x = x + attention(rms_norm(x, layer["attention_norm"], epsilon), layer, heads, scale=1.0, bias=bias)
            normed = rms_norm(x, layer["mlp_norm"], epsilon)
            x = x + linear(tanh_gelu(linear(normed, layer["gate"])) * linear(normed, layer["up"]), layer["down"])
        return rms_norm(x, self.norm, epsilon)


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


def _tokenizer(folder: Path) -> Any:
    """The function from a text to token ids without </s>, by tokenizer.json or else spiece.model."""
    if (folder / TOKENIZER).is_file():
        tokenizer = load_tokenizer(folder / TOKENIZER)
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    if not (folder / SENTENCEPIECE).is_file():
        raise ValueError(f"{folder}: got neither {TOKENIZER} nor {SENTENCEPIECE}, wanted the tokenizer of the model")
    package = load_package("sentencepiece", str(folder / SENTENCEPIECE), "pip install sentencepiece")
    return package.SentencePieceProcessor(model_file=str(folder / SENTENCEPIECE)).encode
