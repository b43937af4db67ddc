"""How loud a signal is made."""

import numpy as np

PEAK = 0.9


def loudness(samples: np.ndarray, rms: float) -> np.ndarray:
    """`samples` at the given root mean square, or lower where their peak asks for it."""
    level, peak = np.sqrt(np.mean(np.square(samples, dtype=np.float64))), np.abs(samples).max()
    return (samples * min(rms / max(level, 1e-9), PEAK / max(peak, 1e-9))).astype(np.float32)
