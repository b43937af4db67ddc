"""The domains of the synthetic corpus: how the clips of each are made, and its share of the minutes.

Which split a clip may be in is decided by a hash of what is in it, whatever the seed: of the sentence's words (speech,
parallel, singing, instructed, language), of instrument and key (music), of the file's name (recorded sounds). Sounds
by formula are told apart by their random numbers, which differ from split to split.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipelines.corpora import SPLITS, Clip, Split, hash_of
from data_pipelines.synthetic.instructed import SPEAKERS, instructed_clip
from data_pipelines.synthetic.language_bank import SENTENCES, bank
from data_pipelines.synthetic.recordings import find_recordings, recorded_clip
from data_pipelines.synthetic.singing import song
from data_pipelines.synthetic.soundfont import music_clip
from data_pipelines.synthetic.sounds import KINDS, sound_clip
from data_pipelines.synthetic.voices import (
    ENGLISH,
    ESPEAK_SPEAKERS,
    LEAST_CLIPS,
    WORDS_PER_MINUTE,
    Voices,
    find_speakers,
    fits,
    speech_clip,
    utterances,
)

SHARES = {
    "speech": 0.28,
    "parallel": 0.12,
    "singing": 0.12,
    "instructed": 0.10,
    "sound": 0.14,
    "music": 0.14,
    "language": 0.10,
}
"""Share of each domain of the minutes."""
RECORDED = 4
"""Recorded sounds for each round of `sounds.KINDS`."""
FOREIGN_VARIANTS = ("m3", "f4", "m8", "steph2", "rob", "f1")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Clips that are made together, such as two of one speaker: a function of domain, seed, split and number alone."""

    domain: str
    seed: int
    split: Split
    number: int

    def random(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, hash_of(self.domain), SPLITS.index(self.split), self.number])

    def clip(self, part: int, **fields: Any) -> Clip:
        """The clip of this number within the unit."""
        return Clip(id=f"{self.domain}-{self.split}-{self.number:05d}-{part}", split=self.split, **fields)


@dataclass(frozen=True, kw_only=True)
class Domain:
    """How units are made. variety: units in which every speaker, kind or language comes once; made_from: voices and
    files that may be there or not, and without which other clips come out."""

    make: Callable[[Unit], list[Clip]]
    variety: int = 1
    made_from: tuple[str, ...] = ()


def find_domains(voices: Voices) -> dict[str, Domain]:
    """The domains by name, with the voices and recordings that are installed."""
    speakers, recordings = find_speakers(voices), find_recordings()
    return {
        "speech": Domain(make=functools.partial(_speech, speakers=speakers), variety=len(speakers), made_from=speakers),
        "parallel": Domain(
            make=functools.partial(_parallel, speakers=speakers), variety=len(speakers), made_from=speakers
        ),
        "singing": Domain(make=_singing, variety=len(ESPEAK_SPEAKERS)),
        "instructed": Domain(make=_instructed, variety=len(SPEAKERS)),
        "sound": Domain(
            make=functools.partial(_sound, recordings=recordings), variety=len(KINDS), made_from=recordings
        ),
        "music": Domain(make=_music),
        "language": Domain(make=_language, variety=len(SENTENCES)),
    }


def _speech(unit: Unit, speakers: tuple[str, ...]) -> list[Clip]:
    """Sentences by one speaker."""
    speaker = speakers[unit.number % len(speakers)]
    said = utterances(unit.random(), unit.split, speaker)
    return [
        unit.clip(part, audio=audio, text=text, speaker=speaker, language=ENGLISH)
        for part, (text, (audio,)) in enumerate(said)
    ]


def _parallel(unit: Unit, speakers: tuple[str, ...]) -> list[Clip]:
    """Sentences by one speaker, and each of them by another."""
    rng, place = unit.random(), unit.number % len(speakers)
    speaker, other = speakers[place], speakers[(place + rng.integers(1, len(speakers))) % len(speakers)]
    said = utterances(rng, unit.split, speaker, other)
    return [
        unit.clip(part, audio=audio, content_audio=content, text=text, speaker=speaker, language=ENGLISH)
        for part, (text, (audio, content)) in enumerate(said)
    ]


def _singing(unit: Unit) -> list[Clip]:
    rng, speaker = unit.random(), ESPEAK_SPEAKERS[unit.number % len(ESPEAK_SPEAKERS)]
    songs = [song(rng, speaker, unit.split) for _ in range(LEAST_CLIPS)]
    return [
        unit.clip(part, audio=one.samples, text=one.text, midi=one.midi, speaker=speaker, language=ENGLISH)
        for part, one in enumerate(songs)
    ]


def _instructed(unit: Unit) -> list[Clip]:
    made = instructed_clip(unit.random(), list(SPEAKERS)[unit.number % len(SPEAKERS)], unit.split)
    return [unit.clip(0, audio=made.samples, text=made.text, instruction=made.instruction, language=ENGLISH)]


def _sound(unit: Unit, recordings: tuple[str, ...]) -> list[Clip]:
    """Each kind in turn, and then some recordings, where there are any."""
    rng, place = unit.random(), unit.number % (len(KINDS) + (RECORDED if recordings else 0))
    if place < len(KINDS):
        made = sound_clip(rng, KINDS[place], unit.split)
    else:
        made = recorded_clip(rng, recordings, unit.split)
    return [unit.clip(0, audio=made.samples, text=made.caption, labels=made.labels)]


def _music(unit: Unit) -> list[Clip]:
    audio, tune = music_clip(unit.random(), unit.split)
    return [unit.clip(0, audio=audio, text=tune.caption, labels=tune.labels)]


def _language(unit: Unit) -> list[Clip]:
    """Each language in turn, in a drawn voice."""
    rng, language = unit.random(), list(SENTENCES)[unit.number % len(SENTENCES)]
    sentences = bank(language, unit.split)
    while True:
        text = sentences[rng.integers(len(sentences))]
        speaker = f"{language}+{FOREIGN_VARIANTS[rng.integers(len(FOREIGN_VARIANTS))]}"
        audio = speech_clip(speaker, text, words_per_minute=int(rng.integers(*WORDS_PER_MINUTE)))
        if fits(audio):
            return [unit.clip(0, audio=audio, text=text, speaker=speaker, language=language)]
