"""A span of a clip that shall be filled in."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from data_pipelines.corpora import Clip
from data_pipelines.espeak import CLAUSE_BOUNDARY, WORD_BOUNDARY
from data_pipelines.mixers.options import MixerOptions
from data_pipelines.mixers.pool import Pool

PAUSES = (WORD_BOUNDARY, CLAUSE_BOUNDARY, "", "sil", "sp", "spn", "pau", "<pad>", "AP", "SP")
"""Symbols between words: espeak's, and those of forced aligners and of singing corpora."""


def mask_span(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` with masked_seconds: from the start of a word to the end of one where the phones are known.

    It starts and ends at whole steps of span_steps_per_second; which frames of a codec these mean is decided where its
    codes are masked. The span's share of the clip is within masked_share. Raises ValueError for a clip of fewer than
    two steps.
    """
    span = _word_span(clip, rng, options) or random_span(clip, rng, options)
    start, stop = (step / options.span_steps_per_second for step in span)
    return replace(clip, masked_seconds=(start, stop))


def random_span(clip: Clip, rng: np.random.Generator, options: MixerOptions) -> tuple[int, int]:
    """The first step of a random span and the one after its last; at least one step lies in it and one outside."""
    steps = _steps(clip, options.span_steps_per_second)
    count = int(np.clip(round(rng.uniform(*options.masked_share) * steps), 1, steps - 1))
    first = int(rng.integers(steps - count + 1))
    return first, first + count


def _word_span(clip: Clip, rng: np.random.Generator, options: MixerOptions) -> tuple[int, int] | None:
    """As `random_span`, from the start of a word to the end of one; None where no words have such a length."""
    steps = _steps(clip, options.span_steps_per_second)
    low, high = options.masked_share
    starts, stops = word_steps(clip.phones or (), options.span_steps_per_second)
    for first in starts[rng.permutation(len(starts))]:
        earliest = first + max(1, np.ceil(low * steps))
        latest = min(steps, first + min(steps - 1, np.floor(high * steps)))
        fitting = stops[(earliest <= stops) & (stops <= latest)]
        if len(fitting):
            return int(first), int(rng.choice(fitting))
    return None


def word_steps(
    phones: tuple[tuple[str, float], ...], steps_per_second: float
) -> tuple[Int[np.ndarray, " W"], Int[np.ndarray, " W"]]:
    """The steps nearest to the start and to the end of each word; without pauses each phone is a word."""
    pause = np.array([symbol in PAUSES for symbol, _ in phones], bool)
    ends = np.cumsum([seconds for _, seconds in phones]) * steps_per_second
    starts = np.concatenate([[0.0], ends[:-1]])[: len(phones)]
    opens, closes = ~pause, ~pause
    if pause.any():
        opens = ~pause & np.concatenate([[True], pause[:-1]])
        closes = ~pause & np.concatenate([pause[1:], [True]])
    return np.round(starts[opens]).astype(int), np.round(ends[closes]).astype(int)


def _steps(clip: Clip, steps_per_second: float) -> int:
    """The number of whole steps in the audio of `clip`."""
    samples = 0 if clip.audio is None else len(clip.audio)
    steps = int(samples * steps_per_second / clip.sample_rate_hz)
    if steps < 2:
        least = int(np.ceil(2 * clip.sample_rate_hz / steps_per_second))
        raise ValueError(
            f"clip {clip.id!r}: got {samples} samples of audio, wanted at least {least} (two steps of "
            f"1/{steps_per_second:g} s), to mask a part; leave the clip out of the corpus"
        )
    return steps
