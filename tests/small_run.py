"""A small run on disk: random tokens in real shards, a random codec, a config file; shared by the tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import tensorflow_datasets as tfds
from flax import nnx

from data_pipelines.batches import open_records
from data_pipelines.index import make_index, write_index, write_passport
from uniaudio_jax.codec.codec import load_codec, save_codec
from uniaudio_jax.codec.config import CodecConfig, QuantizerConfig
from uniaudio_jax.codec.layouts.frame_rate import FrameRateConfig
from uniaudio_jax.codec.module import build_module
from uniaudio_jax.tasks import DRAWN, KINDS, Kind, Task, get_task
from uniaudio_jax.vocab import Vocabulary

REPO = Path(__file__).parents[1]
TEXT_WIDTH = 7
APPENDED = {"text": 23, "class_event": 13, "sv_bool": 2, "language": 5}
VOCABULARY = Vocabulary(codebooks=3, appended=APPENDED)
LEVELS = 5
"""Codebooks of the codec; the model knows the first three."""
CONFIG = """
from dataclasses import replace
from configs import base
from uniaudio_jax.config import OptimConfig, StackConfig

def get_config():
    run = base.get_config()
    stack = StackConfig(layers=2, width=30, heads=5)
    return replace(run, name="small", codec="{codec}",
        model=replace(run.model, context_frames=151, text_width={text_width}, global_stack=stack, local_stack=stack),
        data=replace(run.data, root="{root}", row_frames=101, target_frames=53, rows=4, text_frames=13,
                     prompt_seconds=0.2),
        train=replace(run.train, steps={steps}, log_every_steps=1, save_every_steps=17, local_chunk_frames=64,
                      peak_tflops=1.0),
        optim=OptimConfig(warmup_steps=5))
"""


def write_codec(folder: Path, name: str = "random", seed: int = 0) -> Path:
    """A codec with random weights: tiny, but whole."""
    config = CodecConfig(
        name=name,
        layout=FrameRateConfig(width=10, hidden=14, encoder_blocks=1, decoder_blocks=1),
        quantizer=QuantizerConfig(codebooks=LEVELS, entries=1024, width=6),
    )
    params = nnx.to_pure_dict(nnx.state(build_module(config, nnx.Rngs(seed)), nnx.Param))
    books = np.random.default_rng(seed).normal(size=(LEVELS, 1024, 6)).astype(np.float32)
    save_codec(folder, config, jax.device_get({**params, "quantizer": {"codebooks": books}}))
    return folder


def write_dataset(root: Path, task: Task, codec: Path, examples: int = 41) -> Path:
    """A dataset of random streams in the builder's layout, with both splits."""
    place = root / task.name / "random" / "1.0.0"
    streams = [stream for stream in task.streams if stream.source != DRAWN]
    kinds = {
        "codes": tfds.features.Tensor(shape=(None, LEVELS), dtype=np.int16),
        "ids": tfds.features.Tensor(shape=(None,), dtype=np.int16),
        "vectors": tfds.features.Tensor(shape=(None, TEXT_WIDTH), dtype=np.float16),
    }
    lengths: dict[str, dict[str, list[int]]] = {}
    splits = ("train", "heldout")

    class Tokens(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = task.name
        pkg_dir_path = None

        def _info(self):
            text = {key: tfds.features.Text() for key in ("id", "speaker", "text")}
            features = {stream.key: kinds[KINDS[stream.kind].form] for stream in streams}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({**text, **features}))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            rng = np.random.default_rng(splits.index(split))
            for number in range(examples if split == "train" else 7):
                content = {s.key: _random(KINDS[s.kind], int(rng.integers(2, 12)), rng) for s in streams}
                yield (
                    f"{split}{number}",
                    {"id": f"{split}{number}", "speaker": f"s{number % 3}", "text": "", **content},
                )

    builder = Tokens(data_dir=str(root), file_format="array_record", config=tfds.core.BuilderConfig(name="random"))
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
    for split in splits:
        records = list(open_records(place, split))
        lengths[split] = {s.key: [len(record[s.key]) for record in records] for s in streams}
        columns = {key: np.array(column) for key, column in lengths[split].items()}
        write_index(place / "index" / split, make_index(columns, [r["speaker"].decode() for r in records]))
    passport = {"task": task.name, "corpus": "random", "codec": load_codec(codec).passport(), "tokenizers": {}}
    write_passport(place, passport)
    return place


def _random(kind: Kind, length: int, rng: np.random.Generator) -> np.ndarray:
    if kind.form == "vectors":
        return rng.normal(size=(length, TEXT_WIDTH)).astype(np.float16)
    if kind.form == "codes":
        return rng.integers(0, 1024, (length, LEVELS)).astype(np.int16)
    return rng.integers(0, len(VOCABULARY.span(kind.span or "")), length).astype(np.int16)


def write_run(folder: Path, tasks: tuple[str, ...] = ("tts", "enhancement", "text_to_music"), steps: int = 30) -> Path:
    """Codec, datasets and config file below `folder`; returns the config's path."""
    codec = write_codec(folder / "codec")
    for name in tasks:
        write_dataset(folder / "tokens", get_task(name), codec)
    path = folder / "config.py"
    path.write_text(CONFIG.format(codec=codec, root=folder / "tokens", steps=steps, text_width=TEXT_WIDTH))
    return path


def environment(devices: int = 1) -> dict[str, str]:
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(REPO),
        "UNIAUDIO_CACHE": str(REPO / ".jax_cache"),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }


def python(*words: object, devices: int = 1) -> subprocess.Popen:
    """Starts `python -m …` in the checkout."""
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, words)],
        cwd=REPO,
        env=environment(devices),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    """Standard output and error of a process that must exit with `code`."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
    return out, err


def losses(run: Path) -> dict[int, float]:
    """Step → loss out of metrics.jsonl; a step that was done again counts as it was the last time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss/all"] for line in lines}
