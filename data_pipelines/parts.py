"""Parts of a dataset: a fixed number of clips, tokenised together and kept in one file until the shards are written.

A part is a function of its job and number alone, so a build that was killed goes on with the parts that are missing,
and Beam's workers make the same parts as one machine does.
"""

import functools
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.corpora import SPLITS, Clip, Corpus, Entry, Split
from data_pipelines.corpora.opening import open_corpus
from data_pipelines.mixers import DERIVED, MixerOptions, Pool, derive
from data_pipelines.streams import Tokenizers, fields_of, recorded
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import TokenizerPaths
from uniaudio_jax.tasks import Task, get_task

PART_CLIPS = 256


@dataclass(frozen=True)
class Job:
    """What the clips of a dataset are made from and with; plain values, for other processes and machines."""

    corpus: str
    task: str
    codec: str
    sounds: str | None = None
    mixers: MixerOptions = field(default_factory=MixerOptions)
    tokenizers: TokenizerPaths = field(default_factory=TokenizerPaths)
    seed: int = 0


@dataclass
class Part:
    """Examples (id, speaker, text and the streams by key), clips that were refused, and counts of what was done."""

    examples: list[dict[str, Any]]
    rejects: list[dict[str, str]]
    counts: Counter[str]


class Worker:
    """A job opened in this process: its corpus, codec and tokenizers."""

    def __init__(self, job: Job, tokenizers: Tokenizers | None = None, corpus: Corpus | None = None):
        self.job, self.task = job, get_task(job.task)
        self.corpus = corpus or open_corpus(job.corpus)
        self.tokenizers = tokenizers or Tokenizers(load_codec(job.codec), job.tokenizers)
        self.entries: dict[Split, list[Entry]] = {
            split: [self.corpus.entries[number] for number in self.corpus.numbers(split)] for split in SPLITS
        }

    @functools.cached_property
    def pool(self) -> Pool:
        return Pool(self.corpus, open_corpus(self.job.sounds) if self.job.sounds else None)

    def part_count(self, split: Split) -> int:
        return -(-len(self.entries[split]) // PART_CLIPS)

    def parts(self, split: Split, numbers: Sequence[int]) -> Iterator[tuple[int, Part]]:
        """These parts one after the other; the clips of the next are read while this one goes through the codec."""
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            waiting: list[tuple[int, list[tuple[Entry, Future]]]] = []
            for number in [*numbers, None]:
                if number is not None:
                    entries = self.entries[split][number * PART_CLIPS : (number + 1) * PART_CLIPS]
                    waiting.append((number, [(entry, threads.submit(self._prepare, entry)) for entry in entries]))
                if len(waiting) == 2 or number is None and waiting:
                    first, futures = waiting.pop(0)
                    yield first, self._finish(split, futures)
            for last, futures in waiting:
                yield last, self._finish(split, futures)

    def _prepare(self, entry: Entry) -> tuple[Clip, dict[str, np.ndarray | None]]:
        """The clip with its derived fields, and its streams apart from those that are made in batches."""
        wanted = [name for stream in recorded(self.task) for name in fields_of(stream)]
        clip = self.corpus.read(entry, self.tokenizers.codec.config.sample_rate_hz)
        clip = derive(clip, [name for name in wanted if name in DERIVED], self.pool, self.job.mixers, self.job.seed)
        return clip, {stream.key: self.tokenizers.encode_clip(stream, clip) for stream in recorded(self.task)}

    def _finish(self, split: Split, futures: Sequence[tuple[Entry, Future]]) -> Part:
        part = Part([], [], Counter())
        clips: list[Clip] = []
        for entry, future in futures:
            try:
                clip, streams = future.result()
            except (ValueError, OSError) as error:
                part.rejects.append({"id": entry.id, "split": split, "where": entry.where, "reason": str(error)})
                continue
            clips.append(clip)
            about = {"id": clip.id, "speaker": clip.speaker or clip.id, "text": _text_of(clip)}
            part.examples.append({**about, **streams})
            part.counts.update([f"clips {split}", *(f"converted from {what}" for what in clip.converted)])
        if clips:
            for stream in recorded(self.task):
                if part.examples[0][stream.key] is None:
                    made = self.tokenizers.encode_batch(stream, clips)
                    for example, value in zip(part.examples, made, strict=True):
                        example[stream.key] = value
        part.counts.update({"clips refused": len(part.rejects)} if part.rejects else {})
        return part


def _text_of(clip: Clip) -> str:
    return " | ".join(text for text in (clip.text, clip.instruction, ", ".join(clip.labels or ())) if text)


@functools.lru_cache(maxsize=1)
def open_worker(job: Job) -> Worker:
    """The worker of a job, opened once in each process."""
    return Worker(job)


def part_path(folder: Path, split: Split, number: int) -> Path:
    return folder / f"{split}-{number:06d}.npz"


def save_part(path: Path, part: Part, task: Task) -> None:
    """Writes a part by an atomic rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = [stream.key for stream in recorded(task)]
    about = [{name: example[name] for name in ("id", "speaker", "text")} for example in part.examples]
    told = json.dumps({"about": about, "rejects": part.rejects, "counts": part.counts})
    arrays: dict[str, Any] = {"told": np.frombuffer(told.encode(), np.uint8)}
    for key in keys if part.examples else ():
        columns = [example[key] for example in part.examples]
        arrays[key], arrays[f"{key} length"] = np.concatenate(columns), np.array([len(column) for column in columns])
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_part(path: Path, task: Task) -> Part:
    """The part that `save_part` wrote."""
    with np.load(path) as arrays:
        told = json.loads(arrays["told"].tobytes())
        examples = told["about"]
        for key in [stream.key for stream in recorded(task)] if examples else ():
            columns = np.split(arrays[key], np.cumsum(arrays[f"{key} length"])[:-1])
            for example, column in zip(examples, columns, strict=True):
                example[key] = column
    return Part(examples, told["rejects"], Counter(told["counts"]))


def make_part(job: Job, folder: Path, split: Split, number: int) -> Path:
    """The file of one part, made unless it is there: what a Beam worker does."""
    path = part_path(folder, split, number)
    if not path.is_file():
        worker = open_worker(job)
        ((_, part),) = worker.parts(split, [number])
        save_part(path, part, worker.task)
    return path


def examples_of_part(job: Job, folder: Path, split: Split, number: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, record) of each example of a part, made first if need be."""
    for example in load_part(make_part(job, folder, split, number), get_task(job.task)).examples:
        yield example["id"], example
