"""How loud a signal is, and is made."""

import numpy as np
from jaxtyping import Float

PEAK = 0.9
"""No sample of a signal that is written exceeds this."""


def rms(samples: Float[np.ndarray, " S"]) -> float:
    """The root mean square of `samples`."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def loudness(samples: Float[np.ndarray, " S"], level: float) -> Float[np.ndarray, " S"]:
    """`samples` as float32 with the root mean square `level`, or a lower one where a peak would exceed `PEAK`."""
    gain = min(level / max(rms(samples), 1e-9), PEAK / max(np.abs(samples).max(), 1e-9))
    return (samples * np.float64(gain)).astype(np.float32)
