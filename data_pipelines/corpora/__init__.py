"""Corpora: each file yields `Clip`s, whatever the audio came from."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "heldout")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One example of a corpus; audio is float32, mono, 16 kHz.

    audio: what a model shall make. text: its words, or a caption of it. speaker: a name that is shared by the clips of
    one voice. noisy_audio: the same signal before enhancement. converted: what was done to the files to read them.
    """

    id: str
    split: Split
    audio: Float[np.ndarray, "S"]
    text: str | None = None
    speaker: str | None = None
    noisy_audio: Float[np.ndarray, "S"] | None = None
    converted: tuple[str, ...] = ()


def split_number(key: str) -> int:
    """A fixed number below 2^64 for whatever `key` names, the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def split_of(key: str, heldout_every: int) -> Split:
    """The split of whatever `key` names: about one key in `heldout_every` is held out."""
    return "heldout" if split_number(key) % heldout_every == 0 else "train"
