"""Generate audio with a trained run.

    python -m uniaudio_jax.generate --run RUN --task tts --text "Good morning." --speaker-prompt voice.wav --out DIR
    python -m uniaudio_jax.generate --run RUN --task enhancement --split heldout --count 2 --out DIR

writes 16 kHz wav files and samples.json, which says what each was made from. With `--stream` the wav file grows while
its audio is being made, and can be played meanwhile.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

from data_pipelines.heldout import HeldOut
from uniaudio_jax.cli import main_guard, use_compile_cache
from uniaudio_jax.codec.audio_files import read_audio, write_audio, write_growing
from uniaudio_jax.decoding import Sampling
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.tasks import KINDS, Task, get_task


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """run: folder of a training. Give the task's conditions, or `--split` to take them from the run's data.

    text: what to say, or the caption. speaker_prompt, noisy_audio: audio files. seconds: the most to make.
    count: held-out examples. stream: write the audio while it is being made.
    """

    run: Path
    task: str
    out: Path
    text: str | None = None
    speaker_prompt: Path | None = None
    noisy_audio: Path | None = None
    seconds: float | None = None
    split: Literal["heldout"] | None = None
    count: int = 1
    stream: bool = False
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self):
        given = [name for name in CONDITIONS if getattr(self, name) is not None]
        if self.split and given:
            raise ValueError(
                f"--split takes the conditions from the data, but {given} were given too; give one or the other"
            )
        if self.split and self.stream:
            raise ValueError("--stream makes one waveform from given conditions; leave --split or --stream out")
        if self.count < 1:
            raise ValueError(f"--count: got {self.count}, wanted at least 1")


CONDITIONS = ("text", "speaker_prompt", "noisy_audio")


def given_conditions(options: GenerateOptions, rate_hz: int) -> dict[str, Any]:
    """The conditions on the command line, audio files read at `rate_hz`."""
    found: dict[str, Any] = {}
    for name in CONDITIONS:
        value = getattr(options, name)
        if isinstance(value, Path):
            audio = read_audio(value, rate_hz)
            if audio.converted:
                print(f"{value}: converted from {', '.join(audio.converted)} to mono {rate_hz} Hz")
            value = audio.samples
        if value is not None:
            found[name] = value
    return found


def write_heldout(run: Run, task: Task, options: GenerateOptions) -> list[dict[str, Any]]:
    """Writes generated, reference and condition audio of held-out examples; returns the rows of samples.json."""
    examples = HeldOut(run.config, task.name, run.codec.passport()).examples(options.count)
    codes = run.generate_like(task.name, [example.streams for example in examples], options.sampling)
    rows = []
    for example, made in zip(tqdm(examples, desc=f"write {task.name}", unit=" wav", leave=False), codes, strict=True):
        row: dict[str, Any] = {"id": example.id, "task": task.name, "text": example.text}
        audio = {
            stream.key: example.streams[stream.key] for stream in task.conditions if KINDS[stream.kind].form == "codes"
        }
        for name, tokens in {"generated": made, "reference": example.streams[task.target.key], **audio}.items():
            path = options.out / (f"{example.id}.wav" if name == "generated" else f"{example.id}.{name}.wav")
            write_audio(path, run.codec.decode(tokens), run.codec.sample_rate_hz)
            row[name] = path.name
            row[f"{name}_seconds"] = round(len(tokens) * run.codec.hop_samples / run.codec.sample_rate_hz, 2)
        rows.append(row)
    return rows


def write_given(run: Run, task: Task, options: GenerateOptions) -> list[dict[str, Any]]:
    """Writes what was generated for the conditions on the command line; returns the row of samples.json."""
    conditions = given_conditions(options, run.codec.sample_rate_hz)
    number = len(list(options.out.glob(f"{task.name}_*.wav")))
    path, rate_hz = options.out / f"{task.name}_{number:03d}.wav", run.codec.sample_rate_hz
    if options.stream:
        pieces = run.stream(task.name, sampling=options.sampling, seconds=options.seconds, **conditions)
        samples = write_growing(path, _told(pieces, path, rate_hz), rate_hz)
    else:
        wav = run.generate(task.name, sampling=options.sampling, seconds=options.seconds, **conditions)
        write_audio(path, wav, rate_hz)
        samples = len(wav)
    about = {name: str(getattr(options, name)) for name in conditions}
    return [{"id": path.stem, "task": task.name, **about, "generated": path.name,
             "generated_seconds": round(samples / rate_hz, 2)}]  # fmt: skip


def _told(pieces: Iterator[np.ndarray], path: Path, rate_hz: int) -> Iterator[np.ndarray]:
    """The pieces, with a line for each."""
    start, samples = time.perf_counter(), 0
    for piece in pieces:
        samples += len(piece)
        print(f"{path}: {samples / rate_hz:.2f} s of audio after {time.perf_counter() - start:.2f} s", flush=True)
        yield piece


def main() -> None:
    with main_guard():
        options = tyro.cli(GenerateOptions, description=__doc__)
        use_compile_cache()
        task = get_task(options.task)
        run = load_run(options.run)
        options.out.mkdir(parents=True, exist_ok=True)
        rows = (write_heldout if options.split else write_given)(run, task, options)
        listing = options.out / "samples.json"
        known = json.loads(listing.read_text()) if listing.is_file() else []
        fresh = {row["id"] for row in rows}
        listing.write_text(json.dumps([row for row in known if row["id"] not in fresh] + rows, indent=1))
        seconds = sum(row["generated_seconds"] for row in rows)
        print(f"{task.name}: {len(rows)} wav files, {seconds:.1f} s of audio, from step {run.step}: {options.out}")


if __name__ == "__main__":
    main()
