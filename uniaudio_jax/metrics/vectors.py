"""How alike vectors are: the cosine of two, the Fréchet distance of two sets."""

import numpy as np
from jaxtyping import Float


def cosine(first: Float[np.ndarray, " D"], second: Float[np.ndarray, " D"]) -> float:
    """Cosine of the angle between two vectors, neither of which is 0."""
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def frechet_distance(first: Float[np.ndarray, "N D"], second: Float[np.ndarray, "M D"]) -> float | None:
    """Distance of the Gaussians with the means and covariances of two sets of vectors (Dowson and Landau 1982).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2), or None for a set of fewer than two.
    """
    if min(len(first), len(second)) < 2:
        return None
    means = [vectors.mean(axis=0, dtype=np.float64) for vectors in (first, second)]
    one, other = (np.atleast_2d(np.cov(vectors.astype(np.float64), rowvar=False)) for vectors in (first, second))
    values, axes = np.linalg.eigh(one)
    root = axes * np.sqrt(np.maximum(values, 0)) @ axes.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other @ root), 0)).sum()
    return max(0.0, float(np.sum((means[0] - means[1]) ** 2) + np.trace(one) + np.trace(other) - 2 * shared))
