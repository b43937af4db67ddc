"""Audio files in and out: mono float32 at one sample rate, every conversion named, every broken file refused."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

WAV_HEADER_BYTES = 12
CHUNK_HEADER_BYTES = 8


class AudioFile(NamedTuple):
    """Mono samples in -1 … 1, and what was done to get them, such as ("stereo", "48000 Hz")."""

    samples: Float[np.ndarray, "S"]
    converted: tuple[str, ...]


def read_audio(path: str | Path, sample_rate_hz: int = 16000) -> AudioFile:
    """The file as mono at `sample_rate_hz`: channels are averaged, other rates resampled.

    Raises ValueError for a file that is missing, unreadable, truncated, empty, or holds NaN or infinite samples.
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(other.name for other in path.parent.glob(f"*{path.suffix}"))[:5] if path.parent.is_dir() else []
        beside = f"beside it: {', '.join(near)}" if near else "there is no such file beside it either"
        raise ValueError(f"{path}: got no file, wanted an audio file; check the path ({beside})")
    _check_complete(path)
    try:
        data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{path}: got a file that cannot be read as audio ({error.error_string.strip()}), "
            "wanted wav, flac or ogg; convert it, for example with `ffmpeg -i IN OUT.wav`"
        ) from error
    if not len(data):
        raise ValueError(f"{path}: got 0 samples, wanted at least one; remove the file or record it again")
    if not np.isfinite(data).all():
        count = int(np.count_nonzero(~np.isfinite(data)))
        raise ValueError(f"{path}: got {count} NaN or infinite samples, wanted finite ones; write the file again")
    converted = []
    if data.shape[1] > 1:
        converted.append("stereo" if data.shape[1] == 2 else f"{data.shape[1]} channels")
    samples = data.mean(axis=1)
    if rate != sample_rate_hz:
        converted.append(f"{rate} Hz")
        wanted = max(1, round(len(samples) * sample_rate_hz / rate))
        resampled = soxr.resample(samples, rate, sample_rate_hz)[:wanted]
        samples = np.pad(resampled, (0, wanted - len(resampled)))
    return AudioFile(np.ascontiguousarray(samples, np.float32), tuple(converted))


def _check_complete(path: Path) -> None:
    """Refuses a RIFF wav file whose data chunk is longer than the file, unless its length says "unknown" (a stream)."""
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


def write_audio(path: str | Path, samples: Float[np.ndarray, "S"], sample_rate_hz: int) -> None:
    """Writes 16-bit PCM wav; louder samples than ±1 are clipped. The file appears whole or not at all."""
    path = Path(path)
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise ValueError(f"{path}: got samples of shape {samples.shape}, wanted finite mono [S]; nothing was written")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        soundfile.write(partial, np.clip(samples, -1, 1), sample_rate_hz, subtype="PCM_16", format="WAV")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
