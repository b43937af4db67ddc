"""A corpus of any number of clips for benchmarks of the loader, laid out as the builder does.

Real are the index (its rows, clip numbers, lengths and speakers; the column of phones lacks every 1010th clip, so that
columns must be joined), the number of shard files and of records in each, and the way that a record is read. Repeated
are the contents: DISTINCT different clips, and of the full shards the first alone is written; the others are hard links
to it. So ten million clips take a minute and a gigabyte, every read finds its page in memory, and nothing here says how
fast a cold disk or network answers.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.corpora import SPLITS, Split
from data_pipelines.store import (
    RECORDS_PER_SHARD,
    ColumnWriter,
    Example,
    Listing,
    column_features,
    column_folder,
    speaker_hash,
)
from data_pipelines.views import write_task
from uniaudio_jax.clock import FrameClock
from uniaudio_jax.config import ModelConfig
from uniaudio_jax.tasks import KINDS, STREAMS, get_task
from uniaudio_jax.vocab import PHONES

TASKS = ("tts", "text_to_music")
"""A task with a speaker prompt, and one with text vectors."""
LENGTHS = {"phone": (5, 40), "audio": (25, 150), "caption": (5, 35)}
"""Shortest length of each column, and the first that is too long. Short clips are many records for a frame."""
SPEAKERS, DISTINCT = 97, 1009


def write_records(root: Path, count: int, model: ModelConfig, codec: dict[str, Any]) -> Path:
    """A corpus for TASKS with `count` clips of random tokens, as this model reads them; returns `root`."""
    rng = np.random.default_rng(0)
    speakers = np.array([speaker_hash(str(number % SPEAKERS)) for number in range(DISTINCT)])
    shards: dict[Split, int] = {"train": -(-count // RECORDS_PER_SHARD), "heldout": 1}
    for key, (shortest, longest) in LENGTHS.items():
        lengths = rng.integers(shortest, longest, DISTINCT).astype(np.int32)
        contents = [random_tokens(key, length, model, rng) for length in lengths]
        features = column_features(key, model.codebooks, model.text_width)
        writer = ColumnWriter(column_folder(root, "random", key), passport_of(key, codec), shards, features)
        for split, records in zip(SPLITS, (count, 1), strict=True):
            for shard in range(shards[split]):
                numbers = np.arange(shard * RECORDS_PER_SHARD, min((shard + 1) * RECORDS_PER_SHARD, records))
                write_shard(writer, split, shard, contents[: len(numbers)], len(numbers))
                content = np.arange(len(numbers)) % DISTINCT
                clips = numbers + numbers // DISTINCT if key == "phone" else numbers
                listing = Listing(clips.astype(np.int32), lengths[content], speakers[content], [], Counter())
                writer.finish_shard(split, shard, listing)
        writer.finish()
    for task in TASKS:
        write_task(root, "random", get_task(task))
    return root


def write_shard(writer: ColumnWriter, split: Split, shard: int, contents: list[np.ndarray], records: int) -> None:
    """A shard of so many records: the first, and one that is not full, written; another as a link to the first."""
    if shard and records == RECORDS_PER_SHARD:
        os.link(writer.shard_path(split, 0), writer.shard_path(split, shard))
        return
    with writer.open_shard(split, shard) as write:
        for number in range(records):
            write(Example(number, str(number), str(number % SPEAKERS), "", contents[number % DISTINCT]))


def random_tokens(key: str, length: int, model: ModelConfig, rng: np.random.Generator) -> np.ndarray:
    """Random content of a column: codes [n, Q], ids [n] or vectors [n, W]."""
    form = KINDS[STREAMS[key].kind].form
    if form == "vectors":
        return rng.normal(size=(length, model.text_width)).astype(np.float16)
    shape, most = ((length, model.codebooks), model.entries) if form == "codes" else (length, PHONES)
    return rng.integers(0, most, shape).astype(np.int16)


def passport_of(key: str, codec: dict[str, Any]) -> dict[str, Any]:
    return {
        "stream": key,
        "corpus": "random",
        "corpus_sha256": "",
        "frame_rate_hz": FrameClock.from_passport(codec).frame_rate_hz,
        "codec": codec if key == "audio" else None,
        "tokenizer": {},
        "licence": "",
        "source": "",
    }
