"""A codec on overlapping segments, such as EnCodec's for 48 kHz stereo (arXiv 2210.13438, as its package does it).

Each segment is divided by its volume and coded on its own; decoded segments are faded into each other by triangles.
Segments bound the memory, but their frames overlap, so a language model cannot use them as one stream of frames.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from uniaudio_jax.codec.codec import Codec, open_codec
from uniaudio_jax.codec.config import SegmentConfig
from uniaudio_jax.codec.groups import groups

QUIETEST = 1e-8
SEGMENTS_AT_ONCE = 8


class Segment(NamedTuple):
    """Codes [T, Q] of one segment, and the volume that its samples were divided by."""

    codes: Int[np.ndarray, "T Q"]
    scale: float


class SegmentedCodec:
    """Encodes float waveforms [S, C] (or mono [S]) to segments, and decodes them."""

    def __init__(self, codec: Codec):
        if codec.config.segment is None:
            raise ValueError(f"codec {codec.name}: got a codec without segments, wanted one with them; use it directly")
        self.codec, self.config = codec, codec.config.segment

    def encode(self, wav: Float[np.ndarray, " S *C"], codebooks: int | None = None) -> list[Segment]:
        """One segment for every stride of samples; the last ones may be shorter."""
        return list(self.encode_stream([wav], codebooks))

    def encode_stream(
        self, pieces: Iterable[Float[np.ndarray, " S *C"]], codebooks: int | None = None
    ) -> Iterator[Segment]:
        """The segments of a waveform that comes in pieces of any length."""
        for group in groups(self._cut(pieces), lambda _: 1, SEGMENTS_AT_ONCE):
            scales = [_volume(piece) for piece in group]
            scaled = [(piece / scale).astype(np.float32) for piece, scale in zip(group, scales, strict=True)]
            for codes, scale in zip(self.codec.encode_many(scaled, codebooks), scales, strict=True):
                yield Segment(codes, float(scale))

    def _cut(self, pieces: Iterable[Float[np.ndarray, " S *C"]]) -> Iterator[Float[np.ndarray, " S *C"]]:
        held: np.ndarray | None = None
        for piece in pieces:
            held = piece if held is None else np.concatenate([held, piece])
            while len(held) >= self.config.samples:
                yield held[: self.config.samples]
                held = held[self.config.stride :]
        while held is not None and len(held):
            yield held
            held = held[self.config.stride :]

    def decode(self, segments: Sequence[Segment], samples: int | None = None) -> Float[np.ndarray, " S *C"]:
        """The waveform, or its first `samples`; a little longer than what was encoded when `samples` is not given."""
        wav = np.concatenate(list(self.decode_stream(segments)))
        return wav if samples is None else wav[:samples]

    def decode_stream(self, segments: Iterable[Segment]) -> Iterator[Float[np.ndarray, " S *C"]]:
        """The waveform piece by piece, as segments arrive."""
        fade = _Fade(self.config)
        for group in groups(segments, lambda _: 1, SEGMENTS_AT_ONCE):
            wavs = self.codec.decode_many([segment.codes for segment in group])
            for wav, segment in zip(wavs, group, strict=True):
                yield fade.push(wav * np.float32(segment.scale))
        yield fade.rest()


class _Fade:
    """Overlap-add with triangles, which returns samples as soon as no later segment overlaps them."""

    def __init__(self, config: SegmentConfig):
        self.stride = config.stride
        self.triangle = self.sum = self.weight = np.zeros(0, np.float32)

    def push(self, wav: Float[np.ndarray, " S *C"]) -> Float[np.ndarray, " S *C"]:
        if not len(self.triangle):  # as long as the first segment; a shorter last one uses the beginning of it
            ramp = np.linspace(0, 1, len(wav) + 2, dtype=np.float32)[1:-1]
            self.triangle, self.sum = 0.5 - np.abs(ramp - 0.5), wav[:0]
        triangle = self.triangle[: len(wav)]
        shaped = triangle.reshape(-1, *([1] * (wav.ndim - 1)))
        self.sum, self.weight = _add(self.sum, wav * shaped), _add(self.weight, triangle)
        return self._take(self.stride)

    def rest(self) -> Float[np.ndarray, " S *C"]:
        return self._take(len(self.sum))

    def _take(self, count: int) -> Float[np.ndarray, " S *C"]:
        weight = self.weight[:count].reshape(-1, *([1] * (self.sum.ndim - 1)))
        out = self.sum[:count] / weight
        self.sum, self.weight = self.sum[count:], self.weight[count:]
        return out


def _add(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The sum of two arrays that begin together, as long as the longer one."""
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total


def _volume(piece: np.ndarray) -> np.float32:
    """Root mean square of the mean over channels."""
    mono = piece if piece.ndim == 1 else piece.mean(axis=1)
    return np.float32(QUIETEST + np.sqrt(np.mean(np.square(mono, dtype=np.float32))))


def load_segmented(name_or_path: str | Path) -> SegmentedCodec:
    """The codec in that folder, which must be one with segments."""
    return SegmentedCodec(open_codec(name_or_path))
