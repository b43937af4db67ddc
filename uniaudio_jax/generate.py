"""Generate audio, or text, with a trained run.

    python -m uniaudio_jax.generate --run RUN --task tts --text "Good morning." --speaker-prompt voice.wav --out DIR
    python -m uniaudio_jax.generate --run RUN --task enhancement --split heldout --count 2 --out DIR

writes 16 kHz wav files (.txt files for tasks such as asr) and samples.json, which says what each was made from. With
`--stream` the wav file grows while its audio is being made, and can be played meanwhile.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

from data_pipelines.heldout import Example, HeldOut
from data_pipelines.tokenizers.midi import read_midi
from uniaudio_jax.audio.files import read_audio, write_audio, write_growing
from uniaudio_jax.cli import main_guard, use_compile_cache
from uniaudio_jax.decoding import Sampling
from uniaudio_jax.files import atomic_write, read_json, write_json
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.tasks import KINDS, Task, get_task


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a task is given, by the fields of a clip; each task wants its own."""

    text: str | None = None
    """What to say or sing, the caption, or the order to edit."""
    language: str | None = None
    """Language of the text, by its name or code, such as German or de."""
    instruction: str | None = None
    """How to say it, in words."""
    midi: Path | None = None
    """A .mid file with the tune to sing."""
    speaker_prompt: Path | None = None
    """Audio of the voice to take."""
    audio: Path | None = None
    """Audio to listen to or to fill in."""
    content_audio: Path | None = None
    """Speech to convert."""
    noisy_audio: Path | None = None
    """Speech to clean."""
    mixture_audio: Path | None = None
    """Speech of several people, to extract one from."""
    reverberant_audio: Path | None = None
    """Speech to take the reverberation out of."""
    source_audio: Path | None = None
    """Audio to edit."""
    paired_audio: Path | None = None
    """Speech to compare the voice of `audio` with."""
    masked_seconds: tuple[float, float] | None = None
    """From where to where in `audio` to speak anew."""

    def given(self) -> dict[str, Any]:
        """The conditions on the command line, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(Conditions)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(Conditions):
    """What to generate, and where to."""

    run: Path
    """Folder of a training."""
    task: tuple[str, ...]
    """The task to generate for; with --split any number of tasks, each into a folder of its own."""
    out: Path
    """Folder of the results."""
    seconds: float | None = None
    """The longest audio to generate; by default as long as the model's positions allow."""
    split: Literal["heldout"] | None = None
    """Takes the conditions from this split of the run's data, not from the command line."""
    count: int = 1
    """Examples to take from the split."""
    stream: bool = False
    """Writes the audio while it is being generated."""
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self):
        if self.split and self.given():
            raise ValueError(
                f"--split takes the conditions from the data, but {list(self.given())} were given too; "
                "give one or the other"
            )
        if len(self.task) != 1 and not self.split:
            raise ValueError(f"--task: got {len(self.task)} tasks, wanted one, or --split heldout")
        if self.split and self.stream:
            raise ValueError("--stream writes one waveform for given conditions; leave --split or --stream out")
        if self.count < 1:
            raise ValueError(f"--count: got {self.count}, wanted at least 1")


def read_conditions(options: Conditions, rate_hz: int) -> dict[str, Any]:
    """The conditions on the command line, with audio files as waveforms at `rate_hz` and a .mid file as notes."""
    conditions = options.given()
    for name, value in conditions.items():
        if name == "midi":
            conditions[name] = read_midi(value)
        elif isinstance(value, Path):
            audio = read_audio(value, rate_hz)
            if audio.converted:
                print(f"{value}: converted from {', '.join(audio.converted)} to mono {rate_hz} Hz")
            conditions[name] = audio.samples
    return conditions


def write_heldout(run: Run, task: Task, options: GenerateOptions) -> list[dict[str, Any]]:
    """Writes what was generated for held-out examples, with references and condition audio beside it.

    Returns the rows of samples.json.
    """
    examples = HeldOut(run.config, task.name, run.codec.passport()).examples(options.count)
    generated = run.generate_like(task.name, [example.streams for example in examples], options.sampling)
    pairs = zip(examples, generated, strict=True)
    bar = tqdm(pairs, total=len(examples), desc=f"write {task.name}", unit=" examples", leave=False)
    return [_write_example(run, task, example, items, options.out) for example, items in bar]


def _write_example(run: Run, task: Task, example: Example, generated: np.ndarray, out: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"id": example.id, "task": task.name, "text": example.text}
    row |= _write_target(run, task, "generated", generated, out / example.id)
    row |= _write_target(run, task, "reference", example.streams[task.target.key], out / f"{example.id}.reference")
    for stream in task.conditions:
        if KINDS[stream.kind].form == "codes":
            wav = run.waveform_of(example.streams[stream.key])
            row |= _write_wav(run, stream.key, wav, out / f"{example.id}.{stream.key}")
    return row


def _write_target(run: Run, task: Task, name: str, tokens: np.ndarray, stem: Path) -> dict[str, Any]:
    if task.makes_audio:
        return _write_wav(run, name, run.waveform_of(tokens), stem)
    return _write_text(name, run.text_of(task.name, tokens), stem)


def _write_wav(run: Run, name: str, wav: np.ndarray, stem: Path) -> dict[str, Any]:
    """Writes STEM.wav; returns what samples.json says of it."""
    path, rate_hz = stem.with_name(f"{stem.name}.wav"), run.codec.sample_rate_hz
    write_audio(path, wav, rate_hz)
    return _wav_entry(name, path, len(wav) / rate_hz)


def _wav_entry(name: str, path: Path, seconds: float) -> dict[str, Any]:
    return {name: path.name, f"{name}_seconds": round(seconds, 2)}


def _write_text(name: str, text: str, stem: Path) -> dict[str, Any]:
    """Writes STEM.txt; returns what samples.json says of it."""
    path = stem.with_name(f"{stem.name}.txt")
    with atomic_write(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return {name: text, f"{name}_file": path.name}


def write_given(run: Run, task: Task, options: GenerateOptions) -> list[dict[str, Any]]:
    """Writes what was generated for the conditions on the command line; returns the row of samples.json."""
    if options.stream and not task.makes_audio:
        raise ValueError(f"--stream writes audio, but task {task.name} makes text; leave it out")
    conditions = read_conditions(options, run.codec.sample_rate_hz)
    stem = _next_stem(options.out, task.name)
    row = {"id": stem.name, "task": task.name, **{name: str(value) for name, value in options.given().items()}}
    if options.stream:
        pieces = run.stream(task.name, sampling=options.sampling, seconds=options.seconds, **conditions)
        return [row | _write_stream(pieces, stem.with_suffix(".wav"), run.codec.sample_rate_hz)]
    generated = run.generate(task.name, sampling=options.sampling, seconds=options.seconds, **conditions)
    if task.makes_audio:
        return [row | _write_wav(run, "generated", generated, stem)]
    print(generated)
    return [row | _write_text("generated", generated, stem)]


def _next_stem(out: Path, task: str) -> Path:
    """OUT/TASK_NNN, numbered after the files of the task that are there."""
    files = [path for path in out.glob(f"{task}_*") if path.suffix in (".wav", ".txt")]
    return out / f"{task}_{len(files):03d}"


def _write_stream(pieces: Iterator[np.ndarray], path: Path, rate_hz: int) -> dict[str, Any]:
    """Writes a wav file piece by piece, and prints a line after each; returns what samples.json says of it."""

    def reported() -> Iterator[np.ndarray]:
        start, samples = time.perf_counter(), 0
        for piece in pieces:
            samples += len(piece)
            elapsed = time.perf_counter() - start
            print(f"{path}: {samples / rate_hz:.2f} s of audio after {elapsed:.2f} s", flush=True)
            yield piece

    samples = write_growing(path, reported(), rate_hz)
    return _wav_entry("generated", path, samples / rate_hz)


def update_listing(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Adds rows to samples.json, in place of those with the same ids."""
    listing = folder / "samples.json"
    wanted = "a list of samples; delete it to begin a new one"
    before = read_json(listing, wanted, kind=list) if listing.is_file() else []
    replaced = {row["id"] for row in rows}
    write_json(listing, [row for row in before if row["id"] not in replaced] + rows)


def generate(run: Run, task: Task, options: GenerateOptions) -> str:
    """Writes the results of one task into `options.out`; returns a line about them."""
    options.out.mkdir(parents=True, exist_ok=True)
    rows = write_heldout(run, task, options) if options.split else write_given(run, task, options)
    update_listing(options.out, rows)
    seconds = sum(row.get("generated_seconds", 0) for row in rows)
    files = f"{len(rows)} wav files, {seconds:.1f} s of audio" if task.makes_audio else f"{len(rows)} texts"
    return f"{task.name}: {files}, from step {run.step}: {options.out}"


def main() -> None:
    with main_guard():
        options = tyro.cli(GenerateOptions, description=__doc__)
        use_compile_cache()
        tasks = [get_task(name) for name in options.task]
        run = load_run(options.run)
        for task in tasks:
            out = options.out / task.name if len(tasks) > 1 else options.out
            print(generate(run, task, replace(options, out=out)))


if __name__ == "__main__":
    main()
