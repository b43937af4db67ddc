"""Audio files in and out: float32 at one sample rate; conversions are named, and broken files refused."""

import os
import wave
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from uniaudio_jax.files import atomic_write

WAV_HEADER_BYTES = 12
CHUNK_HEADER_BYTES = 8
BYTES_PER_SAMPLE = 2


class AudioFile(NamedTuple):
    """Samples in -1 … 1, and the properties that were converted, such as ("stereo", "48000 Hz")."""

    samples: Float[np.ndarray, " S *C"]
    converted: tuple[str, ...]


class AudioStream:
    """A file as pieces of samples at one rate: mono [S], or [S, 2] of a mono or stereo file when 2 channels are wanted.

    Other numbers of channels are averaged, other rates resampled; `converted` names the conversions. The stream begins
    at `start_seconds` and lasts `seconds`, or until the file's end; `channel` (0, 1, …) takes that channel instead of
    the mean. Opening raises ValueError for a file that is missing, unreadable, truncated or empty, and for a part or a
    channel that it does not have; reading raises it for NaN or infinite samples.
    """

    def __init__(
        self,
        path: str | Path,
        sample_rate_hz: int,
        channels: int = 1,
        *,
        start_seconds: float = 0.0,
        seconds: float | None = None,
        channel: int | None = None,
    ):
        self.path, self.sample_rate_hz, self.channels, self.channel = Path(path), sample_rate_hz, channels, channel
        _check_there(self.path)
        _check_complete(self.path)
        info = self._opened(soundfile.info)
        if not info.frames:
            raise ValueError(f"{path}: got 0 samples, wanted at least one; remove the file or record it again")
        self.rate_hz = info.samplerate
        self.start, self.frames = self._part(info, start_seconds, seconds)
        self.samples = max(1, round(self.frames * sample_rate_hz / info.samplerate))
        names = {1: "mono", 2: "stereo"}
        self.converted = tuple(
            name
            for name, differs in (
                (names.get(info.channels, f"{info.channels} channels"), info.channels != channels),
                (f"{info.samplerate} Hz", info.samplerate != sample_rate_hz),
            )
            if differs
        )

    def _opened(self, opener: Callable[..., Any]) -> Any:
        try:
            return opener(self.path)
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"{self.path}: got a file that cannot be read as audio ({error.error_string.strip()}), "
                "wanted wav, flac or ogg; convert it, for example with `ffmpeg -i IN OUT.wav`"
            ) from error

    def _part(self, info: Any, start_seconds: float, seconds: float | None) -> tuple[int, int]:
        """First frame and number of frames of the wanted part, at the file's own rate."""
        start = round(start_seconds * info.samplerate)
        count = info.frames - start if seconds is None else round(seconds * info.samplerate)
        spare = info.samplerate // 10  # a last segment may be listed with a rounded end
        if not 0 <= start < info.frames or count < 1 or start + count > info.frames + spare:
            wanted = f"{start_seconds:g} s to {'its end' if seconds is None else f'{start_seconds + seconds:g} s'}"
            raise ValueError(
                f"{self.path}: got {info.frames / info.samplerate:.2f} s of audio, wanted {wanted} of it; "
                "correct the segment's times"
            )
        if self.channel is not None and not 0 <= self.channel < info.channels:
            raise ValueError(f"{self.path}: got {info.channels} channel(s), wanted channel {self.channel} (from 0)")
        return start, min(count, info.frames - start)

    def pieces(self, seconds: float = 60.0) -> Iterator[Float[np.ndarray, " S *C"]]:
        """The samples from the beginning, about `seconds` at a time; exactly `self.samples` in all."""
        left = self.samples
        resampler = None
        if self.rate_hz != self.sample_rate_hz:
            resampler = soxr.ResampleStream(self.rate_hz, self.sample_rate_hz, self.channels, dtype="float32")
        with self._opened(soundfile.SoundFile) as file:
            file.seek(self.start)
            stop, most = self.start + self.frames, round(seconds * self.rate_hz)
            while left and len(data := file.read(min(most, stop - file.tell()), dtype="float32", always_2d=True)):
                piece = self._channels_of(data)
                if resampler is not None:
                    piece = resampler.resample_chunk(piece, last=file.tell() == stop)
                piece = piece[:left]
                left -= len(piece)
                if len(piece):
                    yield piece
        if left:  # a resampler may end a little early
            yield np.zeros((left, self.channels)[: 1 + (self.channels > 1)], np.float32)

    def _channels_of(self, data: np.ndarray) -> np.ndarray:
        """Checked samples in the wanted channels."""
        if not np.isfinite(data).all():
            count = int(np.count_nonzero(~np.isfinite(data)))
            raise ValueError(
                f"{self.path}: got {count} NaN or infinite samples, wanted finite ones; write the file again"
            )
        if self.channel is not None:
            data = data[:, self.channel : self.channel + 1]
        if self.channels == 1:
            return np.ascontiguousarray(data.mean(axis=1))
        if data.shape[1] == self.channels:
            return np.ascontiguousarray(data)
        return np.repeat(data.mean(axis=1, keepdims=True), self.channels, axis=1)


def read_audio(path: str | Path, sample_rate_hz: int, channels: int = 1, **part: Any) -> AudioFile:
    """The whole file, or a `part` of it: start_seconds, seconds and channel, as in `AudioStream`."""
    stream = AudioStream(path, sample_rate_hz, channels, **part)
    return AudioFile(np.concatenate(list(stream.pieces())).astype(np.float32, copy=False), stream.converted)


def _check_there(path: Path) -> None:
    if not path.is_file():
        near = sorted(file.name for file in path.parent.glob(f"*{path.suffix}"))[:5] if path.parent.is_dir() else []
        beside = f"beside it: {', '.join(near)}" if near else "there is no such file beside it either"
        raise ValueError(f"{path}: got no file, wanted an audio file; check the path ({beside})")


def _check_complete(path: Path) -> None:
    """Raises ValueError for a RIFF wav file that ends before its data chunk does, unless that has no known length."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(WAV_HEADER_BYTES)
        if header[:4] != b"RIFF" or header[8:] != b"WAVE":
            return
        while len(chunk := file.read(CHUNK_HEADER_BYTES)) == CHUNK_HEADER_BYTES:
            length = int.from_bytes(chunk[4:], "little")
            left = size - file.tell()
            if chunk[:4] == b"data":
                if left < length < 0xFFFFFFFF:
                    raise ValueError(
                        f"{path}: got a truncated file with {left} bytes of samples, wanted the {length} "
                        "that its header promises; copy or record it again"
                    )
                return
            file.seek(length + length % 2, os.SEEK_CUR)
    raise ValueError(f"{path}: got a wav file without a data chunk (truncated?), wanted samples; write the file again")


def write_audio(path: str | Path, samples: Float[np.ndarray, " S *C"], sample_rate_hz: int) -> None:
    """Writes 16-bit PCM wav, atomically; samples beyond ±1 are clipped."""
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or not np.isfinite(samples).all():
        raise ValueError(
            f"{path}: got samples of shape {samples.shape}, wanted finite [S] or [S, C]; nothing was written"
        )
    write_pieces(path, [samples], sample_rate_hz)


def write_pieces(path: str | Path, pieces: Iterable[Float[np.ndarray, " S *C"]], sample_rate_hz: int) -> int:
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
