"""Domains as folders: wav files and a manifest, made by all cores, whole or not at all."""

import itertools
import json
import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from data_pipelines.corpora import AUDIO_FIELDS, CLIP_FIELDS, SAMPLE_RATE_HZ, SPLITS, Clip
from data_pipelines.corpora.folder import MANIFEST, open_folder, write_manifest
from data_pipelines.synthetic.domains import Domain, Unit
from data_pipelines.synthetic.singing import write_midi
from uniaudio_jax.audio.files import write_audio

FORMAT = 3
RECIPE = "recipe.json"
HELDOUT_SHARE = 0.1
LEAST_CLIPS = 4
UNITS_AHEAD = os.cpu_count() or 1  # so that no process waits for the files of an earlier unit


def make_pool() -> ProcessPoolExecutor:
    """A process for each core. They are spawned: each has its own espeak, and inherits no lock of ours."""
    return ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"))


def progress_bar(minutes: float, name: str) -> tqdm:
    """A bar of minutes of audio."""
    return tqdm(
        total=minutes,
        desc=name,
        unit="min",
        bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} min of audio [{elapsed}<{remaining}]",
    )


def recipe_of(domain: Domain, minutes: float, seed: int) -> dict[str, Any]:
    """What the bytes of a domain's folder follow from."""
    return {"format": FORMAT, "minutes": minutes, "seed": seed, "made_from": list(domain.made_from)}


def is_finished(place: Path, recipe: dict[str, Any]) -> bool:
    """Whether the domain stands there with this recipe. Raises ValueError where it would overwrite something else."""
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return False
    if not (place / RECIPE).is_file():
        raise ValueError(
            f"{place}: got a folder that is not this program's, wanted a new or empty one; "
            "choose another --out or move it away"
        )
    return json.loads((place / RECIPE).read_text()) == recipe


def write_domain(place: Path, domain: Domain, minutes: float, seed: int, pool: Executor, bar: tqdm) -> None:
    """Makes the folder `place`: `train/`, `heldout/`, a manifest and the recipe; a finished one is left alone.

    It appears whole or not at all, and one with another recipe is replaced. About `minutes` of it are made, a tenth
    held out, but at least 4 clips of each split, and held out a unit of every speaker, kind or language trained on.
    """
    recipe, start = recipe_of(domain, minutes, seed), bar.n
    if not is_finished(place, recipe):
        partial = place.with_name(f".{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        rows = []
        for clip in clips(place.name, domain, minutes, seed, pool):
            rows.append(_write_clip(partial, clip))
            bar.update(min(_seconds(clip) / 60, max(0.0, start + minutes - bar.n)))
        write_manifest(partial / MANIFEST, rows)
        (partial / RECIPE).write_text(json.dumps(recipe))
        if place.exists():
            shutil.rmtree(place)
        os.replace(partial, place)
    bar.update(start + minutes - bar.n)


def clips(name: str, domain: Domain, minutes: float, seed: int, pool: Executor) -> Iterator[Clip]:
    """The clips of a domain, train then held out."""
    least_units = 1
    for split in SPLITS:
        wanted = minutes * 60 * (HELDOUT_SHARE if split == "heldout" else 1 - HELDOUT_SHARE)
        units = (Unit(domain=name, seed=seed, split=split, number=number) for number in itertools.count())
        seconds, count = 0.0, 0
        for number, made in enumerate(_in_order(domain.make, units, pool), 1):
            yield from made
            seconds, count = seconds + sum(map(_seconds, made)), count + len(made)
            if seconds >= wanted and count >= LEAST_CLIPS and number >= least_units:
                least_units = min(number, domain.variety)
                break


def _in_order(make: Callable[[Unit], list[Clip]], units: Iterable[Unit], pool: Executor) -> Iterator[list[Clip]]:
    """What `make` makes of each unit, in their order; several are under way at a time."""
    waiting = deque()
    try:
        for unit in units:
            waiting.append(pool.submit(make, unit))
            if len(waiting) > UNITS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def summary(root: Path, domains: Iterable[str]) -> str:
    """The minutes of each domain's targets, and how many speakers there are: "music 1.2 min, 12 speakers"."""
    made = {name: open_folder(root / name).entries for name in domains}
    seconds = {
        name: sum(soundfile.info(entry.audio["audio"].path).duration for entry in entries)
        for name, entries in made.items()
    }
    speakers = {entry.about["speaker"] for entries in made.values() for entry in entries if "speaker" in entry.about}
    return ", ".join(
        [*(f"{name} {length / 60:.1f} min" for name, length in seconds.items()), f"{len(speakers)} speakers"]
    )


def _seconds(clip: Clip) -> float:
    return 0.0 if clip.audio is None else len(clip.audio) / SAMPLE_RATE_HZ


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
