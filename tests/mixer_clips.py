"""Small corpora of tones, for the tests of mixers."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipelines.corpora import SAMPLE_RATE_HZ, SPLITS, Clip, Corpus, Entry, EntryTable
from data_pipelines.mixers import MixerOptions, Pool, derive
from data_pipelines.synthetic.levels import rms
from data_pipelines.synthetic.noises import NOISES

SAMPLES = 16411  # a prime, a little over a second
LABELS = ("rain", "dog_bark", "Siren", "wind", "bell")
OPTIONS = MixerOptions(noises=tuple(kind for kind in NOISES if kind != "babble"))
STEP_SAMPLES = round(SAMPLE_RATE_HZ / OPTIONS.span_steps_per_second)


def voice(number: int, samples: int = SAMPLES) -> np.ndarray:
    """A tone of its own pitch that swells and falls, with a little hiss."""
    time_axis = np.arange(samples) / SAMPLE_RATE_HZ
    hiss = np.random.default_rng(number).standard_normal(samples)
    tone = np.sin(2 * np.pi * (101 + 13 * number) * time_axis) * (0.6 + 0.4 * np.cos(2 * np.pi * 3 * time_axis))
    return (0.1 * tone + 0.01 * hiss).astype(np.float32)


def read_from(clips: dict[str, Clip], entry: Entry, sample_rate_hz: int) -> Clip:
    return clips[entry.id]


def corpus_of(clips: list[Clip], place: str = "speech") -> Corpus:
    entries = EntryTable(
        Entry(where=clip.id, id=clip.id, split=clip.split, about={"speaker": clip.speaker}) for clip in clips
    )
    return Corpus(place=place, entries=entries, read=functools.partial(read_from, {clip.id: clip for clip in clips}))


def speech_clips() -> list[Any]:
    """Three speakers with several clips in each split, and one speaker with a single one; lengths all differ."""
    clips, number = [], 0
    for split in SPLITS:
        for speaker, count in (("Ada", 3), ("Bo", 2), ("Cy", 5), ("Solo", 1)):
            for _ in range(count):
                clips.append(
                    Clip(
                        id=f"{split}-{number}",
                        split=split,
                        audio=voice(number, SAMPLES + 7 * number),
                        speaker=speaker,
                        text=f"sentence {number}",
                    )
                )
                number += 1
    return clips


def sound_clips() -> list[Any]:
    """A sound of each label in each split, longer than the speech."""
    return [
        Clip(id=f"sound-{split}-{label}", split=split, labels=(label,), audio=voice(50 + 7 * order + number, 30011))
        for order, split in enumerate(SPLITS)
        for number, label in enumerate(LABELS)
    ]


CLIPS = speech_clips()
CLIP: Any = CLIPS[0]
SPEECH = Pool(corpus_of(CLIPS))
SOUNDS = Pool(corpus_of(CLIPS), corpus_of(sound_clips(), "sounds"))
derived: Callable[..., Any] = derive
"""`derive` without its types: each field of a clip may be None."""


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ratio_db(clip: Any, name: str) -> float:
    """The audio's power over that of what was added to it."""
    return 20 * np.log10(rms(clip.audio) / rms(getattr(clip, name).astype(np.float64) - clip.audio))


def same(left: Clip, right: Clip) -> bool:
    names = [field.name for field in dataclasses.fields(Clip)]
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in names)
