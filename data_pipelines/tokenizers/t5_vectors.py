"""Text to continuous vectors: the encoder of T5 v1.1 (arXiv 1910.10683, 2002.05202), computed by numpy."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy
from jaxtyping import Float, Float16, Int
from threadpoolctl import ThreadpoolController

from data_pipelines.tokenizers.text_vectors import LONGEST, file_sha256

END = 1
"""The token </s> behind every text."""
LINEAR = ("SelfAttention.q", "SelfAttention.k", "SelfAttention.v", "SelfAttention.o")


class T5Vectors:
    """Vectors [n, width] of the tokens of a text, </s> included, at most 100 (arXiv 2310.00704 keeps 100).

    folder: a Hugging Face folder of a T5 v1.1 or Flan-T5 model: model.safetensors, config.json, and tokenizer.json or
    spiece.model.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if missing := [name for name in ("model.safetensors", "config.json") if not (folder / name).is_file()]:
            raise ValueError(f"{folder}: got no {', '.join(missing)}, wanted a Hugging Face folder of a T5 model "
                             "(transformers' `save_pretrained` writes one)")  # fmt: skip
        config = json.loads((folder / "config.json").read_text())
        if config.get("feed_forward_proj") != "gated-gelu":
            raise ValueError(f"{folder}/config.json: got feed_forward_proj {config.get('feed_forward_proj')!r}, wanted "
                             "'gated-gelu', that of T5 v1.1 and Flan-T5")  # fmt: skip
        self.name, self.width = folder.name, config["d_model"]
        self.layers, self.heads = config["num_layers"], config["num_heads"]
        self.buckets, self.longest_distance = (
            config["relative_attention_num_buckets"],
            config["relative_attention_max_distance"],
        )
        self.epsilon = config["layer_norm_epsilon"]
        self.sha256 = file_sha256(folder / "model.safetensors")
        arrays = safetensors.numpy.load_file(folder / "model.safetensors")
