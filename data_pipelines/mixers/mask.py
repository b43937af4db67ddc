"""A span of a clip that is to be filled in."""

from dataclasses import replace

import numpy as np

from data_pipelines.corpora import Clip
from data_pipelines.espeak import CLAUSE_BOUNDARY, WORD_BOUNDARY
from data_pipelines.mixers.pool import MixerOptions, Pool

PAUSES = (WORD_BOUNDARY, CLAUSE_BOUNDARY, "", "sil", "sp", "spn", "pau", "<pad>", "AP", "SP")
"""Symbols between words: espeak's, and those of forced aligners and of singing corpora."""


def mask_span(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` with masked_seconds, from word to word where the clip has its phones.

    The span begins and ends at whole steps of the options' span_steps_per_second, and its share of the clip is within
    masked_share. Raises ValueError for a clip of fewer than two steps.
    """
    first, stop = _words_span(clip, rng, options) or step_span(clip, rng, options)
    rate = options.span_steps_per_second
    return replace(clip, masked_seconds=(first / rate, stop / rate))


def step_span(clip: Clip, rng: np.random.Generator, options: MixerOptions) -> tuple[int, int]:
    """First step of a random span of `clip` and the one after its last; at least one step is in it, one out of it."""
    steps = _steps(clip, options)
    count = int(np.clip(round(rng.uniform(*options.masked_share) * steps), 1, steps - 1))
    first = int(rng.integers(steps - count + 1))
    return first, first + count


def _words_span(clip: Clip, rng: np.random.Generator, options: MixerOptions) -> tuple[int, int] | None:
    """As `step_span`, from the start of a word to the end of one; None where no words have such a length."""
    steps, share = _steps(clip, options), options.masked_share
    starts, stops = word_steps(clip.phones or (), options.span_steps_per_second)
    for first in starts[rng.permutation(len(starts))]:
        least = first + max(1, np.ceil(share[0] * steps))
        most = min(steps, first + min(steps - 1, np.floor(share[1] * steps)))
        low, high = np.searchsorted(stops, least), np.searchsorted(stops, most, "right")
        if low < high:
            return int(first), int(stops[rng.integers(low, high)])
    return None


def word_steps(phones: tuple[tuple[str, float], ...], steps_per_second: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps at which words start, and at which they stop, rounded; each phone is a word where no pause is marked."""
    pause = np.array([symbol in PAUSES for symbol, _ in phones], bool)
    stops = np.cumsum([seconds for _, seconds in phones]) * steps_per_second
    starts = np.concatenate([[0.0], stops[:-1]])[: len(phones)]
    opens, closes = ~pause, ~pause
    if pause.any():
        opens = ~pause & np.concatenate([[True], pause[:-1]])
        closes = ~pause & np.concatenate([pause[1:], [True]])
    return np.round(starts[opens]).astype(int), np.round(stops[closes]).astype(int)


def _steps(clip: Clip, options: MixerOptions) -> int:
    """Whole steps in the clip's audio."""
    samples = 0 if clip.audio is None else len(clip.audio)
    step = clip.sample_rate_hz // options.span_steps_per_second
    if samples < 2 * step:
        raise ValueError(
            f"clip {clip.id!r}: got {samples} samples of audio, wanted at least {2 * step} (two steps), to mask a "
            "part; leave the clip out of the corpus"
        )
    return samples // step
