"""Corpora: one file for each kind. Each lists `Entry`s without reading audio, and reads one into a `Clip`."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int

from data_pipelines.corpora.entries import (
    SPLITS,
    Entry,
    EntryTable,
    Segment,
    Split,
    hash_of,
    hashes_of,
    split_of,
    splits_of,
)
from uniaudio_jax.audio.files import read_audio

__all__ = [
    "ALIGNED_FIELDS",
    "AUDIO_FIELDS",
    "CLIP_FIELDS",
    "MIDI_NOTES_PER_SECOND",
    "SAMPLE_RATE_HZ",
    "SPLITS",
    "TEXT_FIELDS",
    "Clip",
    "Corpus",
    "Entry",
    "EntryTable",
    "Segment",
    "Split",
    "hash_of",
    "hashes_of",
    "read_clip",
    "split_of",
    "splits_of",
]

SAMPLE_RATE_HZ = 16000
"""The rate of the synthetic corpus, and of a clip that states none."""
MIDI_NOTES_PER_SECOND = 50
"""The rate at which listings state `midi`: one pitch for every 20 ms, whatever the codec's frame rate is."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One example of a corpus; audio is float32 and mono. A field is None where the corpus lacks it."""

    id: str
    split: Split
    sample_rate_hz: int = SAMPLE_RATE_HZ
    """Rate of all audio of this clip."""
    audio: Float[np.ndarray, " S"] | None = None
    """What a model shall make."""
    text: str | None = None
    """The words of `audio`, or a caption, or an order to edit."""
    language: str | None = None
    """Language of the words: a name or a code."""
    speaker: str | None = None
    """A name that the clips of one voice share."""
    instruction: str | None = None
    """How the words are spoken."""
    labels: tuple[str, ...] | None = None
    """What is heard."""
    midi: Int[np.ndarray, " T"] | None = None
    """Pitches at `MIDI_NOTES_PER_SECOND`: 0 to 127, and 128 for a rest."""
    phones: tuple[tuple[str, float], ...] | None = None
    """Symbols and their lengths in seconds."""
    content_audio: Float[np.ndarray, " S2"] | None = None
    """The same words, perhaps in another voice."""
    noisy_audio: Float[np.ndarray, " S"] | None = None
    """`audio` with noise."""
    mixture_audio: Float[np.ndarray, " S"] | None = None
    """`audio` with another talker."""
    reverberant_audio: Float[np.ndarray, " S"] | None = None
    """`audio` as heard in a room."""
    source_audio: Float[np.ndarray, " S"] | None = None
    """`audio` before the edit."""
    masked_seconds: tuple[float, float] | None = None
    """Start and end of the span of `audio` that shall be filled in."""
    paired_audio: Float[np.ndarray, " S3"] | None = None
    """Another utterance, by the same speaker if `same_speaker`."""
    same_speaker: bool | None = None
    converted: tuple[str, ...] = ()
    """What was done to the files to read them."""


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
NOT_LISTED = ("id", "split", "sample_rate_hz", "converted")
CLIP_FIELDS = tuple(field.name for field in fields(Clip) if field.name not in NOT_LISTED)
"""What a clip may hold beside its id and split, in the order of the class."""


def read_clip(entry: Entry, sample_rate_hz: int) -> Clip:
    """The clip of an entry, with the audio that the entry lists at `sample_rate_hz`.

    Raises ValueError that names the entry for a broken or missing file, and where aligned audio differs in length from
    the target's.
    """
    if entry.broken is not None:
        raise ValueError(entry.broken)
    audio, converted = {}, []
    for name, segment in entry.audio.items():
        try:
            file = read_audio(
                segment.path,
                sample_rate_hz,
                start_seconds=segment.start_seconds,
                seconds=segment.seconds,
                channel=segment.channel,
            )
        except ValueError as error:
            message = str(error)
            raise ValueError(message if message.startswith(entry.where) else f"{entry.where}: {message}") from error
        audio[name] = file.samples
        converted += file.converted
    for name in ALIGNED_FIELDS:
        if name in audio and "audio" in audio and len(audio[name]) != len(audio["audio"]):
            raise ValueError(
                f"{entry.where}: got {len(audio[name])} samples of {name} and {len(audio['audio'])} of "
                "audio, wanted the same length; cut both alike"
            )
    return Clip(
        id=entry.id,
        split=entry.split,
        sample_rate_hz=sample_rate_hz,
        converted=tuple(converted),
        **audio,
        **entry.about,
    )


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Clips by number; their ids are unique. It can be pickled, so that other processes can read it."""

    place: str
    """What the user named."""
    entries: EntryTable
    """All clips, listed."""
    read: Callable[[Entry, int], Clip] = read_clip
    """The clip of an entry, with the audio fields that the entry lists, at a sample rate in hertz."""

    def __post_init__(self) -> None:
        if not self.entries:
            raise ValueError(f"{self.place}: got no clip in this corpus, wanted at least one; check the path")
        if repeated := self.entries.find_repeated_id():
            earlier, later = repeated
            raise ValueError(
                f"{later.where}: got id {later.id!r} a second time (first: {earlier.where}), wanted another id for "
                "each clip"
            )

    def numbers(self, split: Split) -> Int[np.ndarray, " N"]:
        """The numbers of the entries of a split, in listing order."""
        return self.entries.numbers(split)
