"""A small run on disk: random tokens in real shards, a random codec, a config file; shared by the tests."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from data_pipelines.corpora import SPLITS
from data_pipelines.parts import listing_of
from data_pipelines.store import ColumnWriter, Example, column_features, column_folder
from data_pipelines.views import write_task
from uniaudio_jax.checkpoint import Checkpoints, describe, state_items
from uniaudio_jax.codec.codec import load_codec, save_codec
from uniaudio_jax.codec.config import CodecConfig, QuantizerConfig
from uniaudio_jax.codec.layouts.frame_rate import FrameRateConfig
from uniaudio_jax.codec.module import build_module
from uniaudio_jax.config import MeshConfig, RunConfig
from uniaudio_jax.config_files import load_config
from uniaudio_jax.programs import Programs
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.tasks import KINDS, MASKED, Stream, get_task
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
from uniaudio_jax.config import MODERN, PAPER, OptimConfig, StackConfig

def get_config():
    run = base.get_config()
    stack = StackConfig(layers=2, width=30, heads=6)
    return replace(run, name="small", codec="{codec}",
        model=replace(run.model, layout={layout}, context_frames=151, text_width={text_width}, global_stack=stack,
                      local_stack=stack),
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


def write_tokens(root: Path, tasks: tuple[str, ...], codec: Path, corpus: str = "random", clips: int = 41) -> None:
    """Columns of random tokens for these tasks, as the builder lays them out, with both splits."""
    for name in tasks:
        for stream in get_task(name).columns:
            if not column_folder(root, corpus, stream.key).exists():
                _write_column(root, stream, codec, corpus, clips)
        write_task(root, corpus, get_task(name))


def _write_column(root: Path, stream: Stream, codec: Path, corpus: str, clips: int) -> None:
    is_code = KINDS[stream.kind].form == "codes" and stream.source != MASKED
    passport = {
        "stream": stream.key,
        "corpus": corpus,
        "corpus_sha256": "",
        "frame_rate_hz": 50.0,
        "tokenizer": {},
        "codec": load_codec(codec).passport() if is_code else None,
        "licence": "",
        "source": "",
    }
    features = column_features(stream.key, LEVELS, TEXT_WIDTH)
    writer = ColumnWriter(column_folder(root, corpus, stream.key), passport, dict.fromkeys(SPLITS, 1), features)
    for number, split in enumerate(SPLITS):
        rng = np.random.default_rng([number, *stream.key.encode()])
        examples = []
        for clip in range(clips if split == "train" else 7):
            tokens = np.array([1, 2], np.int32) if stream.source == MASKED else _random(stream.kind, rng)
            examples.append(Example(clip, f"{split}{clip}", f"s{clip % 3}", "", tokens))
        with writer.open_shard(split, 0) as write:
            for example in examples:
                write(example)
        writer.finish_shard(split, 0, listing_of(examples, [], Counter()))
    writer.finish()


def _random(kind: str, rng: np.random.Generator) -> np.ndarray:
    form, length = KINDS[kind].form, int(rng.integers(2, 12))
    if form == "vectors":
        return rng.normal(size=(length, TEXT_WIDTH)).astype(np.float16)
    if form == "codes":
        return rng.integers(0, 1024, (length, LEVELS)).astype(np.int16)
    return rng.integers(0, len(VOCABULARY.span(KINDS[kind].span or "")), length).astype(np.int16)


def write_run(
    folder: Path,
    tasks: tuple[str, ...] = ("tts", "enhancement", "text_to_music"),
    steps: int = 30,
    layout: str = "MODERN",
) -> Path:
    """Codec, datasets and config file below `folder`, with a layout by its name in config.py; returns the config's
    path."""
    codec = write_codec(folder / "codec")
    write_tokens(folder / "tokens", tasks, codec)
    path = folder / "config.py"
    path.write_text(
        CONFIG.format(codec=codec, root=folder / "tokens", steps=steps, text_width=TEXT_WIDTH, layout=layout)
    )
    return path


def write_untrained_run(folder: Path, tasks: tuple[str, ...]) -> Path:
    """A run folder with fresh weights as its checkpoint of step 3, and the data of these tasks beside it."""
    config = load_config(write_run(folder, tasks), RunConfig)
    model = replace(config.model, appended=APPENDED)
    config = replace(config, model=model, data=replace(config.data, tasks=dict.fromkeys(tasks, 1.0)))
    state = Programs(model, config.train, config.optim, make_mesh(MeshConfig(), jax.devices()[:1])).init(
        jax.random.key(0)
    )
    checkpoints = Checkpoints(folder / "run")
    checkpoints.save(3, state_items(state), describe(config, load_codec(folder / "codec").passport()))
    checkpoints.close()
    return folder / "run"


def environment(devices: int = 1) -> dict[str, str]:
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(REPO),
        "UNIAUDIO_CACHE": str(REPO / ".jax_cache"),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }


def free_address() -> str:
    """HOST:PORT on this machine, where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


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
    try:
        out, err = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
    return out, err


def losses(run: Path) -> dict[int, float]:
    """Step → loss out of metrics.jsonl; a step that was done again counts as it was the last time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss/all"] for line in lines}
