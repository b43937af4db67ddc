"""Coarse first: level 1 of all frames, then the further levels of each frame at one position.

This is VALL-E's order (arXiv 2301.02111) in one causal model, as in MusicGen (2306.05284, "valle" in its code);
VALL-E itself predicts the further levels by a second model that is not causal. Each stretch of frames of codes is laid
out so, in conditions and targets. The mark that ends a stretch stands right after its last code of level 1, because
predicting the mark is what ends level 1; the further levels follow it.
"""

import numpy as np
from jaxtyping import Bool, Int


def coarse_first(codes: Bool[np.ndarray, " T"], levels: int) -> Int[np.ndarray, "P Q"]:
    """The cells of an example whose frames of codes are `codes`."""
    coarse, fine = np.arange(len(codes)), np.flatnonzero(codes & (levels > 1))
    ends = np.append(np.flatnonzero(~codes), len(codes))
    after = ends[np.searchsorted(ends, fine)]  # the frame after each one's stretch
    frames, is_fine = np.concatenate([coarse, fine]), np.repeat([False, True], [len(coarse), len(fine)])
    order = np.lexsort((frames, is_fine, np.concatenate([coarse, after])))
    held = is_fine[order, None] == (np.arange(levels) > 0)
    return np.where(held, frames[order, None], -1)
