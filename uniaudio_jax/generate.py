"""Generate audio, or text, with a trained run.

    python -m uniaudio_jax.generate --run RUN --task tts --text "Good morning." --speaker-prompt voice.wav --out DIR
    python -m uniaudio_jax.generate --run RUN --task enhancement --split heldout --count 2 --out DIR

writes 16 kHz wav files (.txt files for tasks such as asr) and samples.json, which says what each was made from. With
`--stream` the wav file grows while its audio is being made, and can be played meanwhile.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

from data_pipelines.heldout import HeldOut
from data_pipelines.tokenizers.midi import read_midi
from uniaudio_jax.audio.files import read_audio, write_audio, write_growing
from uniaudio_jax.cli import main_guard, use_compile_cache
from uniaudio_jax.decoding import Sampling
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.tasks import KINDS, Task, get_task


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """run: folder of a training. task: one, with its conditions, or with `--split` to take them from the run's data;
    several with `--split` go to a folder each in `out`.

    text: what to say or sing, the caption, or the order to edit. language: of the text, as espeak-ng names it.
    instruction: how to say it, in words. midi: a .mid file, the tune to sing. speaker_prompt: the voice to take.
    audio: what to listen to or to fill in. content_audio: speech to convert. noisy_audio, mixture_audio,
    reverberant_audio, source_audio: what to clean, to extract from, to dry, to edit. paired_audio: the utterance to
    compare with. masked_seconds: from where to where to speak anew.
    seconds: the most to make. count: held-out examples. stream: write the audio while it is being made.
    """

    run: Path
    task: tuple[str, ...]
    out: Path
    text: str | None = None
    language: str | None = None
    instruction: str | None = None
    midi: Path | None = None
    speaker_prompt: Path | None = None
    audio: Path | None = None
    content_audio: Path | None = None
    noisy_audio: Path | None = None
    mixture_audio: Path | None = None
    reverberant_audio: Path | None = None
    source_audio: Path | None = None
    paired_audio: Path | None = None
    masked_seconds: tuple[float, float] | None = None
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
        if len(self.task) != 1 and not self.split:
            raise ValueError(f"--task: got {len(self.task)} tasks, wanted one, or --split heldout")
        if self.split and self.stream:
            raise ValueError("--stream makes one waveform from given conditions; leave --split or --stream out")
        if self.count < 1:
            raise ValueError(f"--count: got {self.count}, wanted at least 1")


CONDITIONS = (
    "text",
    "language",
    "instruction",
    "midi",
    "speaker_prompt",
    "audio",
    "content_audio",
    "noisy_audio",
    "mixture_audio",
    "reverberant_audio",
    "source_audio",
    "paired_audio",
    "masked_seconds",
)


def given_conditions(options: GenerateOptions, rate_hz: int) -> dict[str, Any]:
    """The conditions on the command line, audio files read at `rate_hz`, and notes out of a .mid file."""
    found: dict[str, Any] = {}
    for name in CONDITIONS:
        value = getattr(options, name)
        if name == "midi" and value is not None:
            value = read_midi(value)
        elif isinstance(value, Path):
            audio = read_audio(value, rate_hz)
            if audio.converted:
                print(f"{value}: converted from {', '.join(audio.converted)} to mono {rate_hz} Hz")
            value = audio.samples
        if value is not None:
            found[name] = value
    return found


def write_heldout(run: Run, task: Task, options: GenerateOptions) -> list[dict[str, Any]]:
    """Writes generated, reference and condition audio of held-out examples, or what was generated as text; returns the
    rows of samples.json."""
    examples = HeldOut(run.config, task.name, run.codec.passport()).examples(options.count)
    made = run.generate_like(task.name, [example.streams for example in examples], options.sampling)
    rows = []
    for example, items in zip(tqdm(examples, desc=f"write {task.name}", unit=" files", leave=False), made, strict=True):
        row: dict[str, Any] = {"id": example.id, "task": task.name, "text": example.text}
        parts = {"generated": items, "reference": example.streams[task.target.key]}
        parts |= {s.key: example.streams[s.key] for s in task.conditions if KINDS[s.kind].form == "codes"}
        for name, tokens in parts.items():
            stem = example.id if name == "generated" else f"{example.id}.{name}"
            row |= _write_items(run, task, name, tokens, options.out / stem)
        rows.append(row)
    return rows


def _write_items(run: Run, task: Task, name: str, tokens: np.ndarray, stem: Path) -> dict[str, Any]:
    """Writes codes as STEM.wav, the ids of a target as STEM.txt; returns what samples.json says of them."""
    if name in ("generated", "reference") and not task.makes_audio:
        return {name: run.text_of(task.name, tokens)} | _write_text(stem, run.text_of(task.name, tokens), name)
    path = stem.with_name(f"{stem.name}.wav")
    wav, rate_hz = run.waveform_of(tokens), run.codec.sample_rate_hz
    write_audio(path, wav, rate_hz)
    return {name: path.name, f"{name}_seconds": round(len(wav) / rate_hz, 2)}


def _write_text(stem: Path, text: str, name: str) -> dict[str, str]:
    path = stem.with_name(f"{stem.name}.txt")
    path.write_text(text + "\n", encoding="utf-8")
    return {f"{name}_file": path.name}


def write_given(run: Run, task: Task, options: GenerateOptions) -> list[dict[str, Any]]:
    """Writes what was generated for the conditions on the command line; returns the row of samples.json."""
    if options.stream and not task.makes_audio:
        raise ValueError(f"--stream makes audio, task {task.name} makes text; leave it out")
    conditions = given_conditions(options, run.codec.sample_rate_hz)
    number = len([*options.out.glob(f"{task.name}_*.wav"), *options.out.glob(f"{task.name}_*.txt")])
    stem, rate_hz = options.out / f"{task.name}_{number:03d}", run.codec.sample_rate_hz
    row = {"id": stem.name, "task": task.name, **{name: str(getattr(options, name)) for name in conditions}}
    if not task.makes_audio:
        text = run.generate(task.name, sampling=options.sampling, seconds=options.seconds, **conditions)
        print(text)
        return [row | {"generated": text} | _write_text(stem, text, "generated")]
    path = stem.with_suffix(".wav")
    if options.stream:
        pieces = run.stream(task.name, sampling=options.sampling, seconds=options.seconds, **conditions)
        samples = write_growing(path, _told(pieces, path, rate_hz), rate_hz)
    else:
        wav = run.generate(task.name, sampling=options.sampling, seconds=options.seconds, **conditions)
        write_audio(path, wav, rate_hz)
        samples = len(wav)
    return [row | {"generated": path.name, "generated_seconds": round(samples / rate_hz, 2)}]


def _told(pieces: Iterator[np.ndarray], path: Path, rate_hz: int) -> Iterator[np.ndarray]:
    """The pieces, with a line for each."""
    start, samples = time.perf_counter(), 0
    for piece in pieces:
        samples += len(piece)
        print(f"{path}: {samples / rate_hz:.2f} s of audio after {time.perf_counter() - start:.2f} s", flush=True)
        yield piece


def write_listing(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Adds rows to samples.json, in place of those with the same ids."""
    listing = folder / "samples.json"
    known = json.loads(listing.read_text()) if listing.is_file() else []
    fresh = {row["id"] for row in rows}
    listing.write_text(json.dumps([row for row in known if row["id"] not in fresh] + rows, indent=1))


def main() -> None:
    with main_guard():
        options = tyro.cli(GenerateOptions, description=__doc__)
        use_compile_cache()
        tasks = [get_task(name) for name in options.task]
        run = load_run(options.run)
        for task in tasks:
            out = options.out / task.name if len(tasks) > 1 else options.out
            out.mkdir(parents=True, exist_ok=True)
            rows = (write_heldout if options.split else write_given)(run, task, replace(options, out=out))
            write_listing(out, rows)
            seconds = sum(row.get("generated_seconds", 0) for row in rows)
            made = f"{len(rows)} wav files, {seconds:.1f} s of audio" if task.makes_audio else f"{len(rows)} texts"
            print(f"{task.name}: {made}, from step {run.step}: {out}")


if __name__ == "__main__":
    main()
