"""Where mixers draw other clips from: clips of the same split, found by speaker."""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from data_pipelines.corpora import SPLITS, Clip, Corpus, Entry, Split
from data_pipelines.mixers.signals import audible
from uniaudio_jax.errors import Refused, attempt

TRIES = 5
"""Clips that are drawn before a corpus is refused because none of them can be used."""

Spans = list[tuple[int, int]]
"""Positions of clips within their split, from a first one up to a last one that is not included."""


class SpeakerTable:
    """The clips of a corpus by split, those of one speaker side by side. It holds 8 bytes a clip."""

    def __init__(self, corpus: Corpus):
        self.corpus = corpus
        self.refused: set[str] = set()
        """Ids of drawn clips that cannot be mixed, each told once."""
        self.codes_of_names: dict[str, int] = {}
        codes = np.fromiter((self._code(entry) for entry in corpus.entries), np.int32, len(corpus.entries))
        self.numbers: dict[Split, np.ndarray] = {}
        """The number in the corpus of the clip at each position."""
        self.codes: dict[Split, np.ndarray] = {}
        """The speaker at each position, -1 for clips without one, ascending."""
        for split in SPLITS:
            numbers = corpus.numbers(split).astype(np.int32)
            self.numbers[split] = numbers[np.argsort(codes[numbers], kind="stable")]
            self.codes[split] = codes[self.numbers[split]]

    def _code(self, entry: Entry) -> int:
        speaker = entry.about.get("speaker")
        return -1 if speaker is None else self.codes_of_names.setdefault(speaker, len(self.codes_of_names))

    def all_clips(self, split: Split) -> tuple[int, int]:
        """The span of all clips of a split."""
        return 0, len(self.numbers[split])

    def speaker_span(self, split: Split, speaker: str | None) -> tuple[int, int]:
        """The span of a speaker's clips, or of those without a speaker; empty for an unknown speaker."""
        code = -1 if speaker is None else self.codes_of_names.get(speaker, len(self.codes_of_names))
        return int(np.searchsorted(self.codes[split], code)), int(np.searchsorted(self.codes[split], code, "right"))

    def has_other(self, clip_id: str, split: Split, spans: Spans) -> bool:
        """Whether the spans hold a clip other than `clip_id`. Ids are unique, so two clips of a span tell."""
        positions = [position for start, stop in spans for position in range(start, min(stop, start + 2))]
        return any(self._entry(split, position).id != clip_id for position in positions)

    def draw(self, rng: np.random.Generator, clip: Clip, spans: Spans) -> Clip:
        """A random clip of the spans other than `clip`, in its split and at its sample rate, with audible audio.

        A clip that cannot be used is replaced by another draw, and named once. Raises ValueError after several of them.
        """
        failure = None
        others = (entry for entry in self._random_entries(rng, clip.split, spans) if entry.id != clip.id)
        for entry in itertools.islice(others, TRIES):
            audio = {name: segment for name, segment in entry.audio.items() if name == "audio"}
            drawn = attempt(self._read, replace(entry, audio=audio), clip.sample_rate_hz)
            if not isinstance(drawn, Refused):
                return drawn
            failure = drawn
            if entry.id not in self.refused:
                self.refused.add(entry.id)
                tqdm.write(f"not mixed in: {drawn}", file=sys.stderr)
        raise ValueError(
            f"{self.corpus.place}: got {TRIES} clips in a row that cannot be mixed, wanted one of sound; "
            f"the last: {failure}"
        )

    def _read(self, entry: Entry, sample_rate_hz: int) -> Clip:
        """The clip of an entry. Raises ValueError where it is silent."""
        clip = self.corpus.read(entry, sample_rate_hz)
        audible(clip)
        return clip

    def _random_entries(self, rng: np.random.Generator, split: Split, spans: Spans) -> Iterator[Entry]:
        total = sum(stop - start for start, stop in spans)
        while True:
            offset = int(rng.integers(total))
            for start, stop in spans:
                if offset < stop - start:
                    yield self._entry(split, start + offset)
                    break
                offset -= stop - start

    def _entry(self, split: Split, position: int) -> Entry:
        return self.corpus.entries[int(self.numbers[split][position])]


class Pool:
    """Other clips of a clip's split, drawn by random numbers, at its sample rate; each has audible audio.

    Talkers and other utterances come from `corpus`, noises and events to edit in from `sounds`, if there is one.
    """

    def __init__(self, corpus: Corpus, sounds: Corpus | None = None):
        self._clips = SpeakerTable(corpus)
        self._sounds = None if sounds is None else SpeakerTable(sounds)

    def other_speaker(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """A clip of another named speaker. Raises ValueError where there is none."""
        start, stop = self._speaker_span(clip)
        _, first_named = self._clips.speaker_span(clip.split, None)
        spans = [(first_named, start), (stop, self._clips.all_clips(clip.split)[1])]
        reason = f"speaker {clip.speaker!r} is the only one"
        return self._draw(clip, rng, spans, reason, "add clips of other speakers")

    def same_speaker(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """Another utterance of `clip`'s speaker. Raises ValueError where there is none."""
        reason = f"speaker {clip.speaker!r} has a single utterance"
        return self._draw(clip, rng, [self._speaker_span(clip)], reason, "leave the speaker out, or add utterances")

    def another(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """Any clip but `clip`. Raises ValueError where there is none."""
        return self._draw(clip, rng, [self._clips.all_clips(clip.split)], "it is the only clip", "add clips")

    def sound(self, clip: Clip, rng: np.random.Generator) -> Clip | None:
        """A sound for `clip`, or None without a corpus of sounds. Raises ValueError where its split has no sound."""
        if self._sounds is None:
            return None
        span = self._sounds.all_clips(clip.split)
        if not self._sounds.has_other(clip.id, clip.split, [span]):
            raise ValueError(
                f"{self._sounds.corpus.place}: got no sound in the {clip.split} split beside clip {clip.id!r}, wanted "
                "at least one; add some sounds"
            )
        return self._sounds.draw(rng, clip, [span])

    def _speaker_span(self, clip: Clip) -> tuple[int, int]:
        if clip.speaker is None:
            raise ValueError(
                f"clip {clip.id!r}: got no speaker, wanted one to find other utterances by; name the "
                "speakers in the corpus"
            )
        return self._clips.speaker_span(clip.split, clip.speaker)

    def _draw(self, clip: Clip, rng: np.random.Generator, spans: Spans, reason: str, remedy: str) -> Clip:
        if not self._clips.has_other(clip.id, clip.split, spans):
            raise ValueError(
                f"clip {clip.id!r}: {reason} in the {clip.split} split of {self._clips.corpus.place}, "
                f"wanted another clip; {remedy}"
            )
        return self._clips.draw(rng, clip, spans)
