"""A clip as it sounds in a room."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import signal

from data_pipelines.corpora import Clip
from data_pipelines.mixers.options import MixerOptions
from data_pipelines.mixers.pool import Pool
from data_pipelines.mixers.signals import audible, safe_gain, scaled
from data_pipelines.synthetic.levels import rms
from uniaudio_jax.audio.files import read_audio
from uniaudio_jax.packages import load_package

ROOM_METRES = ((3.0, 3.0, 2.4), (10.0, 8.0, 4.0))
SOURCE_SHARES = ((0.15, 0.15, 0.3), (0.45, 0.85, 0.7))  # of the room's size: well away from the walls
MICROPHONE_SHARES = ((0.55, 0.15, 0.3), (0.85, 0.85, 0.7))  # and well away from the source
HIGHEST_ABSORPTION = 0.5  # above it, decays are shorter than Sabine's formula says
MOST_REFLECTIONS = 35  # 58 thousand images: some 20 ms of work, and a decay within a factor of two of the wanted one
HIGHPASS_HZ = 50.0  # all images have the same sign, so they add up at low frequencies as in no real room
ONSET_SECONDS = 0.001


def reverberate(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` with reverberant_audio: its audio in a room, as loud, with the direct sound at the time of the audio.

    The room is simulated, or is one of the recorded responses in `rooms_from`. Raises ValueError for a silent clip and
    for a response that cannot be read.
    """
    dry, rate = audible(clip).astype(np.float64), clip.sample_rate_hz
    if options.rooms_from is None:
        response, direct = simulated_response(rng, rng.uniform(*options.reverberation_seconds), rate), 0
    else:
        paths = options.room_files[clip.split]
        response, direct = recorded_response(paths[rng.integers(len(paths))], rate)
    wet = signal.oaconvolve(dry, response)[direct : direct + len(dry)]
    wet *= rms(dry) / rms(wet)
    gain = safe_gain(wet)
    return replace(scaled(clip, gain), reverberant_audio=(gain * wet).astype(np.float32))


def simulated_response(
    rng: np.random.Generator, reverberation_seconds: float, sample_rate_hz: int
) -> Float[np.ndarray, " S"]:
    """The impulse response of a random box-shaped room in which sound falls by 60 dB in about `reverberation_seconds`.

    Its first sample is the direct sound. Size, source and microphone are random; the walls absorb as Sabine's formula
    says. Image source method (Allen and Berkley, 1979), with each image rounded to a sample, so that the response is
    the same for any number of threads. Raises ValueError where pyroomacoustics is not installed.
    """
    without = "reverberate without a folder of recorded responses (rooms_from)"
    pyroomacoustics = load_package("pyroomacoustics", without, "pip install pyroomacoustics")
    size = _room_size(rng, reverberation_seconds)
    absorption, reflections = pyroomacoustics.inverse_sabine(reverberation_seconds, size)
    room = pyroomacoustics.ShoeBox(
        size,
        fs=sample_rate_hz,
        materials=pyroomacoustics.Material(absorption),
        max_order=min(reflections, MOST_REFLECTIONS),
    )
    microphone = size * rng.uniform(*MICROPHONE_SHARES)
    room.add_source(size * rng.uniform(*SOURCE_SHARES))
    room.add_microphone(microphone)
    room.image_source_model()
    metres = np.linalg.norm(room.sources[0].images - microphone[:, None], axis=0)
    delays = np.round((metres - metres.min()) / room.c * sample_rate_hz).astype(int)
    response = np.bincount(delays, weights=room.sources[0].damping[0] / metres)
    highpass = signal.butter(2, HIGHPASS_HZ, "highpass", fs=sample_rate_hz, output="sos")
    return np.asarray(signal.sosfilt(highpass, response))


def _room_size(rng: np.random.Generator, reverberation_seconds: float) -> Float[np.ndarray, " 3"]:
    """Length, width and height in metres, smaller where the walls of a large room would have to absorb too much."""
    size = rng.uniform(*ROOM_METRES)
    volume_per_wall = 1 / (2 * np.sum(1 / size))
    absorption = 24 * np.log(10) * volume_per_wall / (343 * reverberation_seconds)
    return size * min(1, HIGHEST_ABSORPTION / absorption)


def recorded_response(path: Path, sample_rate_hz: int) -> tuple[Float[np.ndarray, " S"], int]:
    """The first channel of a recorded impulse response, and which of its samples is the direct sound.

    The direct sound is the first peak of at least half the height of the highest; the millisecond before it is kept,
    in which it rises. Raises ValueError for a file that cannot be read or is silent.
    """
    response = read_audio(path, sample_rate_hz, channel=0).samples.astype(np.float64)
    loudness = np.abs(response)
    if not loudness.any():
        raise ValueError(f"{path}: got silence, wanted an impulse response; remove the file from rooms_from")
    rise = round(ONSET_SECONDS * sample_rate_hz)
    onset = int(np.argmax(loudness >= loudness.max() / 2))
    direct = onset + int(np.argmax(loudness[onset : onset + rise]))
    begin = max(0, direct - rise)
    return response[begin:], direct - begin
