"""Parallel: all codes of a frame at one position, each without knowing the others (MusicGen's, 2306.05284)."""

import numpy as np
from jaxtyping import Bool, Int


def parallel(codes: Bool[np.ndarray, " T"], levels: int) -> Int[np.ndarray, "P Q"]:
    """The cells of an example whose frames of codes are `codes`."""
    held = codes[:, None] | (np.arange(levels) == 0)
    return np.where(held, np.arange(len(codes))[:, None], -1)
