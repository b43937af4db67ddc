"""A span of a clip that shall be filled in."""

from dataclasses import replace

import numpy as np

from data_pipelines.corpora import SAMPLE_RATE_HZ, Clip
from data_pipelines.espeak import CLAUSE_BOUNDARY, WORD_BOUNDARY
from data_pipelines.mixers.pool import MixerOptions, Pool

FRAMES_PER_SECOND = 50
FRAME_SAMPLES = SAMPLE_RATE_HZ // FRAMES_PER_SECOND
PAUSES = (WORD_BOUNDARY, CLAUSE_BOUNDARY, "", "sil", "sp", "spn", "pau", "<pad>", "AP", "SP")
"""Symbols between words: espeak's, and those of forced aligners and of singing corpora."""


def mask_span(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` with masked_seconds: whole frames of 20 ms, from word to word where the clip has its phones.

    The span's share of the clip is within masked_share. Raises ValueError for a clip of fewer than two frames.
    """
    first, stop = _words_span(clip, rng, options.masked_share) or frame_span(clip, rng, options.masked_share)
    return replace(clip, masked_seconds=(first / FRAMES_PER_SECOND, stop / FRAMES_PER_SECOND))


def frame_span(clip: Clip, rng: np.random.Generator, share: tuple[float, float]) -> tuple[int, int]:
    """First frame of a random span of `clip` and the one after its last; at least one frame is in it, one out of it."""
    frames = _frames(clip)
    count = int(np.clip(round(rng.uniform(*share) * frames), 1, frames - 1))
    first = int(rng.integers(frames - count + 1))
    return first, first + count


def _words_span(clip: Clip, rng: np.random.Generator, share: tuple[float, float]) -> tuple[int, int] | None:
    """As `frame_span`, from the start of a word to the end of one; None where no words have such a length."""
    frames = _frames(clip)
    starts, stops = word_frames(clip.phones or ())
    for first in starts[rng.permutation(len(starts))]:
        least = first + max(1, np.ceil(share[0] * frames))
        most = min(frames, first + min(frames - 1, np.floor(share[1] * frames)))
        low, high = np.searchsorted(stops, least), np.searchsorted(stops, most, "right")
        if low < high:
            return int(first), int(stops[rng.integers(low, high)])
    return None


def word_frames(phones: tuple[tuple[str, float], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Frames at which words start, and at which they stop, rounded; each phone is a word where no pause is marked."""
    pause = np.array([symbol in PAUSES for symbol, _ in phones], bool)
    stops = np.cumsum([seconds for _, seconds in phones]) * FRAMES_PER_SECOND
    starts = np.concatenate([[0.0], stops[:-1]])[: len(phones)]
    opens, closes = ~pause, ~pause
    if pause.any():
        opens = ~pause & np.concatenate([[True], pause[:-1]])
        closes = ~pause & np.concatenate([pause[1:], [True]])
    return np.round(starts[opens]).astype(int), np.round(stops[closes]).astype(int)


def _frames(clip: Clip) -> int:
    samples = 0 if clip.audio is None else len(clip.audio)
    if samples < 2 * FRAME_SAMPLES:
        raise ValueError(
            f"clip {clip.id!r}: got {samples} samples of audio, wanted at least {2 * FRAME_SAMPLES} (two "
            "frames), to mask a part; leave the clip out of the corpus"
        )
    return samples // FRAME_SAMPLES
