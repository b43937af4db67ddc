"""The quickstart corpus: espeak voices, procedural noises and SoundFont tunes as real 16 kHz wav files.

    python -m data_pipelines.corpora.quickstart --out runs/quickstart/data/corpus

makes `tts/`, `enhancement/` and `text_to_music/`, each with a `manifest.jsonl`. The same seed gives the same bytes. A
finished task is left alone; one that was cut off starts again. Held-out sentences and tunes are told by a hash of their
words and of their instrument and key, held-out noises by their own seeds, so that no seed trains on them.
"""

import functools
import importlib.util
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import tyro
from jaxtyping import Float
from tqdm import tqdm

from data_pipelines.corpora import SAMPLE_RATE_HZ, SPLITS, Clip, Split, folder
from data_pipelines.corpora.levels import PEAK, loudness
from data_pipelines.corpora.noises import NOISES, noise_clip
from data_pipelines.corpora.sentences import sentence
from data_pipelines.corpora.tunes import Tune, compose
from data_pipelines.corpora.voices import speech_clip
from uniaudio_jax.cli import main_guard
from uniaudio_jax.codec.audio_files import write_audio

SYNTH_RATE_HZ = 32000
MUSIC_RMS = 0.1
CLIP_SECONDS = (1.5, 5.0)
TUNE_SECONDS = (3.0, 5.0)
SNR_DB = (0.0, 15.0)
HELDOUT_SHARE = 0.1
LEAST_CLIPS = 4
VOICES = ("en-us+m3", "en-us+f1", "en-us+m8", "en-gb-x-rp+linda", "en-us+ed", "en-us+steph", "en-gb-scotland+m1",
          "en-us+Annie")  # fmt: skip
FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """Make the quickstart corpus.

    out: folder of the three tasks. minutes: length of all audio targets together. seed: another seed, another corpus.
    """

    out: Path
    minutes: float = 40.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf") or self.seed < 0:
            raise ValueError(f"quickstart corpus: got minutes={self.minutes}, seed={self.seed}; wanted minutes above 0 "
                             "and a seed of 0 or more")  # fmt: skip


def music_clip(rng: np.random.Generator, split: Split = "train") -> tuple[Float[np.ndarray, "S"], str]:
    """A tune of 3 to 5 s at 16 kHz whose instrument and key belong to `split`, and a caption of it."""
    tune = compose(rng, rng.uniform(*TUNE_SECONDS), split)
    samples = soxr.resample(_render(tune), SYNTH_RATE_HZ, SAMPLE_RATE_HZ)
    fade = np.linspace(1, 0, SAMPLE_RATE_HZ // 10, dtype=np.float32)
    samples[-len(fade) :] *= fade
    return loudness(samples, MUSIC_RMS), tune.caption


@functools.cache
def _soundfont() -> bytes:
    spec = importlib.util.find_spec("pretty_midi")
    path = Path(spec.origin).parent / "TimGM6mb.sf2" if spec and spec.origin else None
    if path is None or not path.is_file() or importlib.util.find_spec("tinysoundfont") is None:
        raise ValueError("quickstart corpus: got no SoundFont synthesiser, wanted the packages tinysoundfont and "
                         "pretty_midi (for its TimGM6mb.sf2); run "
                         "`pip install --no-deps tinysoundfont pretty_midi`")  # fmt: skip
    return path.read_bytes()


def _render(tune: Tune) -> np.ndarray:
    """The notes of `tune`, mono at SYNTH_RATE_HZ. A fresh synthesiser each time: nothing rings on from before."""
    font = _soundfont()
    import tinysoundfont  # an optional extra

    synth = tinysoundfont.Synth(gain=-6, samplerate=SYNTH_RATE_HZ)
    number = synth.sfload(font)
    for channel, program in enumerate(tune.programs):
        synth.program_select(channel, number, 0, program)
    on = [(note.start, 1, note) for note in tune.notes]
    off = [(note.start + note.seconds, 0, note) for note in tune.notes]
    parts, at, end = [], 0, round(tune.seconds * SYNTH_RATE_HZ)
    for moment, starts, note in sorted(on + off, key=lambda event: event[:2]):
        until = min(end, round(moment * SYNTH_RATE_HZ))
        if until > at:
            parts.append(np.array(synth.generate(until - at)))
            at = until
        if starts:
            synth.noteon(note.channel, note.pitch, note.velocity)
        else:
            synth.noteoff(note.channel, note.pitch)
    if end > at:
        parts.append(np.array(synth.generate(end - at)))
    return np.frombuffer(b"".join(part.tobytes() for part in parts), np.float32).reshape(-1, 2).mean(axis=1)


def _spoken(rng: np.random.Generator, number: int, split: Split) -> tuple[str, str, np.ndarray]:
    """A voice, a sentence and its clip. Voices come in pairs of clips: each clip has a speaker prompt in its split."""
    voice = VOICES[number // 2 % len(VOICES)]
    while True:
        text = sentence(rng, split)
        audio = speech_clip(voice, text)
        if CLIP_SECONDS[0] <= len(audio) / SAMPLE_RATE_HZ <= CLIP_SECONDS[1]:
            return voice, text, audio


def _tts(rng: np.random.Generator, number: int, split: Split) -> Clip:
    voice, text, audio = _spoken(rng, number, split)
    return Clip(id=f"tts-{split}-{number:05d}", split=split, audio=audio, text=text, speaker=voice)


def _enhancement(rng: np.random.Generator, number: int, split: Split) -> Clip:
    voice, text, speech = _spoken(rng, number, split)
    kind = list(NOISES)[number % len(NOISES)]
    noise = noise_clip(rng, len(speech) / SAMPLE_RATE_HZ, kind, split)[: len(speech)]
    noise = noise * (np.std(speech) / np.std(noise) * 10 ** (-rng.uniform(*SNR_DB) / 20))
    gain = min(1.0, PEAK / np.abs(speech + noise).max())
    audio, noisy = ((gain * signal).astype(np.float32) for signal in (speech, speech + noise))
    return Clip(id=f"enhancement-{split}-{number:05d}-{kind}", split=split, audio=audio, text=text, speaker=voice,
                noisy_audio=noisy)  # fmt: skip


def _music(rng: np.random.Generator, number: int, split: Split) -> Clip:
    audio, caption = music_clip(rng, split)
    return Clip(id=f"text_to_music-{split}-{number:05d}", split=split, audio=audio, text=caption)


TASKS = {"tts": (0.40, _tts), "enhancement": (0.22, _enhancement), "text_to_music": (0.38, _music)}


def clips(task: str, options: CorpusOptions) -> Iterator[Clip]:
    """The clips of one task, train then held out, each a function of task, split, number and seed alone."""
    share, make = TASKS[task]
    for order, split in enumerate(SPLITS):
        wanted = options.minutes * 60 * share * (HELDOUT_SHARE if split == "heldout" else 1 - HELDOUT_SHARE)
        made = 0.0
        for number in itertools.count():
            if made >= wanted and number >= LEAST_CLIPS and number % 2 == 0:
                break
            clip = make(np.random.default_rng([options.seed, list(TASKS).index(task), order, number]), number, split)
            made += len(clip.audio) / SAMPLE_RATE_HZ
            yield clip


def write_task(task: str, options: CorpusOptions, bar: tqdm) -> None:
    """Writes the wav files of one task and then its manifest; a finished task with the same options is left alone."""
    place = options.out / task
    manifest, recipe_file = place / folder.MANIFEST, place / "recipe.json"
    recipe = {"format": FORMAT, "minutes": float(options.minutes), "seed": options.seed}
    if place.is_dir() and any(place.iterdir()):
        if not recipe_file.is_file():
            raise ValueError(f"{place}: got a folder that is not this program's, wanted a new or empty one; "
                             "choose another --out")  # fmt: skip
        if manifest.is_file() and json.loads(recipe_file.read_text()) == recipe:
            _advance(bar, options.minutes * TASKS[task][0])
            return
        shutil.rmtree(place)
    place.mkdir(parents=True, exist_ok=True)
    recipe_file.write_text(json.dumps(recipe))
    lines = []
    for clip in clips(task, options):
        lines.append(json.dumps(_write_clip(place, clip)) + "\n")
        _advance(bar, len(clip.audio) / SAMPLE_RATE_HZ / 60)
    partial = manifest.with_suffix(".partial")
    partial.write_text("".join(lines))
    os.replace(partial, manifest)


def _advance(bar: tqdm, minutes: float) -> None:
    """Moves the bar, at most to its end: the last clip of a task is longer than what was wanted."""
    bar.update(max(0.0, min(minutes, bar.total - bar.n)))


def _write_clip(place: Path, clip: Clip) -> dict[str, str | None]:
    """Writes the wav files of one clip; returns its line of the manifest."""
    paths: dict[str, str | None] = {"audio": f"wav/{clip.id}.wav", "noisy_audio": None}
    write_audio(place / f"wav/{clip.id}.wav", clip.audio, SAMPLE_RATE_HZ)
    if clip.noisy_audio is not None:
        paths["noisy_audio"] = f"noisy/{clip.id}.wav"
        write_audio(place / f"noisy/{clip.id}.wav", clip.noisy_audio, SAMPLE_RATE_HZ)
    return {"id": clip.id, "split": clip.split, "text": clip.text, "speaker": clip.speaker, **paths}


def main(options: CorpusOptions) -> None:
    """Makes the corpus and prints one line about it."""
    start = time.monotonic()
    with tqdm(total=options.minutes, desc="corpus", unit="min",
              bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} min of audio [{elapsed}<{remaining}]") as bar:  # fmt: skip
        for task in TASKS:
            write_task(task, options, bar)
    made = {task: folder.entries(options.out / task) for task in TASKS}
    minutes = ", ".join(f"{task} {sum(soundfile.info(entry.audio).duration for entry in entries) / 60:.1f} min"
                        for task, entries in made.items())  # fmt: skip
    voices = {entry.speaker for entries in made.values() for entry in entries if entry.speaker}
    print(f"quickstart corpus: {options.out}: {minutes}, {len(voices)} voices, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    with main_guard():
        main(tyro.cli(CorpusOptions, description=__doc__))
