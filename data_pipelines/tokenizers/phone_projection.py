"""Directions in which phones differ: a linear discriminant analysis of a speech encoder's features."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int, Int16
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from data_pipelines.encoders.whisper import FRAMES_PER_SECOND
from data_pipelines.tokenizers.lexicon import with_durations
from data_pipelines.tokenizers.phone import PhoneTokenizer

RARE_FRAMES = 50
"""A phone with fewer frames says nothing about its spread, and is left out."""


def phones_of_frames(
    tokenizer: PhoneTokenizer, phones: Sequence[tuple[str, float]], frames: int
) -> Int16[np.ndarray, " T"]:
    """The phone of each of so many frames of 20 ms; the last one goes on to the end of the clip.

    phones: symbols and their seconds. Raises ValueError as `with_durations` does.
    """
    ids = with_durations(tokenizer, phones, FRAMES_PER_SECOND)[:frames]
    return np.pad(ids, (0, frames - len(ids)), mode="edge")


def phone_projection(
    features: Float32[np.ndarray, "N D"], phones: Int[np.ndarray, " N"], dimensions: int
) -> Float32[np.ndarray, "D K"]:
    """The K = `dimensions` directions in which phones differ most beside the spread within each (Fisher 1936).

    In the projection the spread within phones is about 1 in every direction, so that distances count each alike.
    Raises ValueError for as few phones as dimensions.
    """
    counts = np.bincount(phones)
    frequent = counts[phones] >= RARE_FRAMES
    found = int(np.count_nonzero(counts >= RARE_FRAMES))
    if found <= dimensions:
        raise ValueError(
            f"--phones: got {dimensions} dimensions and {found} phones of {RARE_FRAMES} frames or more, wanted fewer "
            "dimensions than phones; give more audio or a smaller number"
        )
    analysis = LinearDiscriminantAnalysis(n_components=dimensions).fit(features[frequent], phones[frequent])
    return np.asarray(analysis.scalings_[:, :dimensions], np.float32)
