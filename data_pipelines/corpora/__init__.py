"""Corpora: one file for each kind. Each lists `Entry`s without reading audio, and reads one into a `Clip`."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from uniaudio_jax.audio.files import read_audio

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "heldout")
HELDOUT_EVERY = 20
"""In a corpus that names no held-out clips, about one in this many is held out, by a hash of its id."""

SAMPLE_RATE_HZ = 16000


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One example of a corpus; audio is float32, mono, 16 kHz. A field is None where the corpus does not have it.

    audio: what a model shall make. text: its words, or a caption or an order to edit. language: of the words, as
    espeak-ng names it. speaker: a name that is shared by the clips of one voice. instruction: how it is spoken.
    labels: what is heard. midi: pitch of every 20 ms, 0 to 127, 128 for a rest. phones: symbols and their seconds.
    content_audio: the same words, perhaps in another voice. noisy_audio, mixture_audio, reverberant_audio: the same
    signal with noise, with another talker, in a room. source_audio: before an edit. masked_seconds: from where to
    where `audio` shall be filled in. paired_audio: another utterance, by the same speaker if `same_speaker`.
    converted: what was done to the files to read them.
    """

    id: str
    split: Split
    audio: Float[np.ndarray, " S"] | None = None
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    instruction: str | None = None
    labels: tuple[str, ...] | None = None
    midi: Int[np.ndarray, " T"] | None = None
    phones: tuple[tuple[str, float], ...] | None = None
    content_audio: Float[np.ndarray, " S2"] | None = None
    noisy_audio: Float[np.ndarray, " S"] | None = None
    mixture_audio: Float[np.ndarray, " S"] | None = None
    reverberant_audio: Float[np.ndarray, " S"] | None = None
    source_audio: Float[np.ndarray, " S"] | None = None
    masked_seconds: tuple[float, float] | None = None
    paired_audio: Float[np.ndarray, " S3"] | None = None
    same_speaker: bool | None = None
    converted: tuple[str, ...] = ()


AUDIO_FIELDS = (
    "audio",
    "content_audio",
    "noisy_audio",
    "mixture_audio",
    "reverberant_audio",
    "source_audio",
    "paired_audio",
)
ALIGNED_FIELDS = ("noisy_audio", "mixture_audio", "reverberant_audio")
"""Audio fields that have as many samples as `audio`."""
TEXT_FIELDS = ("text", "language", "speaker", "instruction")
CLIP_FIELDS = tuple(field.name for field in fields(Clip) if field.name not in ("id", "split", "converted"))


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of an audio file: from `start_seconds` for `seconds` (to its end if None), one `channel` or their mean."""

    path: Path
    start_seconds: float = 0.0
    seconds: float | None = None
    channel: int | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of a clip before its audio is read.

    where: its line or file, for errors. audio: a segment for each audio field of the clip. about: its other fields.
    """

    where: str
    id: str
    split: Split
    audio: Mapping[str, Segment] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


def read_clip(entry: Entry) -> Clip:
    """The clip of an entry, its files read. Raises ValueError that names the entry for a broken or missing file, and
    where aligned audio has not the length of the target's."""
    audio, converted = {}, []
    for name, segment in entry.audio.items():
        try:
            file = read_audio(
                segment.path,
                SAMPLE_RATE_HZ,
                start_seconds=segment.start_seconds,
                seconds=segment.seconds,
                channel=segment.channel,
            )
        except ValueError as error:
            shown = str(error)
            raise ValueError(shown if shown.startswith(entry.where) else f"{entry.where}: {shown}") from error
        audio[name] = file.samples
        converted += file.converted
    for name in ALIGNED_FIELDS:
        if name in audio and "audio" in audio and len(audio[name]) != len(audio["audio"]):
            raise ValueError(
                f"{entry.where}: got {len(audio[name])} samples of {name} and {len(audio['audio'])} of "
                "audio, wanted the same length; cut both alike"
            )
    return Clip(id=entry.id, split=entry.split, converted=tuple(converted), **audio, **entry.about)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Clips by number. place: what the user named; entries: all clips, listed; read: the clip of an entry.

    An entry's id is unique. Everything can be pickled, so that other processes can read.
    """

    place: str
    entries: Sequence[Entry]
    read: Callable[[Entry], Clip] = read_clip

    def __post_init__(self) -> None:
        if not self.entries:
            raise ValueError(f"{self.place}: got no clip in this corpus, wanted at least one; check the path")
        seen: dict[str, str] = {}
        for entry in self.entries:
            if entry.id in seen:
                raise ValueError(
                    f"{entry.where}: got id {entry.id!r} a second time (first: {seen[entry.id]}), wanted "
                    "another id for each clip"
                )
            seen[entry.id] = entry.where

    def numbers(self, split: Split) -> np.ndarray:
        """The numbers of the entries of a split, in the order of the listing."""
        return np.flatnonzero([entry.split == split for entry in self.entries])


def split_number(key: str) -> int:
    """A fixed number below 2^64 for whatever `key` names, the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def split_of(key: str, heldout_every: int = HELDOUT_EVERY) -> Split:
    """The split of whatever `key` names: about one key in `heldout_every` is held out."""
    return "heldout" if split_number(key) % heldout_every == 0 else "train"


def splits_of(keys: Sequence[str]) -> list[Split]:
    """The split of each key; where the hash holds out none of two or more, the smallest is held out."""
    splits: list[Split] = [split_of(key) for key in keys]
    if "heldout" not in splits and len(keys) > 1:
        splits[min(range(len(keys)), key=lambda number: split_number(keys[number]))] = "heldout"
    return splits
