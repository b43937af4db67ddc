"""Flattening: a position for each code, level after level within a frame, frame after frame (AudioLM, 2209.03143)."""

import numpy as np
from jaxtyping import Bool, Int


def flatten(codes: Bool[np.ndarray, " T"], levels: int) -> Int[np.ndarray, "P Q"]:
    """The cells of an example whose frames of codes are `codes`."""
    sizes = np.where(codes, levels, 1)
    frames = np.repeat(np.arange(len(codes)), sizes)
    positions = np.arange(len(frames))
    cells = np.full((len(frames), levels), -1)
    cells[positions, positions - (np.cumsum(sizes) - sizes)[frames]] = frames
    return cells
