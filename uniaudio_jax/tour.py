"""Hear what the model of the package can do: it speaks a sentence of yours in each of its voices, and does more.

    python -m uniaudio_jax.tour --text "Good morning, everyone." --out samples

writes wav files, what each was made from, and index.html to hear and see them all.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from uniaudio_jax.audio.files import read_audio, write_audio
from uniaudio_jax.checked import Checked
from uniaudio_jax.cli import main_guard, parse, use_compile_cache
from uniaudio_jax.files import atomic_write, write_json
from uniaudio_jax.metrics.sample import at_rate
from uniaudio_jax.paths import PlaceOption
from uniaudio_jax.report.listening import Heard, listening_page
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.shipped import DEFAULT, voices_of

MOST_SECONDS = 5.0
SIGNAL_TO_NOISE_DB = 5.0
SONG = "Twinkle twinkle little star."
TUNE = ((60, 0.4), (60, 0.4), (67, 0.4), (67, 0.4), (69, 0.4), (69, 0.4), (67, 0.9))
"""The notes of SONG, as MIDI numbers and seconds."""
SOUND = "The sound of five slow strokes of a bell."
MUSIC = "Cheerful church organ music, fast, 152 bpm, in A major, with solo."


@dataclass(frozen=True, kw_only=True)
class TourOptions(Checked):
    """Make a sample of each of the model's ways to make audio."""

    text: str = "The old man opened the window, and the morning came in."
    """The sentence to speak, in English."""
    out: Path = Path("samples")
    """Folder of the results."""
    run: PlaceOption = Path(DEFAULT)
    """A model that comes with the package, or a run folder with voices."""
    temperature: float | None = None
    """Of what is drawn, by default the model's own for each task."""


@dataclass(frozen=True)
class Wish:
    """One thing to make: the name of its file, what the page calls it, its task and its conditions; given: the
    condition that is audio to hear beside it; seconds: its most, where no condition tells."""

    name: str
    title: str
    task: str
    conditions: dict[str, Any]
    given: str | None = None
    seconds: float | None = None


def wishes(text: str, voices: dict[str, np.ndarray], rate_hz: int) -> Iterator[Wish]:
    """What the tour makes, one after the other. voices: recordings by name, at this rate."""
    from data_pipelines import espeak

    (first, voice), (last, other) = list(voices.items())[0], list(voices.items())[-1]
    for name, prompt in voices.items():
        yield Wish(f"spoken_by_{name}", f"“{text}”, spoken by {name}", "tts", {"text": text, "speaker_prompt": prompt})
    robot, robot_rate = espeak.speak(text, "en-us")
    source = at_rate(robot, robot_rate, rate_hz)
    title, conversion = f"A synthesiser's speech, in the voice of {last}", {"speaker_prompt": other}
    yield Wish("converted", title, "voice_conversion", conversion | {"content_audio": source}, "content_audio")
    noisy = with_noise(voice)
    yield Wish("cleaned", f"{first} without the noise", "enhancement", {"noisy_audio": noisy}, "noisy_audio")
    notes = np.concatenate([np.full(round(50 * seconds), note) for note, seconds in TUNE])
    yield Wish("sung", f"“{SONG}”, sung", "singing", {"text": SONG, "midi": notes, "speaker_prompt": source})
    yield Wish("sound", f"“{SOUND}”", "text_to_sound", {"text": SOUND}, seconds=MOST_SECONDS)
    yield Wish("music", f"“{MUSIC}”", "text_to_music", {"text": MUSIC}, seconds=MOST_SECONDS)


def with_noise(speech: Float[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
    """The speech with white noise, SIGNAL_TO_NOISE_DB below it."""
    from data_pipelines.corpora import Clip
    from data_pipelines.mixers.signals import mix

    noise = np.random.default_rng(0).normal(size=len(speech)).astype(np.float32)
    mixed = mix(Clip(id="tour", split="heldout", audio=speech), "noisy_audio", noise, SIGNAL_TO_NOISE_DB)
    assert mixed.noisy_audio is not None
    return mixed.noisy_audio


def tour(run: Run, options: TourOptions) -> list[Heard]:
    """Writes what the run makes; returns it for the page.

    Raises ValueError for a run that brings no voices, or lacks one of the tasks.
    """
    rate, voices = run.codec.sample_rate_hz, voices_of(run.path)
    if not voices:
        raise ValueError(f"{run.path}: brings no voices; name a model that comes with the package, such as {DEFAULT}")
    recordings = {name: read_audio(path, rate).samples for name, path in voices.items()}
    sampling, heard = Sampling(temperature=options.temperature), []
    makes = list(wishes(options.text, recordings, rate))
    for number, wish in enumerate(tqdm(makes, desc="tour", unit=" samples", leave=False)):
        start, files = time.monotonic(), {}
        made = run.generate(wish.task, sampling=sampling, seconds=wish.seconds, number=number, **wish.conditions)
        if wish.given:
            files["given"] = f"{wish.name}.given.wav"
            write_audio(options.out / files["given"], wish.conditions[wish.given], rate)
        files["made"] = f"{wish.name}.wav"
        write_audio(options.out / files["made"], made, rate)
        tqdm.write(f"{wish.title}: {len(made) / rate:.1f} s of audio in {time.monotonic() - start:.1f} s")
        heard.append(Heard(wish.title, wish.task, files))
    return heard


def main() -> None:
    with main_guard("the samples that were made are kept"):
        options = parse(TourOptions, __doc__)
        use_compile_cache()
        run = load_run(options.run)
        heard = tour(run, options)
        write_json(options.out / "samples.json", [one._asdict() for one in heard])
        page = options.out / "index.html"
        with atomic_write(page) as partial:
            partial.write_text(listening_page("What the model makes", heard, options.out), encoding="utf-8")
        print(f"tour: {len(heard)} samples by {run.config.name}, step {run.step}: {page}")


if __name__ == "__main__":
    main()
