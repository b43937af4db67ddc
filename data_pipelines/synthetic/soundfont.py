"""Tunes as audio, by the SoundFont synthesiser tinysoundfont and the SoundFont of pretty_midi, optional packages."""

import functools
import importlib.util
from pathlib import Path

import numpy as np
import soxr
from jaxtyping import Float

from data_pipelines.corpora import SAMPLE_RATE_HZ, Split
from data_pipelines.synthetic.levels import loudness
from data_pipelines.synthetic.tunes import Tune, compose

SYNTH_RATE_HZ = 32000
MUSIC_RMS = 0.1
TUNE_SECONDS = (3.0, 5.0)
FADE_SECONDS = 0.1


def music_clip(rng: np.random.Generator, split: Split = "train") -> tuple[Float[np.ndarray, " S"], Tune]:
    """A tune of 3 to 5 s whose instrument and key belong to `split`, and what it is."""
    tune = compose(rng, rng.uniform(*TUNE_SECONDS), split)
    samples = soxr.resample(_render(tune), SYNTH_RATE_HZ, SAMPLE_RATE_HZ)
    fade = np.linspace(1, 0, round(FADE_SECONDS * SAMPLE_RATE_HZ), dtype=np.float32)
    samples[-len(fade) :] *= fade
    return loudness(samples, MUSIC_RMS), tune


@functools.cache
def _soundfont() -> bytes:
    spec = importlib.util.find_spec("pretty_midi")
    path = Path(spec.origin).parent / "TimGM6mb.sf2" if spec and spec.origin else None
    if path is None or not path.is_file() or importlib.util.find_spec("tinysoundfont") is None:
        raise ValueError(
            "music: got no SoundFont synthesiser, wanted the packages tinysoundfont and pretty_midi (for "
            "its TimGM6mb.sf2); run `pip install --no-deps tinysoundfont pretty_midi`"
        )
    return path.read_bytes()


def _render(tune: Tune) -> np.ndarray:
    """The notes of `tune`, mono at SYNTH_RATE_HZ, by a new synthesiser, in which no earlier note rings on."""
    font = _soundfont()
    import tinysoundfont  # an optional extra

    synth = tinysoundfont.Synth(gain=-6, samplerate=SYNTH_RATE_HZ)
    number = synth.sfload(font)
    for channel, program in enumerate(tune.programs):
        synth.program_select(channel, number, 0, program)
    on = [(note.start, 1, note) for note in tune.notes]
    off = [(note.start + note.seconds, 0, note) for note in tune.notes]
    parts, rendered, end = [], 0, round(tune.seconds * SYNTH_RATE_HZ)
    for moment, starts, note in sorted(on + off, key=lambda event: event[:2]):
        until = min(end, round(moment * SYNTH_RATE_HZ))
        if until > rendered:
            parts.append(bytes(synth.generate(until - rendered)))
            rendered = until
        if starts:
            synth.noteon(note.channel, note.pitch, note.velocity)
        else:
            synth.noteoff(note.channel, note.pitch)
    if end > rendered:
        parts.append(bytes(synth.generate(end - rendered)))
    return np.frombuffer(b"".join(parts), np.float32).reshape(-1, 2).mean(axis=1)
