"""Which phone is heard in each frame of a clip whose phones are known: a model of phones, and the best path.

The model knows for each phone the mean of a speech encoder's features, in the directions in which phones differ most;
its likelihood of a frame is a Gaussian's, whose spread is that within phones. A clip's path goes through its phones in
their order (Viterbi 1967), and may leave out pauses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int
from numba import njit

from data_pipelines.durations import PAUSE, Durations
from data_pipelines.encoders.whisper import FRAMES_PER_SECOND
from data_pipelines.espeak import CLAUSE_BOUNDARY
from data_pipelines.tokenizers.lexicon import spoken_letters
from data_pipelines.tokenizers.phone import PhoneTokenizer
from data_pipelines.tokenizers.phone_projection import RARE_FRAMES, phone_projection

DIMENSIONS = 38
STAY, NEXT, SKIP = range(3)
"""How many phones further a path is in the next frame."""


@dataclass(frozen=True)
class PhoneModel:
    """A Gaussian for each phone; the spread within phones is about 1 in every direction of the projection."""

    projection: Float32[np.ndarray, "D K"]
    means: Float32[np.ndarray, "V K"]
    """By phone id; the mean of all frames for a phone that was rare."""

    def log_likelihoods(self, features: Float32[np.ndarray, "T D"]) -> Float32[np.ndarray, "T V"]:
        """Of each phone in each frame, but for a number that is the same for all phones of a frame."""
        projected = features @ self.projection
        return projected @ self.means.T - np.square(self.means).sum(axis=1) / 2


def fit_phone_model(features: Float32[np.ndarray, "N D"], phones: Int[np.ndarray, " N"], size: int) -> PhoneModel:
    """The model of frames and the phone of each, ids below `size`.

    Raises ValueError where fewer than two phones have `RARE_FRAMES` frames.
    """
    counts = np.bincount(phones, minlength=size)
    frequent = int(np.count_nonzero(counts >= RARE_FRAMES))
    projection = phone_projection(features, phones, max(1, min(DIMENSIONS, frequent - 1)))
    projected = features @ projection
    sums = np.stack([np.bincount(phones, column, size) for column in projected.T], axis=1)
    common = counts[:, None] >= RARE_FRAMES
    means = np.where(common, sums / np.maximum(counts, 1)[:, None], projected.mean(axis=0))
    return PhoneModel(projection, means.astype(np.float32))


def aligned_by(
    model: PhoneModel, phones: Sequence[tuple[str, float]], features: Float32[np.ndarray, "T D"], seconds: float
) -> Durations:
    """The phones with their lengths as `model` hears them in `features`; pauses may vanish, and begin or end the clip.

    The letters of a phone ("aɪ") follow each other. A clip with fewer frames than letters keeps its lengths. The
    lengths sum to `seconds`, that of the clip.
    """
    names = _between_pauses([name for name, _ in phones])
    of_names = spoken_letters(names)
    letters = [letter for own in of_names for letter in own]
    owners = np.repeat(np.arange(len(names)), [len(own) for own in of_names])
    if len(features) < len(letters):
        return tuple(phones)
    ids = PhoneTokenizer().ids(letters)
    optional = np.array([letter == CLAUSE_BOUNDARY for letter in letters])
    path = best_path(model.log_likelihoods(features)[:, ids], optional)
    frames = np.bincount(owners[path], minlength=len(names))
    ends = np.minimum(np.cumsum(frames) / FRAMES_PER_SECOND, seconds)
    ends[np.flatnonzero(frames)[-1] :] = seconds
    lengths = np.round(np.diff(ends, prepend=0), 6)
    return tuple((name, float(length)) for name, length in zip(names, lengths, strict=True) if length > 0)


def _between_pauses(names: Sequence[str]) -> list[str]:
    """The names with a pause at both ends, and with no pause beside another one."""
    found = [PAUSE]
    for name, letters in zip(names, spoken_letters(names), strict=True):
        named = PAUSE if letters == [CLAUSE_BOUNDARY] else name
        if not named == found[-1] == PAUSE:
            found.append(named)
    return found if found[-1] == PAUSE else [*found, PAUSE]


def best_path(scores: Float32[np.ndarray, "T S"], optional: Bool[np.ndarray, " S"]) -> Int[np.ndarray, " T"]:
    """The state of each frame on the path of the highest sum of scores.

    A path begins in the first state and ends in the last one, and goes through all between them; it may leave out
    `optional` ones, of which no two are neighbours. T is at least S.
    """
    return _best_path(np.ascontiguousarray(scores, np.float64), optional)


@njit(cache=True)
def _best_path(scores, optional):
    frames, states = scores.shape
    moves = np.zeros((frames, states), np.int8)
    best = np.full(states, -np.inf)
    best[0] = scores[0, 0]
    if optional[0] and states > 1:
        best[1] = scores[0, 1]
    for frame in range(1, frames):
        for state in range(states - 1, -1, -1):  # so that `best` still holds the frame before for the states below
            chosen, move = best[state], STAY
            if state > 0 and best[state - 1] > chosen:
                chosen, move = best[state - 1], NEXT
            if state > 1 and optional[state - 1] and best[state - 2] > chosen:
                chosen, move = best[state - 2], SKIP
            best[state] = chosen + scores[frame, state]
            moves[frame, state] = move
    state = states - 1
    if optional[state] and states > 1 and best[state - 1] > best[state]:
        state -= 1
    path = np.zeros(frames, np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= moves[frame, state]
    return path
