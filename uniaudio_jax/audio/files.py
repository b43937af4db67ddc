"""Audio files in and out: float32 at one sample rate; conversions are named, and broken files refused."""

import functools
import io
import mmap
import os
import wave
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from uniaudio_jax.audio.headers import Header, read_header
from uniaudio_jax.files import atomic_write
from uniaudio_jax.paths import Place

BYTES_PER_SAMPLE = 2
MOST_FRAMES = 2**62
"""libsndfile tells more for a file of unknown length."""
COUNTED_AT_ONCE = 1 << 20


class AudioFile(NamedTuple):
    """Samples in -1 … 1, and the properties that were converted, such as ("stereo", "48000 Hz")."""

    samples: Float[np.ndarray, " S *C"]
    converted: tuple[str, ...]


class _Forward(soundfile.SoundFile):
    """A file that is read from one sample to the next.

    A seekable `SoundFile` seeks to where each read ended. A FLAC file of unknown length cannot, and a damaged Ogg file
    gives the wrong samples then.
    """

    def seekable(self) -> bool:
        return False


class AudioStream:
    """A file as pieces of samples at one rate: mono [S], or [S, 2] of a mono or stereo file when 2 channels are wanted.

    `source` is a path, or the bytes of a file. Other numbers of channels are averaged, other rates resampled;
    `converted` names the conversions. The stream begins at `start_seconds` and lasts `seconds`, or until the end;
    `channel` (0, 1, …) takes that channel instead of the mean. A file that was written into a pipe and states no length
    is decoded once to count its samples.

    Opening raises ValueError for a file that is missing, unreadable, truncated or empty, and for a part or a channel
    that it does not have; reading raises it for a damaged part, a part that ends early, and NaN or infinite samples.
    """

    def __init__(
        self,
        source: str | Path | bytes,
        sample_rate_hz: int,
        channels: int = 1,
        *,
        start_seconds: float = 0.0,
        seconds: float | None = None,
        channel: int | None = None,
    ):
        self.source, self.where = source, "the stored file" if isinstance(source, bytes) else str(source)
        self.sample_rate_hz, self.channels, self.channel = sample_rate_hz, channels, channel
        self.header = _header_of(source, self.where)
        with self._open() as file:
            self.rate_hz, self.file_channels = file.samplerate, file.channels
            self.total = file.frames if 0 < file.frames < MOST_FRAMES else 0
            self.total = self.total or self._count(file)
        if not self.total:
            raise ValueError(f"{self.where}: got 0 samples, wanted at least one; remove the file or record it again")
        if self.header.frames > self.total:
            self._refuse(self.total, self.header.frames)
        self.start, self.frames = self._part(start_seconds, seconds)
        self.samples = max(1, round(self.frames * sample_rate_hz / self.rate_hz))
        names = {1: "mono", 2: "stereo"}
        self.converted = tuple(
            name
            for name, differs in (
                (names.get(self.file_channels, f"{self.file_channels} channels"), self.file_channels != channels),
                (f"{self.rate_hz} Hz", self.rate_hz != sample_rate_hz),
            )
            if differs
        )

    def _open(self) -> _Forward:
        source: Any = io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source
        if self.header.patch is not None:
            source = _patched(self.source, *self.header.patch)
        try:
            return _Forward(source)
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"{self.where}: got a file that cannot be read as audio ({error.error_string.strip()}), "
                "wanted wav, flac, ogg or mp3; convert it, for example with `ffmpeg -i IN OUT.wav`"
            ) from error

    def _read(self, file: _Forward, count: int) -> Float[np.ndarray, "S C"]:
        try:
            return file.read(count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            self._refuse(file.tell(), self.total, error)

    def _refuse(self, samples: int, wanted: int, error: soundfile.LibsndfileError | None = None) -> NoReturn:
        """Raises ValueError for a file of which only so many samples can be had."""
        raise ValueError(
            f"{self.where}: got {samples} of {wanted or 'an unknown number of'} samples"
            f"{f' and then {error.error_string.strip()!r}' if error else ''}, wanted all of them; the file is damaged "
            "or was cut off, so copy or record it again"
        ) from error

    def _count(self, file: _Forward) -> int:
        """The samples of a file that does not state their number."""
        count = 0
        while samples := len(self._read(file, COUNTED_AT_ONCE)):
            count += samples
        return count

    def _part(self, start_seconds: float, seconds: float | None) -> tuple[int, int]:
        """First frame and number of frames of the wanted part, at the file's own rate."""
        start = round(start_seconds * self.rate_hz)
        count = self.total - start if seconds is None else round(seconds * self.rate_hz)
        spare = self.rate_hz // 10  # a last segment may be listed with a rounded end
        if not 0 <= start < self.total or count < 1 or start + count > self.total + spare:
            wanted = f"{start_seconds:g} s to {'its end' if seconds is None else f'{start_seconds + seconds:g} s'}"
            raise ValueError(
                f"{self.where}: got {self.total / self.rate_hz:.2f} s of audio, wanted {wanted} of it; "
                "correct the segment's times"
            )
        if self.channel is not None and not 0 <= self.channel < self.file_channels:
            raise ValueError(
                f"{self.where}: got {self.file_channels} channel(s), wanted channel {self.channel} (from 0)"
            )
        return start, min(count, self.total - start)

    def pieces(self, seconds: float = 60.0) -> Iterator[Float[np.ndarray, " S *C"]]:
        """The samples from the beginning, about `seconds` at a time; exactly `self.samples` in all."""
        left = self.samples
        resampler = None
        if self.rate_hz != self.sample_rate_hz:
            resampler = soxr.ResampleStream(self.rate_hz, self.sample_rate_hz, self.channels, dtype="float32")
        for data, is_last in self._decoded(round(seconds * self.rate_hz)):
            piece = self._channels_of(data)
            if resampler is not None:
                piece = resampler.resample_chunk(piece, last=is_last)
            piece = piece[:left]
            left -= len(piece)
            if len(piece):
                yield piece
        assert left <= 1, left
        if left:  # a resampler rounds the number of samples down
            yield np.zeros((1, self.channels)[: 1 + (self.channels > 1)], np.float32)

    def _decoded(self, most: int) -> Iterator[tuple[Float[np.ndarray, "S C"], bool]]:
        """(samples of the wanted part as the file has them, at most so many, whether they are the last) in order.

        Raises ValueError where the file ends before the part does.
        """
        with self._open() as file:
            try:
                file.seek(self.start)
            except soundfile.LibsndfileError as error:
                self._refuse(self.start, self.total, error)
            left = self.frames
            while left:
                data = self._read(file, min(most, left))
                left -= len(data)
                if not len(data):
                    self._refuse(self.start + self.frames - left, self.total)
                yield data, not left

    def _channels_of(self, data: np.ndarray) -> np.ndarray:
        """Checked samples in the wanted channels."""
        if not np.isfinite(data).all():
            count = int(np.count_nonzero(~np.isfinite(data)))
            raise ValueError(
                f"{self.where}: got {count} NaN or infinite samples, wanted finite ones; write the file again"
            )
        if self.channel is not None:
            data = data[:, self.channel : self.channel + 1]
        if self.channels == 1:
            return np.ascontiguousarray(data.mean(axis=1))
        if data.shape[1] == self.channels:
            return np.ascontiguousarray(data)
        return np.repeat(data.mean(axis=1, keepdims=True), self.channels, axis=1)


def read_audio(source: str | Path | bytes, sample_rate_hz: int, channels: int = 1, **part: Any) -> AudioFile:
    """The whole file, or a `part` of it: start_seconds, seconds and channel, as in `AudioStream`."""
    stream = AudioStream(source, sample_rate_hz, channels, **part)
    return AudioFile(np.concatenate(list(stream.pieces())).astype(np.float32, copy=False), stream.converted)


def _header_of(source: str | Path | bytes, where: str) -> Header:
    """What the header says. Raises ValueError for a file that is missing or does not hold what its header promises."""
    if isinstance(source, bytes):
        return read_header(io.BytesIO(source), len(source), where)
    _check_there(Path(source))
    stat = os.stat(source)
    return _header_in(str(source), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _header_in(path: str, size: int, modified: int) -> Header:
    """The header of a file, looked at once for all segments of the file."""
    with open(path, "rb") as file:
        return read_header(file, size, path)


def _patched(source: str | Path | bytes, start: int, patch: bytes) -> io.BytesIO | mmap.mmap:
    """The file with other bytes from `start` on; that on disk stays as it is."""
    if isinstance(source, bytes):
        return io.BytesIO(source[:start] + patch + source[start + len(patch) :])
    with open(source, "rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    view[start : start + len(patch)] = patch
    return view


def _check_there(path: Path) -> None:
    if not os.path.isfile(path):  # which, unlike the method of a path, is false for a name that is too long
        folder = path.parent
        near = sorted(file.name for file in folder.glob(f"*{path.suffix}"))[:5] if os.path.isdir(folder) else []
        beside = f"beside it: {', '.join(near)}" if near else "there is no such file beside it either"
        raise ValueError(f"{path}: got {_kind_of(path)}, wanted an audio file; check the path ({beside})")


def _kind_of(path: Path) -> str:
    """What is at a path where no file can be read."""
    kinds = {os.path.isdir: "a folder", os.path.exists: "a pipe or device", os.path.islink: "a link to no file"}
    return next((kind for is_it, kind in kinds.items() if is_it(path)), "no file")


def write_audio(path: str | Place, samples: Float[np.ndarray, " S *C"], sample_rate_hz: int) -> None:
    """Writes 16-bit PCM wav, atomically; samples beyond ±1 are clipped."""
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or not np.isfinite(samples).all():
        raise ValueError(
            f"{path}: got samples of shape {samples.shape}, wanted finite [S] or [S, C]; nothing was written"
        )
    write_pieces(path, [samples], sample_rate_hz)


def write_pieces(path: str | Place, pieces: Iterable[Float[np.ndarray, " S *C"]], sample_rate_hz: int) -> int:
    """As `write_audio`, from a stream; returns the number of samples."""
    with atomic_write(path) as partial:
        return write_growing(partial, pieces, sample_rate_hz)


def write_growing(path: str | Path, pieces: Iterable[Float[np.ndarray, " S *C"]], sample_rate_hz: int) -> int:
    """Writes 16-bit PCM wav piece by piece; after each the file can be played. Returns the number of samples."""
    count = 0
    with wave.open(str(path), "wb") as file:
        file.setparams((1, BYTES_PER_SAMPLE, sample_rate_hz, 0, "NONE", ""))
        for piece in pieces:
            if not count:
                file.setnchannels(1 if piece.ndim == 1 else piece.shape[1])
            whole = np.round(np.clip(piece, -1, 1) * 32767)
            file.writeframes(whole.astype("<i2").tobytes())
            count += len(piece)
        if not count:
            file.writeframes(b"")
    return count
