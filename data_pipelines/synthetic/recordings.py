"""Recorded sounds of Sonic Pi's sample collection (mostly CC0), where Debian's package sonic-pi-samples is installed.

A file's name says what it is (`drum_heavy_kick.flac`), and a hash of the name says whether it is held out.
"""

import re
from pathlib import Path

import numpy as np

from data_pipelines.corpora import SAMPLE_RATE_HZ, Split, split_of
from data_pipelines.synthetic.levels import loudness
from data_pipelines.synthetic.sounds import Sound
from uniaudio_jax.audio.files import read_audio

FOLDER = Path("/usr/share/sonic-pi/samples")
INSTALL = "apt-get install sonic-pi-samples"
HELDOUT_EVERY = 10
CLIP_SECONDS, PAUSE_SECONDS = (1.5, 5.0), (0.3, 0.9)
RMS = (0.07, 0.12)
THINGS = {
    "ambi": ("ambient", "music"),
    "bass": ("bass synthesizer", "synthesizer"),
    "bd": ("bass drum", "drums"),
    "drum": ("drum", "drums"),
    "elec": ("electronic", "synthesizer"),
    "glitch": ("glitch", "synthesizer"),
    "guit": ("guitar", "music"),
    "loop": ("looping", "music"),
    "mehackit": ("electronic", "synthesizer"),
    "perc": ("percussion", "drums"),
    "sn": ("snare drum", "drums"),
    "tabla": ("tabla", "drums"),
    "vinyl": ("record player", "static"),
}
"""The first word of a name → how a caption calls it, and the label."""
NAMES = {
    "perc_bell": ("percussion", "bell"),
    "perc_bell2": ("percussion", "bell"),
    "perc_door": ("wooden", "door"),
    "misc_crow": ("bird", "crow"),
    "misc_cineboom": ("cinema", "explosion"),
}
"""Files whose first word does not say it."""
CAPTIONS = ("The {thing} sound of {name}.", "{Thing} sound: {name}.", "A recorded {thing} sound, {name}.")


def find_recordings() -> tuple[str, ...]:
    """Names of the recordings that can be described; none where the package is missing."""
    names = sorted(path.stem for path in FOLDER.glob("*.flac"))
    return tuple(name for name in names if name in NAMES or name.split("_")[0] in THINGS)


def recording_split(name: str) -> Split:
    """The split in which a recording may be used."""
    return split_of(name, HELDOUT_EVERY)


def recorded_clip(rng: np.random.Generator, names: tuple[str, ...], split: Split = "train") -> Sound:
    """One of the recordings of `split`, its first 5 s at most; a short one comes again and again for 1.5 s or more."""
    choice = [name for name in names if recording_split(name) == split]
    name = choice[rng.integers(len(choice))]
    sound = read_audio(FOLDER / f"{name}.flac", SAMPLE_RATE_HZ).samples
    pause = np.zeros(round(rng.uniform(*PAUSE_SECONDS) * SAMPLE_RATE_HZ), np.float32)
    least, most = (round(seconds * SAMPLE_RATE_HZ) for seconds in CLIP_SECONDS)
    times = 1 if len(sound) >= least else 1 + least // (len(sound) + len(pause))
    audio = np.concatenate([np.concatenate([sound, pause])] * times)[:most]
    thing, label = NAMES.get(name) or THINGS[name.split("_")[0]]
    words = re.sub(r"\d+$", "", " ".join(name.split("_")[1:])).strip()
    caption = CAPTIONS[rng.integers(len(CAPTIONS))].format(name=words, thing=thing, Thing=thing.capitalize())
    return Sound(samples=loudness(audio, rng.uniform(*RMS)), labels=(label,), caption=caption)
