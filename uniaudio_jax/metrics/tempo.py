"""Tempo: whether music has the beats per minute of the reference."""

import librosa
import numpy as np
from jaxtyping import Float

from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores, free_waveforms

TOLERANCE = 0.1
RATIOS = (1, 2, 1 / 2, 3, 1 / 3)
"""Of two tempos that are the same one, counted in other notes (the accuracy 2 of Gouyon et al. 2006)."""


def tempo(sample: Sample) -> Scores:
    """tempo_within_10_percent: 1 where the estimate's tempo is that of the reference but for a tenth, else 0;
    tempo_but_for_octave: the same, where twice, three times, a half and a third of it are right, too.

    An empty estimate is silence, and silence has no tempo: 0. Undefined for a silent reference.
    """
    reference, estimate = (_beats_per_minute(wav, sample.sample_rate_hz) for wav in free_waveforms(sample))
    if reference is None:
        return dict.fromkeys(SCALES, NO_SCORE)
    ratio = 0.0 if estimate is None else estimate / reference
    right = [abs(ratio - wanted) <= TOLERANCE * wanted for wanted in RATIOS]
    return {"tempo_within_10_percent": Score(float(right[0]), 1.0), "tempo_but_for_octave": Score(float(any(right)), 1)}


def _beats_per_minute(wav: Float[np.ndarray, " S"], sample_rate_hz: int) -> float | None:
    """The strongest tempo of the onsets (librosa), None for silence."""
    return float(librosa.feature.tempo(y=wav, sr=sample_rate_hz)[0]) if wav.any() else None


SCALES = {"tempo_within_10_percent": Scale("higher", 0, 1), "tempo_but_for_octave": Scale("higher", 0, 1)}
TEMPO = MetricKind(measure=tempo, scales=SCALES)
