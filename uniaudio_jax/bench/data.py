"""The loader: frames per second against what the model consumes; how it opens, resumes and grows with the records.

The corpus is synthetic (`records.py` says what of it is real); it is opened as a training opens it, each time in a
process of its own, so that its peak memory is the loader's. With --hosts N the share of the first of N processes is
loaded, while the plan is made for the rows of all, as each process makes it. All reads find their pages in memory; of
a disk or network that is slower, a wait of READ_SECONDS before each read gives an idea.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipelines.batches import BatchStream, Records, TrainingData, open_training_data
from data_pipelines.plan import BLOCK, Plan
from data_pipelines.store import RECORDS_PER_SHARD
from uniaudio_jax.bench.options import RoundsOptions
from uniaudio_jax.bench.records import DISTINCT, TASKS, write_records
from uniaudio_jax.bench.synthetic import tts_batch
from uniaudio_jax.bench.timing import side_by_side
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import RunConfig
from uniaudio_jax.config_files import load_config
from uniaudio_jax.flops import forward_flops
from uniaudio_jax.programs import Programs
from uniaudio_jax.sharding import make_mesh, place_batch

POD_HOST = "4 chips of a pod"
CHIPS_OF_A_HOST, PEAK_OF_A_CHIP, UTILISATION = 4, 197e12, 0.4
"""A host of a TPU v5e pod: its chips, their bfloat16 operations a second, and the share of them that a run reaches."""
RESUMED_EPOCH, BLOCKS_PLANNED = 7, 300
READ_SECONDS, SLOW_ROWS = 0.005, 200


@dataclass(frozen=True, kw_only=True)
class Options(RoundsOptions):
    """The loader."""

    config: str = "configs/quickstart.py"
    """Config file whose rows and model are used."""
    records: int = 1_000_000
    """Records of the large set; the small one has a tenth of them."""
    hosts: int = 1
    """Processes that share the rows; the first one's share is loaded. From 2 on the loader is compared to what four
    chips of a v5e pod consume at 40 % of their peak, and not to a training on this machine."""
    batches: int = 200
    """Batches that are loaded in a round."""
    rounds: int = 3
    """Rounds of batches, of which the fastest counts, and training steps, after the warm-up."""


def run(options: Options) -> dict[str, Any]:
    """Frames/s of the loader and of training; at both sizes the loader's rates, seconds to open and resume, memory."""
    config, sizes = load_config(options.config, RunConfig), {}
    codec = load_codec(config.codec_of_tokens()).passport()
    for records in (max(DISTINCT, options.records // 10), options.records):
        with tempfile.TemporaryDirectory() as folder:
            write_records(Path(folder), records, config.model, codec)
            sizes[f"{records} records"] = _measure("load", folder, options) | _measure("resume", folder, options)
    loader = sizes[f"{options.records} records"]["frames/s"]
    alone = options.hosts == 1
    rival, consumed = (
        ("training", _train_frames_per_second(config, options.rounds)) if alone else (POD_HOST, need(config))
    )
    ratio = loader / consumed
    return {
        "unit": "frames/s",
        "rates": {"loader": loader, rival: consumed},
        "ratios": {rival: {"median": ratio, "min": ratio, "max": ratio}},
        "rounds": options.rounds,
        "hosts": options.hosts,
        "variants": sizes,
    }


def _measure(what: str, folder: str, options: Options) -> dict[str, float]:
    """What `load` or `resume` measures, in a fresh process."""
    words = [what, folder, options.config, options.hosts]
    words += [options.batches, options.rounds] if what == "load" else []
    command = [sys.executable, "-m", "uniaudio_jax.bench.data", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"the loader's process failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def open_records(root: Path, config: RunConfig, hosts: int) -> tuple[TrainingData, float]:
    """The first process's training data of the corpus at `root`; and when it began to open it."""
    data = replace(config.data, root=str(root), tasks=dict.fromkeys(TASKS, 1.0), loss_weights={})
    model, codec = config.model, load_codec(config.codec_of_tokens()).passport()
    start = time.perf_counter()
    return open_training_data(data, config.train.loss_on, model.ids, model.text_width, codec, 0, hosts), start


def load(root: Path, config: RunConfig, hosts: int, batches: int, rounds: int) -> dict[str, float]:
    """Opens the corpus, makes `batches` batches in each round, and says how fast and at what peak memory."""
    data, start = open_records(root, config, hosts)
    opened = time.perf_counter()
    with BatchStream(data.batches) as stream:
        next(stream)
        first = time.perf_counter()
        rates = np.array([_rates_of(stream, batches) for _ in range(rounds)])
    planned = _frames_planned_per_second(data.rows.plan, rounds)
    _touch_every_shard(data)
    megabytes = {"resident MB": _megabytes("VmHWM"), "MB without mapped files": _megabytes("RssAnon")}
    frames, examples = rates.max(axis=0)
    return {
        "frames/s": frames,
        "examples/s": examples,
        "frames/s planned, rows of all hosts": planned,
        "seconds to open": opened - start,
        "seconds to the first batch": first - start,
        **megabytes,
        "frames/s, reads that wait 5 ms": _slow_rate(data),
    }


def resume(root: Path, config: RunConfig, hosts: int) -> dict[str, float]:
    """Seconds until the first batch of a training that is opened again in its RESUMED_EPOCH.

    The plan's anchor is a block of that epoch; the number of its first row, which alone a training would have to run to
    know, is estimated. It changes no work.
    """
    data, start = open_records(root, config, hosts)
    block = RESUMED_EPOCH * sum(len(source.examples) for source in data.rows.sources) // BLOCK
    step = block * BLOCK // config.data.rows
    data.rows.plan.start_at({"block": block, "first_row": step * config.data.rows})
    with BatchStream(data.batches, step) as stream:
        next(stream)
        return {"seconds to the first batch, resumed": time.perf_counter() - start}


def need(config: RunConfig) -> float:
    """Frames a second that the chips of one host of a pod train on, padding included."""
    data = config.data
    counted = config.train.local_frames(data.row_frames if config.train.loss_on == "all" else data.target_frames)
    flops = 3 * forward_flops(config.model, data.row_frames, counted, data.row_frames)
    return UTILISATION * CHIPS_OF_A_HOST * PEAK_OF_A_CHIP * data.row_frames / flops


def _rates_of(stream: BatchStream, batches: int) -> tuple[float, float]:
    """Frames and examples a second."""
    start, frames, examples = time.perf_counter(), 0, 0
    for _ in range(batches):
        batch = next(stream)
        frames += int((batch.segments > 0).sum())
        examples += int(batch.segments.max(axis=1).sum())
    seconds = time.perf_counter() - start
    return frames / seconds, examples / seconds


def _frames_planned_per_second(plan: Plan, rounds: int) -> float:
    """How fast the plan packs rows, without reading a record, in the fastest round."""
    seconds = side_by_side({"plan": lambda: plan.fill(BLOCKS_PLANNED)}, rounds, warmup=0)["plan"]
    frames = plan.quota @ [source.mean_frames for source in plan.sources]
    return BLOCKS_PLANNED * float(frames) / min(seconds)


@dataclass(frozen=True)
class _SlowRecords:
    """Records, each of which comes after READ_SECONDS."""

    records: Records

    def tokens(self, number: int, key: str) -> np.ndarray:
        time.sleep(READ_SECONDS)
        return self.records.tokens(number, key)


def _slow_rate(data: TrainingData) -> float:
    """Frames a second where each read waits, as it does for a disk or a network."""
    data.rows.sources = [replace(source, records=_SlowRecords(source.records)) for source in data.rows.sources]
    with BatchStream(data.batches) as stream:
        return _rates_of(stream, -(-SLOW_ROWS // stream.size))[0]


def _touch_every_shard(data: TrainingData) -> None:
    """Reads a record of each shard, so that all are open, as they are after a while of training."""
    for view in data.views:
        for key in view.columns:
            for number in range(0, len(view), RECORDS_PER_SHARD):
                view.tokens(number, key)


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
    what, folder, config_path, *numbers = sys.argv[1:]
    measured = {"load": load, "resume": resume}[what]
    print(json.dumps(measured(Path(folder), load_config(config_path, RunConfig), *map(int, numbers))))
