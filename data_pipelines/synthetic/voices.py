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
from data_pipelines.synthetic.sentences import Grammar, sentence
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

NEURAL = ("piper-", "kokoro-")
"""How the names of neural voices begin."""
PIPER_PITCHES = (0.86, 1.14, 1.3)
"""Of the further voices that are made of Piper's."""

Voices = Literal["espeak", "all", "wide"]


def find_speakers(voices: Voices) -> tuple[str, ...]:
    """Names of the voices, the neural ones spread among espeak's.

    "all" adds those of Piper and Kokoro that are installed, "wide" also those that `say` makes of them.
    """
    groups = {"espeak": (), "all": _neural(), "wide": (*_neural(), *_made_of_neural())}
    spread = (ESPEAK_SPEAKERS, groups[voices])
    position = {name: number / len(group) for group in spread for number, name in enumerate(group)}
    return tuple(sorted(position, key=position.__getitem__))


def _neural() -> tuple[str, ...]:
    piper = find_piper()
    return (*([piper.speaker] if piper else []), *kokoro.speakers())


def _made_of_neural() -> tuple[str, ...]:
    piper = find_piper()
    return (*(f"{piper.speaker}@{pitch}" for pitch in PIPER_PITCHES if piper), *kokoro.mixed_speakers())


def speech_clip(
    voice: str, text: str, rms: float = SPEECH_RMS, rate: int = SAMPLE_RATE_HZ, **settings: int
) -> Float[np.ndarray, " S"]:
    """`text` in an espeak voice, at the level `rms`; `settings` are those of `espeak.speak`."""
    return _resampled(*espeak.speak(text, voice, **settings), rms, rate)


def say(speaker: str, texts: Sequence[str], rng: np.random.Generator) -> list[Float[np.ndarray, " S"]]:
    """Each text by one of the `find_speakers`, or of Kokoro's mixed ones, at a pace of its own, all equally loud.

    A neural voice followed by "@1.2" is one more voice: its speech, made 1.2 times as slowly, is played 1.2 times as
    fast, so that it is as long, and higher in pitch and formants.
    """
    voice, _, pitch = speaker.partition("@")
    factor = float(pitch or 1)
    if voice.startswith("piper-"):
        piper = find_piper()
        if piper is None or piper.speaker != voice:
            raise ValueError(f"voices: got no {voice!r}, wanted the voice of an installed Piper; give --voices espeak")
        scale = factor / rng.uniform(*NEURAL_SPEED)
        speeches = piper_speech(piper, texts, int(rng.integers(2**31)), length_scale=scale)
    elif voice.startswith("kokoro-"):
        speeches = [kokoro.kokoro_speech(text, voice, rng.uniform(*NEURAL_SPEED) / factor) for text in texts]
    else:
        return [speech_clip(speaker, text, words_per_minute=int(rng.integers(*WORDS_PER_MINUTE))) for text in texts]
    return [_resampled(samples, rate * factor) for samples, rate in speeches]


def utterances(
    rng: np.random.Generator, split: Split, *speakers: str, grammar: Grammar = "sentences"
) -> list[tuple[str, tuple[Float[np.ndarray, " S"], ...]]]:
    """Two or more sentences of `split`, each with its clip by every one of `speakers`, all 1.5 to 5 s long."""
    count = PIPER_CLIPS if any(speaker.startswith("piper-") for speaker in speakers) else LEAST_CLIPS
    fitting = []
    while len(fitting) < LEAST_CLIPS:
        texts = [sentence(rng, split, grammar) for _ in range(count)]
        clips = zip(*(say(speaker, texts, rng) for speaker in speakers), strict=True)
        fitting += [(text, spoken) for text, spoken in zip(texts, clips, strict=True) if all(map(fits, spoken))]
    return fitting[:count]


def fits(samples: Float[np.ndarray, " S"]) -> bool:
    """Whether a clip is as long as those of the corpus."""
    return CLIP_SECONDS[0] <= len(samples) / SAMPLE_RATE_HZ <= CLIP_SECONDS[1]


def _resampled(
    samples: np.ndarray, from_rate: float, rms: float = SPEECH_RMS, rate: int = SAMPLE_RATE_HZ
) -> np.ndarray:
    return loudness(soxr.resample(samples, from_rate, rate), rms)
