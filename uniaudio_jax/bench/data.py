"""The loader: frames per second against what the model consumes, and resident memory at a hundredfold set."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from data_pipelines.batches import RECORDS_PER_SHARD, BatchStream, Dataset, Rows, Source, limits_of, make_batches
from data_pipelines.index import make_index, write_index, write_passport
from data_pipelines.plan import Examples
from uniaudio_jax.bench.options import DataBench
from uniaudio_jax.bench.synthetic import tts_batch
from uniaudio_jax.config import RunConfig, load_config
from uniaudio_jax.programs import Programs
from uniaudio_jax.sharding import make_mesh, place_batch
from uniaudio_jax.vocab import PHONES, Vocabulary

DISTINCT = 1009
"""Different contents; the records of a set repeat them, each with its own place in the shard."""


def run(options: DataBench) -> dict[str, Any]:
    """Frames/s and records/s of the loader and of training, and the loader's resident memory at both sizes."""
    with tempfile.TemporaryDirectory() as folder:
        large = write_records(Path(folder) / "large", options.records)
        small = write_records(Path(folder) / "small", max(DISTINCT, options.records // 100))
        loads = {name: _load_in_fresh_process(place, options) for name, place in (("large", large), ("small", small))}
    step = _train_frames_per_second(load_config(options.config), options.rounds)
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


def write_records(place: Path, count: int) -> Path:
    """A dataset of task tts with `count` records of random tokens, as the builder lays one out."""
    rng, vocabulary = np.random.default_rng(0), Vocabulary(3)
    codes = tfds.features.Tensor(shape=(None, vocabulary.codebooks), dtype=np.int16)
    text = tfds.features.Text()
    features = tfds.features.FeaturesDict(
        {
            "id": text,
            "speaker": text,
            "text": text,
            "audio": codes,
            "phone": tfds.features.Tensor(shape=(None,), dtype=np.int16),
        }
    )
    lengths = {"phone": rng.integers(5, 40, DISTINCT), "audio": rng.integers(25, 150, DISTINCT)}
    contents = [
        features.serialize_example(
            features.encode_example(
                {
                    "id": str(n),
                    "speaker": f"speaker {n % 97}",
                    "text": "",
                    "phone": rng.integers(0, PHONES, lengths["phone"][n]).astype(np.int16),
                    "audio": rng.integers(0, 1024, (lengths["audio"][n], 3)).astype(np.int16),
                }
            )
        )
        for n in range(DISTINCT)
    ]
    place.mkdir(parents=True)
    starts = range(0, count, RECORDS_PER_SHARD)
    sizes = [min(RECORDS_PER_SHARD, count - start) for start in starts]
    for shard, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        name = f"tts-train.array_record-{shard:05d}-of-{len(sizes):05d}"
        writer = ArrayRecordWriter(str(place / name), "group_size:1")
        for number in range(start, start + size):
            writer.write(contents[number % DISTINCT])
        writer.close()
    template = tfds.core.ShardedFileTemplate(
        dataset_name="tts", split="train", filetype_suffix="array_record", data_dir=epath.Path(place)
    )
    split = tfds.core.SplitInfo(name="train", shard_lengths=sizes, num_bytes=0, filename_template=template)
    tfds.folder_dataset.write_metadata(data_dir=str(place), features=features, split_infos=[split], check_data=False)
    number = np.arange(count) % DISTINCT
    speakers = np.char.add("speaker ", (number % 97).astype(str))
    write_index(place / "index" / "train", make_index({k: v[number] for k, v in lengths.items()}, speakers))
    write_passport(place, {"task": "tts", "tokenizers": {}, "codec": {"sample_rate_hz": 16000, "hop_samples": 320}})
    return place


def _load_in_fresh_process(place: Path, options: DataBench) -> dict[str, float]:
    """What `load` measures, in a process of its own so that its peak memory is the loader's."""
    command = [sys.executable, "-m", "uniaudio_jax.bench.data", str(place), options.config, str(options.batches)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"the loader's process failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def load(place: Path, config: RunConfig, batches: int) -> dict[str, float]:
    """Opens the dataset, makes `batches` batches spread over its epoch, and says how fast and at what peak memory."""
    start = time.perf_counter()
    dataset, vocabulary = Dataset(place, "train"), config.model.ids
    limits = limits_of(config.data, "target", 50)
    examples = Examples(dataset.index, dataset.task, limits, 0)
    rows = Rows([Source(examples, dataset.records)], [1.0], limits, 0, vocabulary, config.model.text_width)
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
    print(json.dumps(load(Path(folder), load_config(config_path), int(number))))
