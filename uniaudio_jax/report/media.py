"""A wav file as the page holds it: MP3, which every browser plays, and its spectrogram as a small picture."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float, UInt8

from uniaudio_jax.audio.files import read_audio
from uniaudio_jax.audio.spectra import hann, mel_filters
from uniaudio_jax.packages import load_package
from uniaudio_jax.paths import Place

RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Those that MP3 has."""
COMPRESSION = 0.3
"""Of libsndfile's scale from 0 to 1, at a variable rate: about 60 kbit/s for speech at 16 kHz."""
WINDOW, BANDS, COLUMNS = 1024, 96, 400
FLOOR_DB = -90.0
COLOURS = np.array([[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]])
"""From silence to full scale: five of matplotlib's magma."""


@dataclass(frozen=True)
class Sound:
    """A waveform and its rate."""

    samples: Float[np.ndarray, " S"]
    rate_hz: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate_hz


def read_sound(path: Place) -> Sound:
    """The audio of a file, in mono at a rate that MP3 has; empty where the file has no sample.

    Raises ValueError for a file that is missing or damaged.
    """
    source = path if isinstance(path, Path) else path.read_bytes()
    try:
        info = soundfile.info(path if isinstance(source, Path) else io.BytesIO(source))
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{path}: got no readable audio ({error.error_string.strip()}), wanted the wav file that evaluation.json "
            "names; evaluate the run again"
        ) from error
    rate_hz = next((rate for rate in RATES_HZ if rate >= info.samplerate), RATES_HZ[-1])
    samples = read_audio(source, rate_hz).samples if info.frames else np.zeros(0, np.float32)
    return Sound(samples, rate_hz)


def mp3_address(sound: Sound) -> str:
    """A data: address of the sound as MP3."""
    file = io.BytesIO()
    soundfile.write(
        file, sound.samples, sound.rate_hz, format="MP3", bitrate_mode="VARIABLE", compression_level=COMPRESSION
    )
    return _address("audio/mpeg", file)


def spectrogram_address(sound: Sound, seconds: float) -> str:
    """A data: address of a picture of the sound over `seconds`, the time after its end being empty."""
    image = load_package("PIL.Image", "the report's spectrograms", "bash launch/install.sh report")
    file = io.BytesIO()
    image.fromarray(_pixels(sound, seconds)).save(file, "WEBP", quality=50, method=6)
    return _address("image/webp", file)


def _pixels(sound: Sound, seconds: float) -> UInt8[np.ndarray, "bands columns 3"]:
    """Mel bands from high to low, as colours from the floor to 0 dB."""
    starts = np.linspace(0, seconds * sound.rate_hz, COLUMNS).astype(int)
    padded = np.pad(sound.samples, (WINDOW // 2, max(0, int(starts[-1]) - len(sound.samples)) + WINDOW))
    frames = padded[starts[:, None] + np.arange(WINDOW)] * (hann(WINDOW) * 4 / WINDOW)
    power = np.abs(np.fft.rfft(frames)) ** 2 @ mel_filters(sound.rate_hz, WINDOW, BANDS)
    level = 1 - 10 * np.log10(np.maximum(power, 1e-9)) / FLOOR_DB
    heights = np.linspace(0, 1, len(COLOURS))
    colours = [np.interp(np.clip(level.T[::-1], 0, 1), heights, channel) for channel in COLOURS.T]
    return np.stack(colours, axis=-1).astype(np.uint8)


def _address(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
