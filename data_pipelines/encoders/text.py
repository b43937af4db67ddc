"""What the text encoders share: reading a Hugging Face folder, and texts to vectors by way of token ids."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float16, Int
from threadpoolctl import ThreadpoolController

from data_pipelines.notes import Notes, note
from uniaudio_jax.files import file_sha256, read_json
from uniaudio_jax.packages import load_package

LONGEST = 100
"""The most vectors of a text (arXiv 2310.00704)."""
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
INSTALL = "pip install --no-deps tokenizers"


class TextEncoder(ABC):
    """Vectors [n, width] of the tokens of a text, at most `LONGEST`, computed by numpy.

    name, width: of the model. before, after: the tokens that the model wants around those of a text.
    """

    name: str
    width: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...]

    def __init__(self, folder: Path, files: tuple[str, ...], wanted: str, keys: tuple[str, ...]) -> None:
        """Reads the config.

        Raises ValueError that says what is `wanted` where a folder lacks some of `files`, or the config some `keys`.
        """
        if missing := [name for name in files if not (folder / name).is_file()]:
            raise ValueError(f"{folder}: got no {', '.join(missing)}, wanted {wanted}")
        self.config = read_json(folder / CONFIG, wanted, keys)
        self.sha256 = file_sha256(folder / WEIGHTS)
        # Products of one text are small: BLAS threads wait for each other, on a busy machine for over 10 times as long.
        self.threads = ThreadpoolController()

    def encode(self, text: str, notes: Notes | None = None) -> Float16[np.ndarray, "n W"]:
        """Vectors of the tokens of `text`, of the first ones if it is long, which `notes` counts.

        Raises ValueError for a text without any token.
        """
        ids, room = self.tokens(text), LONGEST - len(self.before) - len(self.after)
        if not ids:
            raise ValueError(f"{type(self).__name__}: got text {text!r} without any token, wanted some words")
        note(notes, f"texts cut to {LONGEST} tokens", int(len(ids) > room))
        with self.threads.limit(limits=1, user_api="blas"):
            return self.forward(np.array([*self.before, *ids[:room], *self.after])).astype(np.float16)

    @abstractmethod
    def tokens(self, text: str) -> list[int]:
        """All token ids of a text, without those that the model wants around them."""

    @abstractmethod
    def forward(self, ids: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n W"]:
        """Vectors of token ids."""


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a tokenizer.json, without padding or limit. Raises ValueError where it is none."""
    package = load_package("tokenizers", str(path), INSTALL)
    try:
        tokenizer = package.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises no narrower class
        raise ValueError(f"{path}: got no tokenizer ({error}), wanted a {TOKENIZER}; copy it again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
