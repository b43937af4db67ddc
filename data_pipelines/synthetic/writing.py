"""Domains as folders of wav files with a manifest, made by all cores, whole or not at all."""

import itertools
import json
import multiprocessing
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import soundfile
from tqdm import tqdm

from data_pipelines.corpora import AUDIO_FIELDS, CLIP_FIELDS, SAMPLE_RATE_HZ, SPLITS, Clip, Split
from data_pipelines.corpora.folder import MANIFEST, open_folder, write_manifest
from data_pipelines.synthetic.domains import Domain, Unit
from data_pipelines.synthetic.singing import write_midi
from uniaudio_jax.audio.files import write_audio
from uniaudio_jax.files import read_json, write_json

FORMAT = 3
RECIPE = "recipe.json"
JOURNAL = "written.jsonl"
HELDOUT_SHARE = 0.1
LEAST_CLIPS = 4
UNITS_AHEAD = os.cpu_count() or 1  # so that no process waits for the files of an earlier unit


def make_pool() -> ProcessPoolExecutor:
    """A process for each core. They are spawned, so that each has its own espeak and inherits no lock."""
    return ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"))


def progress_bar(minutes: float, name: str) -> tqdm:
    """A bar of minutes of audio."""
    return tqdm(
        total=minutes,
        desc=name,
        unit="min",
        bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} min of audio [{elapsed}<{remaining}]",
    )


class Plan(NamedTuple):
    """What a folder shall hold."""

    domain: Domain
    minutes: float
    seed: int

    @property
    def recipe(self) -> dict[str, Any]:
        """What the bytes of the folder follow from."""
        sources = list(self.domain.sources)
        return {"format": FORMAT, "minutes": self.minutes, "seed": self.seed, "made_from": sources}


def write_domains(title: str, out: Path, plans: Mapping[str, Plan]) -> None:
    """Writes a folder below `out` for each plan, by all cores, and prints a line about them."""
    start = time.monotonic()
    with make_pool() as pool, progress_bar(sum(plan.minutes for plan in plans.values()), title) as bar:
        for name, plan in plans.items():
            write_domain(out / name, plan, pool, bar)
    print(f"{title}: {out}: {summary(out, plans)}, {time.monotonic() - start:.0f} s")


def is_finished(folder: Path, recipe: dict[str, Any]) -> bool:
    """Whether the folder has this recipe. Raises ValueError where something else would be overwritten."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / RECIPE).is_file():
        raise ValueError(
            f"{folder}: got a folder that is not this program's, wanted a new or empty one; "
            "choose another --out or move it away"
        )
    return read_json(folder / RECIPE, "a recipe of this program; delete the folder to make it anew") == recipe


def write_domain(folder: Path, plan: Plan, pool: Executor, bar: tqdm) -> None:
    """Writes `train/`, `heldout/`, a manifest and the recipe into `folder`; leaves a finished one alone.

    The folder appears whole or not at all, and replaces one with another recipe. One that was cut off goes on from its
    last whole unit. About a tenth of the minutes is held out, but each split has at least 4 clips, and every speaker,
    kind or language trained on has a unit held out.
    """
    start = bar.n
    if not is_finished(folder, plan.recipe):
        partial = folder.with_name(f".{folder.name}.partial")
        rows = []
        for unit in _units(partial, folder.name, plan, pool):
            rows += unit.rows
            bar.update(min(unit.seconds / 60, max(0.0, start + plan.minutes - bar.n)))
        write_manifest(partial / MANIFEST, rows)
        (partial / JOURNAL).unlink()
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    bar.update(start + plan.minutes - bar.n)


class WrittenUnit(NamedTuple):
    """The rows of the manifest of a unit whose files are written."""

    split: Split
    number: int
    seconds: float
    rows: list[dict[str, Any]]


def _units(partial: Path, name: str, plan: Plan, pool: Executor) -> Iterator[WrittenUnit]:
    """Every unit of a domain, those of training first, written below `partial` where an earlier start did not."""
    journal = partial / JOURNAL
    if not journal.is_file() or read_json(partial / RECIPE, "a recipe of this program") != plan.recipe:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_json(partial / RECIPE, plan.recipe)
    written = _read_journal(journal)
    least_units = 1
    with journal.open("a", encoding="utf-8") as file:
        for split in SPLITS:
            least_seconds = plan.minutes * 60 * (HELDOUT_SHARE if split == "heldout" else 1 - HELDOUT_SHARE)
            before = [unit for unit in written if unit.split == split]
            numbers = itertools.count(len(before))
            units = (Unit(domain=name, seed=plan.seed, split=split, number=number) for number in numbers)
            made = (_write_unit(partial, file, *pair) for pair in _in_order(plan.domain.make, units, pool))
            seconds, count = 0.0, 0
            for unit in itertools.chain(before, made):
                yield unit
                seconds, count = seconds + unit.seconds, count + len(unit.rows)
                number = unit.number + 1
                if seconds >= least_seconds and count >= LEAST_CLIPS and number >= least_units:
                    least_units = min(number, plan.domain.variety)
                    break


def _read_journal(journal: Path) -> list[WrittenUnit]:
    """The units that an earlier start wrote; a line that was cut off is removed, its unit is made again."""
    lines = journal.read_bytes().splitlines(keepends=True) if journal.is_file() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    journal.write_bytes(b"".join(whole))
    return [WrittenUnit(**json.loads(line)) for line in whole]


def _write_unit(root: Path, journal: TextIO, unit: Unit, clips: list[Clip]) -> WrittenUnit:
    """Writes the files of a unit, and then its line of the journal."""
    seconds = sum(0.0 if clip.audio is None else len(clip.audio) / SAMPLE_RATE_HZ for clip in clips)
    rows = [_write_clip(root, clip) for clip in clips]
    written = WrittenUnit(unit.split, unit.number, seconds, rows)
    journal.write(json.dumps(written._asdict(), default=lambda value: value.tolist()) + "\n")
    journal.flush()
    return written


def _in_order(
    make: Callable[[Unit], list[Clip]], units: Iterable[Unit], pool: Executor
) -> Iterator[tuple[Unit, list[Clip]]]:
    """Each unit with the clips that `make` returns for it, in their order; the pool works on several at a time."""
    waiting = deque()
    try:
        for unit in units:
            waiting.append((unit, pool.submit(make, unit)))
            if len(waiting) > UNITS_AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def summary(root: Path, domains: Iterable[str]) -> str:
    """The minutes of each domain, and how many speakers there are: "music 1.2 min, 12 speakers"."""
    parts, speakers = [], set()
    for name in domains:
        entries = open_folder(root / name).entries
        seconds = sum(soundfile.info(entry.audio["audio"].path).duration for entry in entries)
        parts.append(f"{name} {seconds / 60:.1f} min")
        speakers |= {entry.about["speaker"] for entry in entries if "speaker" in entry.about}
    return ", ".join([*parts, f"{len(speakers)} speakers"])


def _write_clip(root: Path, clip: Clip) -> dict[str, Any]:
    """Writes the files of a clip, its notes as a .mid file too; returns its row of the manifest."""
    row = {name: value for name in CLIP_FIELDS if (value := getattr(clip, name)) is not None}
    for name in AUDIO_FIELDS:
        if name in row:
            path = f"{clip.split}/{clip.id}{'' if name == 'audio' else f'-{name}'}.wav"
            write_audio(root / path, row[name], SAMPLE_RATE_HZ)
            row[name] = path
    if clip.midi is not None:
        write_midi(root / clip.split / f"{clip.id}.mid", clip.midi)
    return {"id": clip.id, "split": clip.split, **row}
