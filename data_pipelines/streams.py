"""Fields of a clip to token streams: the one place where the builder and `generate` call the tokenizers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from data_pipelines.tokenizers.phone import PhoneTokenizer
from data_pipelines.tokenizers.text_vectors import MiniLmVectors
from uniaudio_jax.codec.codec import Codec
from uniaudio_jax.tasks import DRAWN, KINDS, Stream, Task


@dataclass
class Tokenizers:
    """The codec and, opened when first needed, the tokenizers of text."""

    codec: Codec

    @cached_property
    def phone(self) -> PhoneTokenizer:
        return PhoneTokenizer()

    @cached_property
    def text_vectors(self) -> MiniLmVectors:
        return MiniLmVectors()

    def stream(self, stream: Stream, value: Any) -> np.ndarray:
        """The tokens of one field: a waveform [S] to codes [T, K], a text to ids [n] or vectors [n, W]."""
        return self.streams(stream, [value])[0]

    def streams(self, stream: Stream, values: list[Any]) -> list[np.ndarray]:
        """The tokens of one field of many clips; audio goes through the codec in batches of like length."""
        if stream.kind == "phone":
            return [self.phone.encode(value) for value in values]
        if stream.kind == "text_t5":
            return [self.text_vectors.encode(value) for value in values]
        if KINDS[stream.kind].form == "codes":
            return self.codec.encode_many(values)
        raise ValueError(f"stream {stream.key!r}: no tokenizer makes {stream.kind!r} tokens from audio or text here; "
                         "give the tokens themselves (`run.generate_streams`)")  # fmt: skip

    def passport(self, task: Task) -> dict[str, str]:
        """Name and hash of each tokenizer that the streams of `task` go through, the codec apart."""
        used = {"phone": "phone", "text_t5": "text_vectors"}
        names = {used[stream.kind] for stream in task.streams if stream.kind in used}
        return {name: f"{getattr(self, name).name}@{getattr(self, name).sha256[:16]}" for name in sorted(names)}


def conditions_from_fields(
    tokenizers: Tokenizers, task: Task, fields: Mapping[str, Any], prompt_frames: int
) -> dict[str, np.ndarray]:
    """The condition streams of `task` from its fields (text, waveforms), for generation.

    Raises ValueError when a field is missing or not one of the task's.
    """
    wanted = {stream.source for stream in task.conditions}
    missing, surplus = sorted(wanted - set(fields)), sorted(set(fields) - wanted)
    if missing or surplus:
        raise ValueError(f"task {task.name}: missing {missing or 'nothing'}, not of this task {surplus or 'nothing'}; "
                         f"it wants {sorted(wanted)}")  # fmt: skip
    streams = {stream.key: tokenizers.stream(stream, fields[stream.source]) for stream in task.conditions}
    return {key: value[:prompt_frames] if key == DRAWN else value for key, value in streams.items()}
