"""Audio files that are damaged, cut off or written into a pipe, for the tests of those who read them."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

SAMPLES = 130_003
STATED_FRAMES = slice(21, 26)
"""Bytes of a FLAC file; the number of samples is in the lower half of the first and in the others."""


def tone(samples: int = SAMPLES) -> np.ndarray:
    """Noise around a tone at 16 kHz, with the values of 16 bits."""
    noise = 0.02 * np.random.default_rng(0).standard_normal(samples)
    return np.round((0.3 * np.sin(np.arange(samples) / 7) + noise) * 32768) / 32768


def audio_file(path: Path, samples: int = SAMPLES, **form: Any) -> Path:
    """A whole file of `tone`, in the format of its suffix unless `form` says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(samples), 16000, **form)
    return path


def cut(path: Path, share: float = 0.61) -> Path:
    """The file without its end."""
    path.write_bytes(path.read_bytes()[: round(share * path.stat().st_size)])
    return path


def with_noise(path: Path) -> Path:
    """The file with 2 kB of noise in its middle."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2048] = np.random.default_rng(1).bytes(2048)
    path.write_bytes(data)
    return path


def patched(path: Path, start: int, patch: bytes) -> Path:
    """The file with other bytes from `start` on."""
    data = bytearray(path.read_bytes())
    data[start : start + len(patch)] = patch
    path.write_bytes(data)
    return path


def streamed_flac(path: Path, samples: int = SAMPLES) -> Path:
    """A FLAC file whose header states no number of samples."""
    audio_file(path, samples)
    return patched(path, STATED_FRAMES.start, bytes([path.read_bytes()[STATED_FRAMES.start] & 0xF0, 0, 0, 0, 0]))


def piped_wav(path: Path, stated: int, whole: int, samples: int = SAMPLES) -> Path:
    """A wav file that states these lengths of its samples and of the whole."""
    return patched(patched(audio_file(path, samples), 4, whole.to_bytes(4, "little")), 40, stated.to_bytes(4, "little"))
