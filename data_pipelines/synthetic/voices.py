"""Synthetic voices: many of espeak, and neural ones where their packages are installed."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import soxr
from jaxtyping import Float

from data_pipelines import espeak
from data_pipelines.corpora import SAMPLE_RATE_HZ, Split
from data_pipelines.synthetic import kokoro
from data_pipelines.synthetic.levels import loudness
from data_pipelines.synthetic.piper import find_piper, piper_speech
from data_pipelines.synthetic.sentences import sentence
from data_pipelines.synthetic.texts import read_data

SPEECH_RMS = 0.08
CLIP_SECONDS = (1.5, 5.0)
ENGLISH = "en-us"
ESPEAK_SPEAKERS: tuple[str, ...] = tuple(read_data("voices")["speakers"])
"""Voices without breath noise, which would differ from process to process; `noises.BABBLE_VOICES` has others."""
WORDS_PER_MINUTE = (155, 195)
NEURAL_SPEED = (0.9, 1.1)
LEAST_CLIPS = 2  # of a speaker, so that each clip has a speaker prompt
PIPER_CLIPS = 8  # each call loads the voice

Voices = Literal["all", "espeak"]


def find_speakers(voices: Voices) -> tuple[str, ...]:
    """Names of the voices: espeak's, and with "all" those of Piper and Kokoro that are installed, spread among them."""
    piper = find_piper()
    neural = (*([piper.speaker] if piper else []), *kokoro.speakers()) if voices == "all" else ()
    position = {name: number / len(group) for group in (ESPEAK_SPEAKERS, neural) for number, name in enumerate(group)}
    return tuple(sorted(position, key=position.__getitem__))


def speech_clip(
    voice: str, text: str, rms: float = SPEECH_RMS, rate: int = SAMPLE_RATE_HZ, **settings: int
) -> Float[np.ndarray, " S"]:
    """`text` in an espeak voice, at the level `rms`; `settings` are those of `espeak.speak`."""
    return _resampled(*espeak.speak(text, voice, **settings), rms, rate)


def say(speaker: str, texts: Sequence[str], rng: np.random.Generator) -> list[Float[np.ndarray, " S"]]:
    """Each text by one of the `find_speakers`, at a pace of its own, all equally loud."""
    if speaker.startswith("piper-"):
        piper = find_piper()
        if piper is None or piper.speaker != speaker:
            raise ValueError(
                f"voices: got no {speaker!r}, wanted the voice of an installed Piper; give --voices espeak"
            )
        speeches = piper_speech(piper, texts, int(rng.integers(2**31)), length_scale=1 / rng.uniform(*NEURAL_SPEED))
        return [_resampled(*speech) for speech in speeches]
    if speaker.startswith("kokoro-"):
        return [_resampled(*kokoro.kokoro_speech(text, speaker, rng.uniform(*NEURAL_SPEED))) for text in texts]
    return [speech_clip(speaker, text, words_per_minute=int(rng.integers(*WORDS_PER_MINUTE))) for text in texts]


def utterances(
    rng: np.random.Generator, split: Split, *speakers: str
) -> list[tuple[str, tuple[Float[np.ndarray, " S"], ...]]]:
    """Two or more sentences of `split`, each with its clip by every one of `speakers`, all 1.5 to 5 s long."""
    count = PIPER_CLIPS if any(speaker.startswith("piper-") for speaker in speakers) else LEAST_CLIPS
    fitting = []
    while len(fitting) < LEAST_CLIPS:
        texts = [sentence(rng, split) for _ in range(count)]
        clips = zip(*(say(speaker, texts, rng) for speaker in speakers), strict=True)
        fitting += [(text, spoken) for text, spoken in zip(texts, clips, strict=True) if all(map(fits, spoken))]
    return fitting[:count]


def fits(samples: Float[np.ndarray, " S"]) -> bool:
    """Whether a clip is as long as those of the corpus."""
    return CLIP_SECONDS[0] <= len(samples) / SAMPLE_RATE_HZ <= CLIP_SECONDS[1]


def _resampled(samples: np.ndarray, from_rate: int, rms: float = SPEECH_RMS, rate: int = SAMPLE_RATE_HZ) -> np.ndarray:
    return loudness(soxr.resample(samples, from_rate, rate), rms)
