"""Clips to token streams and back: the one place where the builder and `generate` call the tokenizers."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.corpora import AUDIO_FIELDS, CLIP_FIELDS, Clip
from data_pipelines.durations import paced_phones
from data_pipelines.encoders.minilm import MiniLmVectors
from data_pipelines.encoders.t5 import T5Vectors
from data_pipelines.notes import Notes
from data_pipelines.tokenizers.labels import LabelTokenizer
from data_pipelines.tokenizers.languages import LanguageTokenizer, language_name
from data_pipelines.tokenizers.lexicon import LexiconPhones, with_durations
from data_pipelines.tokenizers.midi import MidiTokenizer
from data_pipelines.tokenizers.phone import PhoneTokenizer
from data_pipelines.tokenizers.semantic import SemanticTokenizer
from data_pipelines.tokenizers.sung_phone import SungPhoneTokenizer
from data_pipelines.tokenizers.words import WordPieces
from uniaudio_jax.codec.codec import Codec
from uniaudio_jax.config import TokenizerPaths
from uniaudio_jax.sequence import MASK_CODE
from uniaudio_jax.tasks import DRAWN, MASKED, Stream, Task

DEFAULT_LANGUAGE = "en-us"
USED = {
    "phone": "phone",
    "text_t5": "text_vectors",
    "semantic": "semantic",
    "sing_phone": "sung_phone",
    "sing_midi": "midi",
    "text": "words",
    "class_event": "labels",
    "language": "languages",
}
"""Kind of a stream → the tokenizer that makes it; the codec makes codes, and a yes or no is its own id."""


def fields_of(stream: Stream) -> tuple[str, ...]:
    """The fields of a clip that a stream is made from."""
    return ("audio", MASKED) if stream.source == MASKED else (stream.source,)


def lack(clip: str, name: str, stream: Stream) -> str:
    """What is said of a clip without a field that a stream is made from."""
    return f"clip {clip!r}: no {name}, which stream {stream.key!r} is made from; add it to the corpus"


def mask_codes(codes: np.ndarray, span: np.ndarray) -> np.ndarray:
    """`codes` [T, Q] with MASK_CODE in the frames from span[0] up to span[1]."""
    masked = np.array(codes, np.int32)
    masked[int(span[0]) : int(span[1])] = MASK_CODE
    return masked


@dataclass
class Tokenizers:
    """The codec and, opened when first needed, the other tokenizers. codebooks: levels of the codes, all by default."""

    codec: Codec
    paths: TokenizerPaths = field(default_factory=TokenizerPaths)
    codebooks: int | None = None

    @cached_property
    def phone(self) -> PhoneTokenizer | LexiconPhones:
        return LexiconPhones(Path(self.paths.lexicon), fallback=True) if self.paths.lexicon else PhoneTokenizer()

    @cached_property
    def sung_phone(self) -> SungPhoneTokenizer:
        return SungPhoneTokenizer()

    @cached_property
    def midi(self) -> MidiTokenizer:
        return MidiTokenizer(self.codec.clock.frame_rate_hz)

    @cached_property
    def text_vectors(self) -> MiniLmVectors | T5Vectors:
        return T5Vectors(Path(self.paths.text_encoder)) if self.paths.text_encoder else MiniLmVectors()

    @cached_property
    def semantic(self) -> SemanticTokenizer:
        return SemanticTokenizer(_path(self.paths.semantic_encoder), _path(self.paths.semantic_clusters))

    @cached_property
    def words(self) -> WordPieces:
        return WordPieces(_path(self.paths.word_pieces))

    @cached_property
    def labels(self) -> LabelTokenizer:
        return LabelTokenizer(_path(self.paths.labels))

    @cached_property
    def languages(self) -> LanguageTokenizer:
        return LanguageTokenizer()

    def encode_clip(self, stream: Stream, clip: Clip, notes: Notes | None = None) -> np.ndarray | None:
        """What the column of a stream holds for one clip, or None where `encode_batch` makes it for many at once.

        notes: takes what a tokenizer leaves out. Raises ValueError when the clip does not have the field, or the
        tokenizer refuses it.
        """
        for name in fields_of(stream):
            value = getattr(clip, name)
            if value is None:
                raise ValueError(lack(clip.id, name, stream))
            if name in AUDIO_FIELDS:
                check_audio(clip, name)
        if stream.source == MASKED:
            return self._masked_span(clip)
        encode = self._encoders.get(stream.kind)
        return None if encode is None else encode(clip, getattr(clip, stream.source), notes)

    def _masked_span(self, clip: Clip) -> np.ndarray:
        """The first masked frame and the one after the last, [2]."""
        assert clip.audio is not None and clip.masked_seconds is not None
        clock = self.codec.clock
        frames = clock.frames_of_samples(len(clip.audio))
        start, stop = map(clock.frames, clip.masked_seconds)
        if not 0 <= start < stop <= frames:
            raise ValueError(
                f"clip {clip.id!r}: got masked_seconds {clip.masked_seconds}, wanted a span within its "
                f"{clock.seconds(frames):.2f} s"
            )
        return np.array([start, stop], np.int32)

    @cached_property
    def _encoders(self) -> Mapping[str, Callable[[Clip, Any, Notes | None], np.ndarray]]:
        rate = self.codec.clock.frame_rate_hz
        return {
            "phone": lambda clip, text, notes: (
                with_durations(self.phone, clip.phones, rate, notes)
                if clip.phones is not None
                else self.phone.encode(text, language_of(clip), notes)
            ),
            "sing_phone": lambda clip, text, notes: self.sung_phone.encode(text, language_of(clip), notes),
            "sing_midi": lambda clip, midi, notes: self.midi.encode(midi),
            "text_t5": lambda clip, text, notes: self.text_vectors.encode(text, notes),
            "text": lambda clip, text, notes: self.words.encode(text),
            "class_event": lambda clip, labels, notes: self.labels.encode(labels),
            "sv_bool": lambda clip, same, notes: np.array([int(same)], np.int16),
            "language": lambda clip, language, notes: self.languages.encode(language_of(clip)),
        }

    def encode_batch(self, stream: Stream, clips: Sequence[Clip]) -> list[np.ndarray]:
        """The tokens of a stream of audio of many clips, in batches of similar length: codes [T, K] or units [T]."""
        wavs = [getattr(clip, stream.source) for clip in clips]
        if stream.kind == "semantic":
            return self.semantic.encode_many(wavs, self.codec.sample_rate_hz)
        return self._codes(wavs)

    def _codes(self, wavs: list[np.ndarray]) -> list[np.ndarray]:
        return self.codec.encode_many(wavs, self.codebooks)

    def streams(self, task: Task, clip: Clip) -> dict[str, np.ndarray]:
        """The condition streams of one clip; its `paired_audio` is the speaker prompt of a task that has one.

        Warns of what a tokenizer leaves out.
        """
        streams, notes = {}, Notes()
        for stream in task.conditions:
            if stream.source == DRAWN:
                stream = Stream(DRAWN, stream.kind, "paired_audio")
            tokens = self.encode_clip(stream, clip, notes)
            if stream.source == MASKED:
                assert tokens is not None and clip.audio is not None
                tokens = mask_codes(self._codes([clip.audio])[0], tokens)
            streams[stream.key] = self.encode_batch(stream, [clip])[0] if tokens is None else tokens
        if notes:
            counts = ", ".join(f"{count} {what}" for what, count in notes.items())
            warnings.warn(f"task {task.name}: {counts}", stacklevel=2)
        return streams

    def text_of(self, kind: str, ids: np.ndarray) -> str:
        """What ids say: words, names of sounds, a language, yes or no; units of speech as numbers."""
        if kind == "text":
            return self.words.decode(ids)
        if kind == "class_event":
            return ", ".join(self.labels.decode(ids))
        if kind == "language":
            return " ".join(self.languages.decode(ids))
        if kind == "sv_bool":
            return " ".join("yes" if number else "no" for number in ids)
        return " ".join(str(number) for number in ids)

    def tokenizer_of(self, stream: Stream) -> dict[str, str]:
        """The name of the tokenizer that a stream goes through → its own name and hash; nothing for codes."""
        if stream.kind not in USED or stream.source == MASKED:
            return {}
        name = USED[stream.kind]
        tokenizer = getattr(self, name)
        return {name: f"{tokenizer.name}@{tokenizer.sha256[:16]}"}

    def passport(self, task: Task) -> dict[str, str]:
        """Name and hash of each tokenizer that the streams of `task` go through, the codec apart."""
        names: dict[str, str] = {}
        for stream in task.streams:
            names |= self.tokenizer_of(stream)
        return names


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def language_of(clip: Clip) -> str:
    """espeak-ng's name of the language of a clip's words. Raises ValueError for a language that it does not speak."""
    if clip.language is None:
        return DEFAULT_LANGUAGE
    try:
        return language_name(clip.language)
    except ValueError as error:
        raise ValueError(f"clip {clip.id!r}: {error}") from error


def check_audio(clip: Clip, name: str) -> None:
    """Raises ValueError for audio that has no sample, or one that is not finite."""
    wav = getattr(clip, name)
    if not len(wav) or not np.isfinite(wav).all():
        bad = int(np.count_nonzero(~np.isfinite(wav)))
        raise ValueError(
            f"clip {clip.id!r}: got {len(wav)} samples of {name}, {bad} of them not finite, wanted finite audio"
        )


def clip_of_conditions(task: Task, given: Mapping[str, Any], sample_rate_hz: int) -> Clip:
    """A clip with the conditions of a task that a user gave for generation, waveforms at this rate.

    given: fields of a clip by name; `speaker_prompt`, a waveform; `words_per_minute`, the pace at which espeak tells
    how long each phone lasts, as a share of the whole where the words are those of given `audio`. Raises ValueError for
    conditions that are missing, and for those of another task.
    """
    wanted = {name for stream in task.conditions for name in fields_of(stream)}
    allowed = wanted | ({"language"} if {"text"} & wanted else set())
    if any(stream.kind == "phone" for stream in task.conditions):
        allowed |= {"words_per_minute"}
    missing, surplus = sorted(wanted - set(given)), sorted(set(given) - allowed)
    if missing or surplus:
        raise ValueError(
            f"task {task.name}: missing {missing or 'nothing'}, not of this task {surplus or 'nothing'}; "
            f"it wants {sorted(wanted)}"
        )
    fields = {("paired_audio" if name == DRAWN else name): value for name, value in given.items()}
    pace = fields.pop("words_per_minute", None)
    assert set(fields) <= set(CLIP_FIELDS)
    clip = Clip(id="given", split="heldout", sample_rate_hz=sample_rate_hz, **fields)
    if pace is None or clip.text is None:
        return clip
    phones = paced_phones(clip.text, language_of(clip), pace)
    if clip.audio is None:
        return replace(clip, phones=phones)
    stretch = len(clip.audio) / sample_rate_hz / sum(seconds for _, seconds in phones)
    return replace(clip, phones=tuple((name, stretch * seconds) for name, seconds in phones))
