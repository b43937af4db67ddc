"""Frames of two signals whose timing differs, brought together by dynamic time warping."""

from typing import Literal

import librosa
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist


def warping_path(
    reference: Float[np.ndarray, "T D"], estimate: Float[np.ndarray, "U D"], distance: Literal["cityblock", "euclidean"]
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """Frames of the reference, the frames of the estimate that sound like them, and the distance of each pair.

    Both begin with their first and end with their last frames; a step goes one frame on in one of them or in both, and
    the sum of the distances is the least there is. Memory grows with T x U.
    """
    costs = cdist(reference, estimate, distance)
    _, path = librosa.sequence.dtw(C=costs)
    frames, others = path[::-1].T
    return frames, others, costs[frames, others]
