"""What mixers draw from: other clips of the same split, and the ranges of their random numbers."""

import hashlib
import importlib.util
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from data_pipelines.corpora import SPLITS, Clip, Corpus, Entry, Split, hashes_of, splits_of
from data_pipelines.synthetic.noises import NOISES

Operation = Literal["add", "remove", "replace", "inpaint", "super_resolution"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
LIMITS = {
    "snr_db": (-60.0, 100.0),
    "talker_db": (-60.0, 60.0),
    "event_db": (-60.0, 60.0),
    "reverberation_seconds": (0.1, 1.0),  # longer ones need more reflections than are simulated
    "masked_share": (0.001, 0.999),
}
ROOM_SUFFIXES = (".wav", ".flac", ".ogg")
SILENT_PEAK = 2.0**-15
"""A clip that stays below one step of 16-bit audio is silent."""
TRIES = 5


def available_noises() -> tuple[str, ...]:
    """The kinds of procedural noise that this installation makes: babble needs espeak's voices."""
    spoken = importlib.util.find_spec("espeakng_loader") is not None
    return tuple(kind for kind in NOISES if spoken or kind != "babble")


@dataclass(frozen=True, kw_only=True)
class MixerOptions:
    """Ranges that mixers draw from, lowest and highest."""

    snr_db: tuple[float, float] = (0.0, 15.0)
    """Level of the clip above that of the noise."""
    talker_db: tuple[float, float] = (-5.0, 5.0)
    """Level of the clip above that of the other talker."""
    event_db: tuple[float, float] = (-5.0, 5.0)
    """Level of the clip above that of a sound that is edited into it."""
    reverberation_seconds: tuple[float, float] = (0.2, 0.8)
    """Time in which a simulated room falls by 60 dB."""
    rooms_from: Path | None = None
    """Folder of recorded impulse responses, instead of simulated rooms."""
    masked_share: tuple[float, float] = (0.1, 0.5)
    """Part of a clip that is masked."""
    span_steps_per_second: int = 50
    """Masked spans begin and end at whole steps, this many a second."""
    operations: tuple[Operation, ...] = OPERATIONS
    """Edits that are made."""
    noises: tuple[str, ...] = field(default_factory=available_noises)
    """Kinds of noise where there is no corpus of sounds."""

    def __post_init__(self) -> None:
        for name, (least, most) in LIMITS.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(
                    f"MixerOptions.{name}: got {low} to {high}, wanted a lowest and a highest value "
                    f"within {least:g} to {most:g}"
                )
        for name, known in (("operations", OPERATIONS), ("noises", tuple(NOISES))):
            got = getattr(self, name)
            if not got or not set(got) <= set(known):
                raise ValueError(f"MixerOptions.{name}: got {got}, wanted one or more of {', '.join(known)}")
        if self.span_steps_per_second < 1:
            raise ValueError(f"MixerOptions.span_steps_per_second: got {self.span_steps_per_second}, wanted at least 1")
        if self.rooms_from is not None:
            _ = self.room_files  # a folder without rooms is refused now, not at the first clip

    @cached_property
    def room_files(self) -> dict[Split, tuple[Path, ...]]:
        """Recorded impulse responses of each split: no room of a training clip is heard in a held-out one."""
        root = Path(self.rooms_from or "")
        paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in ROOM_SUFFIXES)
        splits = splits_of(hashes_of(path.relative_to(root).as_posix() for path in paths))
        files: dict[Split, tuple[Path, ...]] = {
            split: tuple(itertools.compress(paths, splits == number)) for number, split in enumerate(SPLITS)
        }
        if missing := [split for split in SPLITS if not files[split]]:
            raise ValueError(
                f"MixerOptions.rooms_from: got {len(paths)} impulse responses in {root} and none for the "
                f"{' and the '.join(missing)} split, wanted at least two {', '.join(ROOM_SUFFIXES)} "
                "files; add some"
            )
        return files

    def describe(self) -> dict[str, Any]:
        """The options as JSON values, for a dataset's passport; recorded rooms by the hash of their names and sizes."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        described: dict[str, Any] = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        described["span_steps_per_second"] = self.span_steps_per_second
        rooms = None
        if self.rooms_from is not None:
            paths = sorted(itertools.chain(*self.room_files.values()))
            rows = [f"{path.relative_to(self.rooms_from).as_posix()} {path.stat().st_size}" for path in paths]
            digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()
            rooms = f"{len(paths)} files@{digest[:16]}"
        return {**described, "rooms_from": rooms}


def audible(clip: Clip) -> Float[np.ndarray, " S"]:
    """The audio of `clip`. Raises ValueError where it has none, or a silent one, whose level cannot be measured."""
    if clip.audio is None or not len(clip.audio):
        raise ValueError(f"clip {clip.id!r}: got no audio, wanted some to mix; leave the clip out of the corpus")
    if np.abs(clip.audio).max() < SILENT_PEAK:
        raise ValueError(
            f"clip {clip.id!r}: got silent audio (no sample reaches {SILENT_PEAK:.6f}), wanted something "
            "to hear; leave the clip out of the corpus"
        )
    return clip.audio


class Listing:
    """The clips of a corpus by split: numbers of entries, in the order of their speakers.

    names: code of each speaker; numbers, codes: for each split, an entry and its speaker's code (-1: not known).
    """

    def __init__(self, corpus: Corpus):
        self.corpus = corpus
        self.names: dict[str, int] = {}
        codes = np.fromiter((self._code(entry) for entry in corpus.entries), np.int32, len(corpus.entries))
        self.numbers: dict[Split, np.ndarray] = {}
        self.codes: dict[Split, np.ndarray] = {}
        for split in SPLITS:
            numbers = corpus.numbers(split).astype(np.int32)
            self.numbers[split] = numbers[np.argsort(codes[numbers], kind="stable")]
            self.codes[split] = codes[self.numbers[split]]

    def _code(self, entry: Entry) -> int:
        speaker = entry.about.get("speaker")
        return -1 if speaker is None else self.names.setdefault(speaker, len(self.names))

    def speaker_span(self, split: Split, code: int) -> tuple[int, int]:
        """From where to where the clips of one speaker stand in `numbers`."""
        return int(np.searchsorted(self.codes[split], code)), int(np.searchsorted(self.codes[split], code, "right"))

    def has_other(self, clip_id: str, split: Split, spans: list[tuple[int, int]]) -> bool:
        """Whether a clip beside the one called `clip_id` stands in `spans`; of two in a span, one always is."""
        return any(
            self._entry(split, place).id != clip_id
            for start, stop in spans
            for place in range(start, min(stop, start + 2))
        )

    def draw(
        self, rng: np.random.Generator, partner: Clip, spans: list[tuple[int, int]], other_than: str | None = None
    ) -> Clip:
        """A clip for `partner`, of its split and at its rate, each in `spans` equally likely.

        A clip called `other_than`, and one that cannot be read or heard, is drawn again. Raises ValueError after
        several of the latter.
        """
        failure = None
        drawn = (entry for entry in self._drawn(rng, partner.split, spans) if entry.id != other_than)
        for entry in itertools.islice(drawn, TRIES):
            try:
                clip = self.corpus.read(entry, partner.sample_rate_hz)
                audible(clip)
                return clip
            except (ValueError, OSError) as error:
                failure = error
        raise ValueError(
            f"{self.corpus.place}: got {TRIES} clips in a row that cannot be mixed, wanted one of sound; "
            f"the last: {failure}"
        ) from failure

    def _drawn(self, rng: np.random.Generator, split: Split, spans: list[tuple[int, int]]) -> Iterator[Entry]:
        total = sum(stop - start for start, stop in spans)
        while True:
            place = int(rng.integers(total))
            for start, stop in spans:
                if place < stop - start:
                    yield self._entry(split, start + place)
                    break
                place -= stop - start

    def _entry(self, split: Split, place: int) -> Entry:
        return self.corpus.entries[int(self.numbers[split][place])]


class Pool:
    """Other clips than the one at hand, of its split alone, by random numbers; all drawn clips can be heard.

    corpus: where talkers and other utterances are from. sounds: where noises and events are from, if anywhere.
    """

    def __init__(self, corpus: Corpus, sounds: Corpus | None = None):
        self._clips = Listing(corpus)
        self._sounds = None if sounds is None else Listing(sounds)

    def other_speaker(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """A clip of another speaker than `clip`'s. Raises ValueError where there is none."""
        start, stop = self._speaker_span(clip)
        known = self._clips.speaker_span(clip.split, -1)[1]
        spans = [(known, start), (stop, len(self._clips.numbers[clip.split]))]
        return self._draw(
            clip,
            rng,
            [span for span in spans if span[0] < span[1]],
            f"speaker {clip.speaker!r} is the only one",
            "add clips of other speakers",
        )

    def same_speaker(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """Another utterance of `clip`'s speaker. Raises ValueError where there is none."""
        return self._draw(
            clip,
            rng,
            [self._speaker_span(clip)],
            f"speaker {clip.speaker!r} has a single utterance",
            "leave the speaker out, or add utterances",
        )

    def another(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """Any clip but `clip`. Raises ValueError where there is none."""
        spans = [(0, len(self._clips.numbers[clip.split]))]
        return self._draw(clip, rng, spans, "it is the only clip", "add clips")

    def sound(self, clip: Clip, rng: np.random.Generator) -> Clip | None:
        """One of the sounds of `clip`'s split, None without such a corpus. Raises ValueError for a split with none."""
        if self._sounds is None:
            return None
        count = len(self._sounds.numbers[clip.split])
        if not count:
            raise ValueError(
                f"{self._sounds.corpus.place}: got no sound in the {clip.split} split, wanted at least one; "
                "add some sounds"
            )
        return self._sounds.draw(rng, clip, [(0, count)])

    def _speaker_span(self, clip: Clip) -> tuple[int, int]:
        if clip.speaker is None:
            raise ValueError(
                f"clip {clip.id!r}: got no speaker, wanted one to find other utterances by; name the "
                "speakers in the corpus"
            )
        return self._clips.speaker_span(clip.split, self._clips.names.get(clip.speaker, len(self._clips.names)))

    def _draw(
        self, clip: Clip, rng: np.random.Generator, spans: list[tuple[int, int]], reason: str, remedy: str
    ) -> Clip:
        if not self._clips.has_other(clip.id, clip.split, spans):
            raise ValueError(
                f"clip {clip.id!r}: {reason} in the {clip.split} split of {self._clips.corpus.place}, "
                f"wanted another clip; {remedy}"
            )
        return self._clips.draw(rng, clip, spans, other_than=clip.id)
