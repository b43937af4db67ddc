"""Delay: level q lies q positions after its frame, so that it knows the lower levels (MusicGen's, 2306.05284).

The further levels of the last frames lie beside the marks that follow them, and after these where there are too few.
"""

import numpy as np
from jaxtyping import Bool, Int


def delay(codes: Bool[np.ndarray, " T"], levels: int) -> Int[np.ndarray, "P Q"]:
    """The cells of an example whose frames of codes are `codes`."""
    frames = np.arange(len(codes) + levels - 1)[:, None] - np.arange(levels)
    inside = (frames >= 0) & (frames < len(codes))
    held = inside & (codes[np.where(inside, frames, 0)] | (np.arange(levels) == 0))
    cells = np.where(held, frames, -1)
    return cells[: np.flatnonzero(held.any(axis=1))[-1] + 1]
