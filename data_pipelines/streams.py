"""Clips to token streams and back: the one place where the builder and `generate` call the tokenizers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.corpora import CLIP_FIELDS, Clip
from data_pipelines.encoders.minilm import MiniLmVectors
from data_pipelines.encoders.t5 import T5Vectors
from data_pipelines.tokenizers.labels import LabelTokenizer
from data_pipelines.tokenizers.languages import LanguageTokenizer
from data_pipelines.tokenizers.lexicon import LexiconPhones, with_durations
from data_pipelines.tokenizers.midi import MidiTokenizer
from data_pipelines.tokenizers.phone import PhoneTokenizer
from data_pipelines.tokenizers.semantic import SemanticTokenizer
from data_pipelines.tokenizers.sung_phone import SungPhoneTokenizer
from data_pipelines.tokenizers.words import WordPieces
from uniaudio_jax.codec.codec import Codec
from uniaudio_jax.config import TokenizerPaths
from uniaudio_jax.sequence import MASK_CODE
from uniaudio_jax.tasks import DRAWN, Stream, Task

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
NEEDED = {"masked_seconds": ("audio", "masked_seconds")}
"""Source of a stream → the fields of a clip that it is made from, where that is not the field of its name."""


def fields_of(stream: Stream) -> tuple[str, ...]:
    """The fields of a clip that a stream is made from."""
    return NEEDED.get(stream.source, (stream.source,))


def recorded(task: Task) -> list[Stream]:
    """The streams of `task` that stand in its records; speaker prompts are drawn when rows are made."""
    return [stream for stream in task.streams if stream.source != DRAWN]


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
        return MidiTokenizer()

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

    def encode_clip(self, stream: Stream, clip: Clip) -> np.ndarray | None:
        """The tokens of one stream of one clip, or None where only `encode_batch` makes them.

        Raises ValueError when the clip has not the field, or the tokenizer refuses it.
        """
        for name in fields_of(stream):
            if getattr(clip, name) is None:
                raise ValueError(
                    f"clip {clip.id!r}: no {name}, which stream {stream.key!r} is made from; add it to the corpus"
                )
        make = self._encoders.get(stream.kind)
        if make is None:
            check_audio(clip, "audio" if stream.source == "masked_seconds" else stream.source)
            return None
        return make(clip, getattr(clip, stream.source))

    @cached_property
    def _encoders(self) -> Mapping[str, Callable[[Clip, Any], np.ndarray]]:
        rate = self.codec.config.frame_rate_hz
        return {
            "phone": lambda clip, text: (
                with_durations(self.phone, clip.phones, rate)
                if clip.phones is not None
                else self.phone.encode(text, clip.language or DEFAULT_LANGUAGE)
            ),
            "sing_phone": lambda clip, text: self.sung_phone.encode(text, clip.language or DEFAULT_LANGUAGE),
            "sing_midi": lambda clip, midi: self.midi.encode(midi),
            "text_t5": lambda clip, text: self.text_vectors.encode(text),
            "text": lambda clip, text: self.words.encode(text),
            "class_event": lambda clip, labels: self.labels.encode(labels),
            "sv_bool": lambda clip, same: np.array([int(same)], np.int16),
            "language": lambda clip, language: self.languages.encode(language),
        }

    def encode_batch(self, stream: Stream, clips: Sequence[Clip]) -> list[np.ndarray]:
        """The tokens of one stream of audio of many clips, in batches of like length: codes [T, K] or units [T]."""
        name = "audio" if stream.source == "masked_seconds" else stream.source
        wavs = [getattr(clip, name) for clip in clips]
        if stream.kind == "semantic":
            return self.semantic.encode_many(wavs)
        codes = self.codec.encode_many(wavs, self.codebooks)
        if stream.source == "masked_seconds":
            codes = [self._masked(one, clip) for one, clip in zip(codes, clips, strict=True)]
        return codes

    def _masked(self, codes: np.ndarray, clip: Clip) -> np.ndarray:
        """`codes` with the clip's masked span taken out."""
        assert clip.masked_seconds is not None
        start, stop = (round(seconds * self.codec.config.frame_rate_hz) for seconds in clip.masked_seconds)
        if not 0 <= start < stop <= len(codes):
            raise ValueError(
                f"clip {clip.id!r}: got masked_seconds {clip.masked_seconds}, wanted a span within its "
                f"{len(codes) / self.codec.config.frame_rate_hz:.2f} s"
            )
        masked = codes.copy()
        masked[start:stop] = MASK_CODE
        return masked

    def streams(self, task: Task, clip: Clip) -> dict[str, np.ndarray]:
        """The condition streams of one clip, a speaker prompt included where the clip carries one as `paired_audio`."""
        found = {}
        for stream in task.conditions:
            if stream.source == DRAWN:
                stream = Stream(DRAWN, stream.kind, "paired_audio")
            light = self.encode_clip(stream, clip)
            found[stream.key] = self.encode_batch(stream, [clip])[0] if light is None else light
        return found

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

    def passport(self, task: Task) -> dict[str, str]:
        """Name and hash of each tokenizer that the streams of `task` go through, the codec apart."""
        names = {USED[stream.kind] for stream in task.streams if stream.kind in USED}
        return {name: f"{getattr(self, name).name}@{getattr(self, name).sha256[:16]}" for name in sorted(names)}


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def check_audio(clip: Clip, name: str) -> None:
    """Raises ValueError for audio that has no sample, or one that is not finite."""
    wav = getattr(clip, name)
    if not len(wav) or not np.isfinite(wav).all():
        bad = int(np.count_nonzero(~np.isfinite(wav)))
        raise ValueError(
            f"clip {clip.id!r}: got {len(wav)} samples of {name}, {bad} of them not finite, wanted finite audio"
        )


def clip_of_conditions(task: Task, given: Mapping[str, Any]) -> Clip:
    """A clip of what a user gave for generation: the fields of the task's conditions by name, `speaker_prompt` a
    waveform. Raises ValueError for what is missing, and for what is not the task's.
    """
    wanted = {name for stream in task.conditions for name in fields_of(stream)}
    allowed = wanted | ({"language"} if {"text"} & wanted else set())
    missing, surplus = sorted(wanted - set(given)), sorted(set(given) - allowed)
    if missing or surplus:
        raise ValueError(
            f"task {task.name}: missing {missing or 'nothing'}, not of this task {surplus or 'nothing'}; "
            f"it wants {sorted(wanted)}"
        )
    fields = {("paired_audio" if name == DRAWN else name): value for name, value in given.items()}
    assert set(fields) <= set(CLIP_FIELDS)
    return Clip(id="given", split="heldout", **fields)
