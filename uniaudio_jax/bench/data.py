"""The loader: frames per second against what the model consumes, and resident memory at a hundredfold set."""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np

from data_pipelines.batches import BatchStream, Rows, Source, limits_of, make_batches
from data_pipelines.corpora import SPLITS, Split
from data_pipelines.plan import Examples
from data_pipelines.store import (
    RECORDS_PER_SHARD,
    ColumnWriter,
    Example,
    Listing,
    column_features,
    column_folder,
    speaker_hash,
)
from data_pipelines.views import View
from uniaudio_jax.bench.options import RoundsOptions
from uniaudio_jax.bench.synthetic import tts_batch
from uniaudio_jax.clock import FrameClock
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import RunConfig
from uniaudio_jax.config_files import load_config
from uniaudio_jax.programs import Programs
from uniaudio_jax.sharding import make_mesh, place_batch
from uniaudio_jax.tasks import get_task
from uniaudio_jax.vocab import PHONES


@dataclass(frozen=True, kw_only=True)
class Options(RoundsOptions):
    """The loader."""

    config: str = "configs/quickstart.py"
    """Config file whose rows and model are used."""
    records: int = 1_000_000
    """Records of the large set; the small one has a hundredth of them."""
    batches: int = 200
    """Batches that are loaded from each set."""
    rounds: int = 3
    """Training steps that are measured, after the warm-up."""


SPEAKERS, CODEBOOKS = 97, 3
DISTINCT = 1009
"""Different contents; the records of a set repeat them, each with its own place in the shard."""


def run(options: Options) -> dict[str, Any]:
    """Frames/s and records/s of the loader and of training, and the loader's resident memory at both sizes."""
    with tempfile.TemporaryDirectory() as folder:
        large = write_records(Path(folder) / "large", options.records)
        small = write_records(Path(folder) / "small", max(DISTINCT, options.records // 100))
        loads = {name: _load_in_fresh_process(place, options) for name, place in (("large", large), ("small", small))}
    step = _train_frames_per_second(load_config(options.config, RunConfig), options.rounds)
    loader = loads["large"]
    ratio = loader["frames_per_second"] / step
    return {
        "unit": "frames/s",
        "rates": {"loader": loader["frames_per_second"], "training": step},
        "ratios": {"training": {"median": ratio, "min": ratio, "max": ratio}},
        "rounds": options.rounds,
        "records_per_second": loader["records_per_second"],
        "seconds_to_open_and_plan": loader["open_seconds"],
        "resident_megabytes": {name: load["megabytes"] for name, load in loads.items()},
        "resident_megabytes_without_mapped_files": {name: load["own_megabytes"] for name, load in loads.items()},
        "resident_ratio_large_to_small": loads["large"]["megabytes"] / loads["small"]["megabytes"],
        "records": options.records,
    }


def write_records(root: Path, count: int) -> Path:
    """A corpus for task tts with `count` clips of random tokens, as the builder lays one out."""
    rng = np.random.default_rng(0)
    contents = {
        "phone": [rng.integers(0, PHONES, length).astype(np.int16) for length in rng.integers(5, 40, DISTINCT)],
        "audio": [
            rng.integers(0, 1024, (length, CODEBOOKS)).astype(np.int16) for length in rng.integers(25, 150, DISTINCT)
        ],
    }
    speakers = np.array([speaker_hash(str(number % SPEAKERS)) for number in range(DISTINCT)])
    codec = load_codec("tiny_16k").passport()
    for key, tokens in contents.items():
        passport = {
            "stream": key,
            "corpus": "random",
            "corpus_sha256": "",
            "frame_rate_hz": FrameClock.from_passport(codec).frame_rate_hz,
            "codec": codec if key == "audio" else None,
            "tokenizer": {},
            "licence": "",
            "source": "",
        }
        shards: dict[Split, int] = {"train": -(-count // RECORDS_PER_SHARD), "heldout": 1}
        place = column_folder(root, "random", key)
        writer = ColumnWriter(place, passport, shards, column_features(key, CODEBOOKS, None))
        lengths = np.array([len(array) for array in tokens], np.int32)
        for split, clips in zip(SPLITS, (np.arange(count), np.arange(1)), strict=True):
            for shard in range(shards[split]):
                numbers = clips[shard * RECORDS_PER_SHARD : (shard + 1) * RECORDS_PER_SHARD].astype(np.int32)
                with writer.open_shard(split, shard) as write:
                    for clip in numbers.tolist():
                        write(Example(clip, str(clip), str(clip % SPEAKERS), "", tokens[clip % DISTINCT]))
                content = numbers % DISTINCT
                listing = Listing(numbers, lengths[content], speakers[content], [], Counter())
                writer.finish_shard(split, shard, listing)
        writer.finish()
    return root


def _load_in_fresh_process(place: Path, options: Options) -> dict[str, float]:
    """What `load` measures, in a process of its own so that its peak memory is the loader's."""
    command = [sys.executable, "-m", "uniaudio_jax.bench.data", str(place), options.config, str(options.batches)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"the loader's process failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def load(root: Path, config: RunConfig, batches: int) -> dict[str, float]:
    """Opens the corpus, makes `batches` batches, and says how fast and at what peak memory."""
    start = time.perf_counter()
    view = View(root, "random", get_task("tts"), "train")
    limits = limits_of(config.data, "target", FrameClock.from_passport(view.passport["codec"]))
    examples = Examples(view.index, view.task, limits, 0)
    rows = Rows([Source(examples, view)], [1.0], limits, 0, config.model.ids, config.model.text_width)
    source: grain.MapDataset = make_batches(rows, config.data.rows, 0, 1)
    stream = BatchStream(source)
    next(stream)
    opened, frames, seen = time.perf_counter() - start, 0, 0
    start = time.perf_counter()
    for _ in range(batches):
        batch = next(stream)
        frames += int((batch.segments > 0).sum())
        seen += int(batch.segments.max(axis=1).sum())
    seconds = time.perf_counter() - start
    last = len(examples) * examples.mean_frames / config.data.row_frames / config.data.rows
    for far in np.linspace(0, last, 20).astype(int):
        source[int(far)]
    return {
        "frames_per_second": frames / seconds,
        "records_per_second": seen / seconds,
        "open_seconds": opened,
        "megabytes": _megabytes("VmHWM"),
        "own_megabytes": _megabytes("RssAnon"),
    }


def _megabytes(field: str) -> float:
    """Memory of this process: VmHWM is the resident peak, RssAnon what is not pages of mapped files.

    Not getrusage's peak, which a child inherits from its parent.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _train_frames_per_second(config: RunConfig, rounds: int) -> float:
    programs = Programs(config.model, config.train, config.optim, make_mesh(config.mesh, jax.devices()[:1]))
    batch = tts_batch(config, 0.4)
    placed, state = place_batch(batch, programs.mesh), programs.init(jax.random.key(0))
    times = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        state, metrics = programs.step(state, [placed])
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - start)
    return int((batch.segments > 0).sum()) / float(np.median(times[2:]))


if __name__ == "__main__":
    folder, config_path, number = sys.argv[1:]
    print(json.dumps(load(Path(folder), load_config(config_path, RunConfig), int(number))))
