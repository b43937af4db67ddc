"""Synthetic voices at 16 kHz."""

import numpy as np
import soxr
from jaxtyping import Float

from data_pipelines import espeak
from data_pipelines.corpora import SAMPLE_RATE_HZ
from data_pipelines.corpora.levels import loudness

SPEECH_RMS = 0.08


def speech_clip(voice: str, text: str) -> Float[np.ndarray, "S"]:
    """`text` in an espeak voice at 16 kHz, all clips equally loud."""
    samples, rate = espeak.speak(text, voice)
    return loudness(soxr.resample(samples, rate, SAMPLE_RATE_HZ), SPEECH_RMS)
