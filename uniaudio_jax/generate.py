"""Generate audio, or text, with the model that comes with the package, or with a run of your own.

    python -m uniaudio_jax.generate --task tts --text "Good morning." --out DIR
    python -m uniaudio_jax.generate --run RUN --task tts --text "Good morning." --speaker-prompt voice.wav --out DIR
    python -m uniaudio_jax.generate --run RUN --task tts --texts lines.txt --speaker-prompt voice.wav --out DIR
    python -m uniaudio_jax.generate --run RUN --task enhancement --split heldout --count 2 --out DIR

writes 16 kHz wav files (.txt files for tasks such as asr), named after their clips, and samples.json, which says what
each was made from. Files that it does not list are never overwritten. With `--stream` the wav file grows while its
audio is being made, and can be played meanwhile. Of `--texts` each result is saved as soon as it is finished; run
again, the command makes what is missing, and what was made of other words, another step or other options.
"""

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from data_pipelines.heldout import Example, HeldOut
from data_pipelines.tokenizers.midi import read_midi
from uniaudio_jax.audio.files import read_audio, write_audio, write_growing
from uniaudio_jax.checked import Checked
from uniaudio_jax.cli import main_guard, parse, use_compile_cache
from uniaudio_jax.conditions import Conditions, Line, read_lines
from uniaudio_jax.decoding import ROWS, Prompt
from uniaudio_jax.errors import Refused, attempt
from uniaudio_jax.files import atomic_write, name_key, read_json, safe_name, write_json
from uniaudio_jax.paths import PlaceOption
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.shipped import DEFAULT
from uniaudio_jax.tasks import KINDS, Task, get_task

MOST_REASONS = 3
"""Lines of a list whose failure is told at the end."""


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(Conditions, Checked):
    """What to generate, and where to."""

    task: tuple[str, ...]
    """The task to generate for; with --split any number of tasks, each into a folder of its own."""
    out: Path
    """Folder of the results."""
    run: PlaceOption = Path(DEFAULT)
    """Folder of a training, or the name of a model that comes with the package."""
    seconds: float | None = None
    """The longest audio to generate; by default as long as the conditions tell, or the model's positions allow."""
    split: Literal["heldout"] | None = None
    """Takes the conditions from this split of the run's data, not from the command line."""
    data_root: PlaceOption | None = None
    """Folder of the tokenised corpora, where it is not that of the run's config (data.root)."""
    count: int = 1
    """Examples to take from the split."""
    texts: Path | None = None
    """A file with a text on each line or, named .jsonl, an object of conditions and perhaps an id. What stands on the
    command line is given to each line that does not have it."""
    rows: int = ROWS
    """Examples that are worked on at once."""
    stream: bool = False
    """Writes the audio while it is being generated."""
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self):
        super().__post_init__()
        if self.texts and (self.split or self.stream):
            raise ValueError("--texts makes a result of each line; leave --split and --stream out")
        if self.split and self.given():
            raise ValueError(
                f"--split takes the conditions from the data, but {list(self.given())} were given too; "
                "give one or the other"
            )
        if len(self.task) != 1 and not self.split:
            raise ValueError(f"--task: got {len(self.task)} tasks, wanted one, or --split heldout")
        if self.split and self.stream:
            raise ValueError("--stream writes one waveform for given conditions; leave --split or --stream out")
        for name in ("count", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: got {getattr(self, name)}, wanted at least 1")
        if self.seconds is not None and self.seconds <= 0:
            raise ValueError(f"--seconds: got {self.seconds}, wanted more than 0")


def read_conditions(given: dict[str, Any], rate_hz: int) -> dict[str, Any]:
    """The given conditions, with audio files as waveforms at `rate_hz` and a .mid file as notes."""
    conditions = dict(given)
    for name, value in given.items():
        if name == "midi":
            conditions[name] = read_midi(value)
        elif isinstance(value, Path):
            audio = read_audio(value, rate_hz)
            if audio.converted:
                print(f"{value}: converted from {', '.join(audio.converted)} to mono {rate_hz} Hz")
            conditions[name] = audio.samples
    return conditions


class Listing:
    """OUT/samples.json: a row for each result, with the id, task and corpus that it is of and the names of its files.

    A row is written before its files, so that a kill leaves no file without its row. A file that no row names is
    someone else's, and its name is taken.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "samples.json"
        self.rows = {_identity(row): row for row in _read_rows(self.path)}
        files = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        self.taken = {name_key(name) for name in [*files, *map(_file_of, self.rows.values())]}

    def stem_of(self, about: dict[str, Any]) -> str:
        """The name, without ending, for the files of a result: that of its earlier row, else a free one like its id."""
        stem = _file_of(self.rows.get(_identity(about), {})).split(".")[0]
        return stem if stem and safe_name(stem) == stem else safe_name(about["id"], self.taken)

    def next_stem(self, task: str) -> str:
        """TASK_NNN, numbered after the highest that a file or a row has."""
        found = [re.fullmatch(rf"{task}_([0-9]+)", name) for name in self.taken]
        return f"{task}_{1 + max((int(match[1]) for match in found if match), default=-1):03d}"

    def has(self, about: dict[str, Any]) -> bool:
        """Whether there is a result that was made from just this, with its file."""
        row = self.rows.get(_identity(about), {})
        return about.items() <= row.items() and (self.folder / _file_of(row)).is_file()

    def put(self, row: dict[str, Any]) -> None:
        """Writes a row, in place of the earlier one of the same id, task and corpus."""
        self.rows.pop(_identity(row), None)
        self.rows[_identity(row)] = row
        self.taken.add(name_key(_file_of(row)))
        write_json(self.path, list(self.rows.values()))


def _read_rows(path: Path) -> list[dict[str, Any]]:
    wanted = "a list of results, as this command writes it; move it away or choose another --out"
    rows = read_json(path, wanted, kind=list) if path.is_file() else []
    if not all(isinstance(row, dict) and "id" in row for row in rows):
        raise ValueError(f"{path}: got a list of other things, wanted {wanted}")
    return rows


def _identity(row: dict[str, Any]) -> tuple[str, ...]:
    return str(row["id"]), str(row.get("task")), str(row.get("corpus"))


def _file_of(row: dict[str, Any]) -> str:
    """The name of the file with what was generated."""
    return str(row.get("generated_file") or row.get("generated") or "")


class Result:
    """What becomes of one example: its row of samples.json, and its files by name, as waveforms or texts."""

    def __init__(self, run: Run, task: Task, stem: str, about: dict[str, Any]):
        self.run, self.task, self.stem, self.row = run, task, stem, about
        self.files: dict[str, np.ndarray | str] = {}

    def add_wav(self, name: str, wav: np.ndarray, suffix: str = "") -> None:
        file = f"{self.stem}{suffix}.wav"
        self.files[file] = wav
        self.row |= wav_entry(name, file, len(wav) / self.run.codec.sample_rate_hz)

    def add_target(self, name: str, tokens: np.ndarray, suffix: str = "") -> None:
        """Tokens of the task's target, as audio or as text."""
        if self.task.makes_audio:
            self.add_wav(name, self.run.waveform_of(tokens), suffix)
        else:
            self.add_text(name, self.run.text_of(self.task.name, tokens), suffix)

    def add_text(self, name: str, text: str, suffix: str = "") -> None:
        file = f"{self.stem}{suffix}.txt"
        self.files[file] = text + "\n"
        self.row |= {name: text, f"{name}_file": file}

    def write(self, listing: Listing) -> dict[str, Any]:
        """Writes the row and then the files; returns the row."""
        listing.put(self.row)
        for name, content in self.files.items():
            if isinstance(content, str):
                with atomic_write(listing.folder / name) as partial:
                    partial.write_text(content, encoding="utf-8")
            else:
                write_audio(listing.folder / name, content, self.run.codec.sample_rate_hz)
        return self.row


def wav_entry(name: str, file: str, seconds: float) -> dict[str, Any]:
    """What samples.json says of a wav file."""
    return {name: file, f"{name}_seconds": round(seconds, 2)}


def write_heldout(run: Run, task: Task, options: GenerateOptions, heldout: HeldOut) -> list[dict[str, Any]]:
    """Writes what was generated for held-out examples, with references and condition audio beside it.

    Returns the rows of samples.json.
    """
    listing, examples = Listing(options.out), heldout.examples(options.count)
    if not examples:
        raise ValueError(f"{task.name}: none of the held-out examples fits a row of the run; see data.row_frames")
    streams = [example.streams for example in examples]
    generated = run.results_like(task.name, streams, options.sampling, options.rows)
    bar = tqdm(generated, total=len(examples), desc=task.name, unit=" examples", leave=False)
    return [_result_of(run, task, examples[number], items, listing).write(listing) for number, items in bar]


def _result_of(run: Run, task: Task, example: Example, generated: np.ndarray, listing: Listing) -> Result:
    about = {"id": example.id, "task": task.name, "corpus": example.corpus, "text": example.text}
    result = Result(run, task, listing.stem_of(about), about)
    result.add_target("generated", generated)
    result.add_target("reference", example.streams[task.target.key], ".reference")
    for stream in task.conditions:
        if KINDS[stream.kind].form == "codes":
            result.add_wav(stream.key, run.waveform_of(example.streams[stream.key]), f".{stream.key}")
    return result


def write_lines(run: Run, task: Task, options: GenerateOptions, lines: list[Line]) -> list[dict[str, Any]]:
    """Writes what was generated for each line that has no result yet; returns the rows of samples.json of all.

    A line that cannot be generated costs itself alone. Raises ValueError at the end, which names such lines.
    """
    listing, failed = Listing(options.out), list[str]()
    sampling = run.sampling_of(task.name, options.sampling)
    made = {"task": task.name, "step": run.step, "seconds": options.seconds, "sampling": asdict(sampling)}
    abouts = {line.number: {"id": line.id, **made, **line.written()} for line in lines}
    missing = [line for line in lines if not listing.has(abouts[line.number])]

    def prompt_of(line: Line) -> Prompt:
        conditions = read_conditions(line.given, run.codec.sample_rate_hz)
        return run.prompt(task.name, conditions, number=line.number, seconds=options.seconds)

    def prompts() -> Iterator[Prompt]:
        for line in missing:
            prompt = attempt(prompt_of, line)
            if isinstance(prompt, Refused):
                failed.append(f"{line.where}: {prompt}")
            else:
                yield prompt

    results = run.results(task.name, prompts(), options.sampling, options.rows)
    for number, tokens in tqdm(results, total=len(missing), desc=task.name, unit=" lines", leave=False):
        result = Result(run, task, listing.stem_of(abouts[number]), abouts[number])
        result.add_target("generated", tokens)
        result.write(listing)
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(lines)} lines could not be generated, the others are in {options.out}; "
            f"{'; '.join(failed[:MOST_REASONS])}{'; …' if len(failed) > MOST_REASONS else ''}"
        )
    return [listing.rows[_identity(about)] for about in abouts.values()]


def write_given(run: Run, task: Task, options: GenerateOptions) -> list[dict[str, Any]]:
    """Writes what was generated for the conditions on the command line; returns the row of samples.json."""
    listing, conditions = Listing(options.out), read_conditions(options.given(), run.codec.sample_rate_hz)
    stem = listing.next_stem(task.name)
    about = {"id": stem, "task": task.name, **{name: str(value) for name, value in options.given().items()}}
    if options.stream:
        pieces = run.stream(task.name, sampling=options.sampling, seconds=options.seconds, **conditions)
        return [_write_stream(pieces, listing, about, run.codec.sample_rate_hz)]
    generated = run.generate(task.name, sampling=options.sampling, seconds=options.seconds, **conditions)
    result = Result(run, task, stem, about)
    if task.makes_audio:
        result.add_wav("generated", generated)
    else:
        print(generated)
        result.add_text("generated", generated)
    return [result.write(listing)]


def _write_stream(
    pieces: Iterator[np.ndarray], listing: Listing, about: dict[str, Any], rate_hz: int
) -> dict[str, Any]:
    """Writes a wav file piece by piece, and prints a line after each; returns its row of samples.json, whose length is
    0 until the file is whole."""
    file, start = f"{about['id']}.wav", time.perf_counter()
    path = listing.folder / file
    first = list(itertools.islice(pieces, 1))  # what is wrong with the conditions is told before a row is written

    def reported() -> Iterator[np.ndarray]:
        samples = 0
        for piece in itertools.chain(first, pieces):
            samples += len(piece)
            elapsed = time.perf_counter() - start
            print(f"{path}: {samples / rate_hz:.2f} s of audio after {elapsed:.2f} s", flush=True)
            yield piece

    listing.put(about | wav_entry("generated", file, 0))
    row = about | wav_entry("generated", file, write_growing(path, reported(), rate_hz) / rate_hz)
    listing.put(row)
    return row


def generate(run: Run, task: Task, options: GenerateOptions, heldout: HeldOut | None) -> str:
    """Writes the results of one task into `options.out`; returns a line about them."""
    if options.texts:
        rows = write_lines(run, task, options, read_lines(options.texts, options.given()))
    else:
        rows = write_heldout(run, task, options, heldout) if heldout else write_given(run, task, options)
    seconds = sum(row.get("generated_seconds", 0) for row in rows)
    files = f"{len(rows)} wav files, {seconds:.1f} s of audio" if task.makes_audio else f"{len(rows)} texts"
    return f"{task.name}: {files}, from step {run.step}: {options.out}"


def main() -> None:
    with main_guard("the results that samples.json lists are kept; run the same command again for all of them"):
        options = parse(GenerateOptions, __doc__)
        use_compile_cache()
        tasks = [get_task(name) for name in options.task]
        for task in tasks:
            if options.stream and not task.makes_audio:
                raise ValueError(f"--stream writes audio, but task {task.name} makes text; leave it out")
        run = load_run(options.run, options.data_root)
        heldout = {}
        if options.split:
            heldout = {task.name: HeldOut(run.config, task.name, run.codec.passport()) for task in tasks}
        for task in tasks:
            out = options.out / task.name if len(tasks) > 1 else options.out
            print(generate(run, task, replace(options, out=out), heldout.get(task.name)))


if __name__ == "__main__":
    main()
