"""The domains of the synthetic corpus: how the clips of each are made, and its share of the minutes.

A hash of its content decides which split a clip may be in, whatever the seed: of the sentence (speech, parallel,
singing, instructed, language), of instrument and key (music), of the file's name (recorded sounds). Sounds by formula
are drawn with random numbers that differ from split to split.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipelines.corpora import SPLITS, Clip, Split, hash_of
from data_pipelines.durations import aligned_phones
from data_pipelines.synthetic.instructed import SPEAKERS, instructed_clip
from data_pipelines.synthetic.language_bank import SENTENCES, bank
from data_pipelines.synthetic.recordings import find_recordings, recorded_clip
from data_pipelines.synthetic.sentences import Grammar
from data_pipelines.synthetic.singing import song
from data_pipelines.synthetic.soundfont import music_clip
from data_pipelines.synthetic.sounds import KINDS, sound_clip
from data_pipelines.synthetic.texts import pick, read_data
from data_pipelines.synthetic.voices import (
    ENGLISH,
    ESPEAK_SPEAKERS,
    LEAST_CLIPS,
    NEURAL,
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
"""The share of the minutes that each domain has."""
RECORDINGS_PER_ROUND = 4
"""Recorded sounds after each round of `sounds.KINDS`."""
FOREIGN_VARIANTS: list[str] = read_data("voices")["foreign_variants"]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Clips that are made together, such as two of one speaker; they depend on these four values alone."""

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
    """How the clips of a domain are made."""

    make: Callable[[Unit], list[Clip]]
    """Returns the clips of a unit."""
    variety: int = 1
    """How many consecutive units have every speaker, kind or language once."""
    sources: tuple[str, ...] = ()
    """Installed voices and recordings; the clips differ from those of an installation with others."""


@dataclass(frozen=True, kw_only=True)
class Talk:
    """What the speaking domains are made with."""

    speakers: tuple[str, ...]
    grammar: Grammar = "sentences"
    timed_share: float = 0.0
    """Share of the clips of speech whose phones are kept with their durations."""

    @property
    def words(self) -> tuple[str, ...]:
        """The source of the words, where it is not the usual one."""
        return () if self.grammar == "sentences" else (self.grammar,)

    @property
    def times(self) -> tuple[str, ...]:
        return (f"durations in {self.timed_share:g} of the clips",) if self.timed_share else ()


def find_domains(
    voices: Voices, grammar: Grammar = "sentences", timed_share: float = 0.0, speakers: tuple[str, ...] = ()
) -> dict[str, Domain]:
    """The domains by name, with the recordings and voices that are installed, or with the given `speakers`."""
    talk = Talk(speakers=speakers or find_speakers(voices), grammar=grammar, timed_share=timed_share)
    recordings = find_recordings()
    speakers, words = talk.speakers, talk.words
    speech, parallel, singing, instructed = (
        functools.partial(make, talk=talk) for make in (_speech, _parallel, _singing, _instructed)
    )
    sound = functools.partial(_sound, recordings=recordings)
    return {
        "speech": Domain(make=speech, variety=len(speakers), sources=(*speakers, *words, *talk.times)),
        "parallel": Domain(make=parallel, variety=len(speakers), sources=(*speakers, *words)),
        "singing": Domain(make=singing, variety=len(ESPEAK_SPEAKERS), sources=words),
        "instructed": Domain(make=instructed, variety=len(SPEAKERS), sources=words),
        "sound": Domain(make=sound, variety=len(KINDS), sources=recordings),
        "music": Domain(make=_music),
        "language": Domain(make=_language, variety=len(SENTENCES)),
    }


def _speech(unit: Unit, talk: Talk) -> list[Clip]:
    """Sentences by one speaker."""
    rng, speaker = unit.random(), talk.speakers[unit.number % len(talk.speakers)]
    spoken = utterances(rng, unit.split, speaker, grammar=talk.grammar)
    guide = ENGLISH if speaker.startswith(NEURAL) else speaker
    return [
        unit.clip(
            part,
            audio=audio,
            text=text,
            phones=aligned_phones(text, guide, audio) if rng.random() < talk.timed_share else None,
            speaker=speaker,
            language=ENGLISH,
        )
        for part, (text, (audio,)) in enumerate(spoken)
    ]


def _parallel(unit: Unit, talk: Talk) -> list[Clip]:
    """Sentences by one speaker, and each of them by another."""
    rng, speakers, number = unit.random(), talk.speakers, unit.number % len(talk.speakers)
    speaker, other_speaker = speakers[number], speakers[(number + rng.integers(1, len(speakers))) % len(speakers)]
    spoken = utterances(rng, unit.split, speaker, other_speaker, grammar=talk.grammar)
    return [
        unit.clip(part, audio=audio, content_audio=content, text=text, speaker=speaker, language=ENGLISH)
        for part, (text, (audio, content)) in enumerate(spoken)
    ]


def _singing(unit: Unit, talk: Talk) -> list[Clip]:
    rng, speaker = unit.random(), ESPEAK_SPEAKERS[unit.number % len(ESPEAK_SPEAKERS)]
    songs = [song(rng, speaker, unit.split, talk.grammar) for _ in range(LEAST_CLIPS)]
    return [
        unit.clip(part, audio=sung.samples, text=sung.text, midi=sung.midi, speaker=speaker, language=ENGLISH)
        for part, sung in enumerate(songs)
    ]


def _instructed(unit: Unit, talk: Talk) -> list[Clip]:
    speaker = list(SPEAKERS)[unit.number % len(SPEAKERS)]
    speech = instructed_clip(unit.random(), speaker, unit.split, talk.grammar)
    return [unit.clip(0, audio=speech.samples, text=speech.text, instruction=speech.instruction, language=ENGLISH)]


def _sound(unit: Unit, recordings: tuple[str, ...]) -> list[Clip]:
    """Each kind in turn, and then some recordings, where any are installed."""
    rng, number = unit.random(), unit.number % (len(KINDS) + (RECORDINGS_PER_ROUND if recordings else 0))
    if number < len(KINDS):
        sound = sound_clip(rng, KINDS[number], unit.split)
    else:
        sound = recorded_clip(rng, recordings, unit.split)
    return [unit.clip(0, audio=sound.samples, text=sound.caption, labels=sound.labels)]


def _music(unit: Unit) -> list[Clip]:
    audio, tune = music_clip(unit.random(), unit.split)
    return [unit.clip(0, audio=audio, text=tune.caption, labels=tune.labels)]


def _language(unit: Unit) -> list[Clip]:
    """Each language in turn, in a drawn voice."""
    rng, language = unit.random(), list(SENTENCES)[unit.number % len(SENTENCES)]
    sentences = bank(language, unit.split)
    while True:
        text = pick(rng, sentences)
        speaker = f"{language}+{pick(rng, FOREIGN_VARIANTS)}"
        audio = speech_clip(speaker, text, words_per_minute=int(rng.integers(*WORDS_PER_MINUTE)))
        if fits(audio):
            return [unit.clip(0, audio=audio, text=text, speaker=speaker, language=language)]
