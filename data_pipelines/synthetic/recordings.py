"""Recorded sounds of Sonic Pi's sample collection (mostly CC0), where Debian's package sonic-pi-samples is installed.

A file's name says what it is (`drum_heavy_kick.flac`), and a hash of the name says whether it is held out.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.corpora import SAMPLE_RATE_HZ, Split, split_of
from data_pipelines.synthetic.levels import loudness
from data_pipelines.synthetic.sounds import Sound
from data_pipelines.synthetic.texts import pick, read_data
from uniaudio_jax.audio.files import read_audio

FOLDER = Path("/usr/share/sonic-pi/samples")
INSTALL = "apt-get install sonic-pi-samples"
HELDOUT_EVERY = 10
CLIP_SECONDS, PAUSE_SECONDS = (1.5, 5.0), (0.3, 0.9)
RMS = (0.07, 0.12)
WORDS = read_data("recordings")
NAMES: dict[str, list[str]] = WORDS["names"]
"""A file's name → what a caption calls the thing, and the label, where the first word of the name does not say it."""
THINGS: dict[str, list[str]] = WORDS["things"]
"""The same by the first word of the name."""


def find_recordings() -> tuple[str, ...]:
    """Names of the recordings that can be described; none where the package is missing."""
    names = sorted(path.stem for path in FOLDER.glob("*.flac"))
    return tuple(name for name in names if name in NAMES or name.split("_")[0] in THINGS)


def recording_split(name: str) -> Split:
    """The split in which a recording may be used."""
    return split_of(name, HELDOUT_EVERY)


def recorded_clip(rng: np.random.Generator, names: Sequence[str], split: Split = "train") -> Sound:
    """One of the recordings of `split`: its first 5 s at most, and a short one repeated for at least 1.5 s."""
    name = pick(rng, [name for name in names if recording_split(name) == split])
    recording = read_audio(FOLDER / f"{name}.flac", SAMPLE_RATE_HZ).samples
    pause = np.zeros(round(rng.uniform(*PAUSE_SECONDS) * SAMPLE_RATE_HZ), np.float32)
    least, most = (round(seconds * SAMPLE_RATE_HZ) for seconds in CLIP_SECONDS)
    times = 1 if len(recording) >= least else 1 + least // (len(recording) + len(pause))
    audio = np.tile(np.concatenate([recording, pause]), times)[:most]
    thing, label = NAMES.get(name) or THINGS[name.split("_")[0]]
    description = re.sub(r"\d+$", "", " ".join(name.split("_")[1:])).strip()
    template = pick(rng, WORDS["captions"])
    caption = template.format(name=description, thing=thing, Thing=thing.capitalize())
    return Sound(samples=loudness(audio, rng.uniform(*RMS)), labels=(label,), caption=caption)
