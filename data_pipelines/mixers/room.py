"""A clip as it sounds in a room."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import signal

from data_pipelines.corpora import Clip
from data_pipelines.mixers.noise import rms, safe_gain, scaled
from data_pipelines.mixers.pool import MixerOptions, Pool, audible
from uniaudio_jax.audio.files import read_audio

ROOM_METRES = ((3.0, 3.0, 2.4), (10.0, 8.0, 4.0))
SOURCE_PLACE = ((0.15, 0.15, 0.3), (0.45, 0.85, 0.7))  # shares of the room, well away from walls
MICROPHONE_PLACE = ((0.55, 0.15, 0.3), (0.85, 0.85, 0.7))  # and from the source
MOST_ABSORPTION = 0.5  # Sabine's formula promises too long a decay above it
MOST_REFLECTIONS = 35  # 58 thousand images: some 20 ms of work, and a decay within a factor of two of the wanted one
HIGHPASS_HZ = 50.0  # images all add with the same sign, which no microphone hears below the lowest notes
ONSET_SECONDS = 0.001


def reverberate(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` with reverberant_audio: its audio in a room, as loud, with the direct sound where the audio has it.

    The room is simulated, or one of the recorded responses in `rooms_from`. Both signals are scaled down together when
    they would clip. Raises ValueError for a silent clip and for a response that cannot be read.
    """
    dry = audible(clip).astype(np.float64)
    if options.rooms_from is None:
        response, direct = simulated_response(rng, rng.uniform(*options.reverberation_seconds), clip.sample_rate_hz), 0
    else:
        paths = options.room_files[clip.split]
        response, direct = recorded_response(paths[rng.integers(len(paths))], clip.sample_rate_hz)
    wet = signal.oaconvolve(dry, response)[direct : direct + len(dry)]
    wet *= rms(dry) / rms(wet)
    gain = safe_gain(wet)
    return replace(scaled(clip, gain), reverberant_audio=(gain * wet).astype(np.float32))


def simulated_response(rng: np.random.Generator, reverberation_seconds: float, rate: int) -> Float[np.ndarray, " S"]:
    """The response, at `rate` hertz, of a random box-shaped room that falls by 60 dB in about `reverberation_seconds`.

    Its first sample is the direct sound. Size, source and microphone are drawn; the walls absorb as Sabine's formula
    says. Image source method (Allen and Berkley, 1979); each image is rounded to a sample, so that the response is the
    same for any number of threads. Raises ValueError where pyroomacoustics is not installed.
    """
    try:
        import pyroomacoustics  # an optional extra
    except ImportError as error:
        raise ValueError(
            "reverberate: got no package pyroomacoustics, wanted it to simulate rooms; run "
            "`pip install pyroomacoustics`, or name a folder of recorded responses as rooms_from"
        ) from error
    size = _room_size(rng, reverberation_seconds)
    absorption, reflections = pyroomacoustics.inverse_sabine(reverberation_seconds, size)
    room = pyroomacoustics.ShoeBox(
        size, fs=rate, materials=pyroomacoustics.Material(absorption), max_order=min(reflections, MOST_REFLECTIONS)
    )
    microphone = size * rng.uniform(*MICROPHONE_PLACE)
    room.add_source(size * rng.uniform(*SOURCE_PLACE))
    room.add_microphone(microphone)
    room.image_source_model()
    metres = np.linalg.norm(room.sources[0].images - microphone[:, None], axis=0)
    delays = np.round((metres - metres.min()) / room.c * rate).astype(int)
    response = np.bincount(delays, weights=room.sources[0].damping[0] / metres)
    highpass = signal.butter(2, HIGHPASS_HZ, "highpass", fs=rate, output="sos")
    return np.asarray(signal.sosfilt(highpass, response))


def _room_size(rng: np.random.Generator, reverberation_seconds: float) -> Float[np.ndarray, " 3"]:
    """Length, width and height in metres, shrunk where the walls of a larger room would have to absorb too much."""
    size = rng.uniform(*ROOM_METRES)
    volume_per_wall = 1 / (2 * np.sum(1 / size))
    absorption = 24 * np.log(10) * volume_per_wall / (343 * reverberation_seconds)
    return size * min(1, MOST_ABSORPTION / absorption)


def recorded_response(path: Path, rate: int) -> tuple[Float[np.ndarray, " S"], int]:
    """An impulse response at `rate` hertz, first channel, and the sample of its direct sound.

    The direct sound is the first peak of at least half the height of the highest; a little of what is before it is
    kept, for it rises. Raises ValueError for a file that cannot be read or is silent.
    """
    response = read_audio(path, rate, channel=0).samples.astype(np.float64)
    loud = np.abs(response)
    if not loud.any():
        raise ValueError(f"{path}: got silence, wanted an impulse response; remove the file from rooms_from")
    onset_samples = round(ONSET_SECONDS * rate)
    onset = int(np.argmax(loud >= loud.max() / 2))
    direct = onset + int(np.argmax(loud[onset : onset + onset_samples]))
    begin = max(0, direct - onset_samples)
    return response[begin:], direct - begin
