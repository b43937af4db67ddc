"""Small models and random batches at prime sizes, shared by the tests."""

from dataclasses import replace

import jax
import numpy as np

from uniaudio_jax.config import MeshConfig, ModelConfig, OptimConfig, StackConfig, TrainConfig
from uniaudio_jax.programs import Programs
from uniaudio_jax.sequence import Batch, Frames, pack, to_frames
from uniaudio_jax.sharding import make_mesh, place_batch
from uniaudio_jax.tasks import KINDS, Stream, Task, get_task
from uniaudio_jax.vocab import Vocabulary

TEXT_WIDTH = 7
APPENDED = {"text": 23, "class_event": 13, "sv_bool": 2, "language": 5}
VOCABULARY = Vocabulary(codebooks=3, entries=11, appended=APPENDED)
MODEL = ModelConfig(
    entries=11,
    appended=APPENDED,
    context_frames=61,
    codebooks=3,
    text_width=TEXT_WIDTH,
    global_stack=StackConfig(layers=3, width=30, heads=5),
    local_stack=StackConfig(layers=2, width=30, heads=5),
)
WIDE = replace(
    MODEL, global_stack=StackConfig(layers=3, width=48, heads=8), local_stack=StackConfig(layers=2, width=48, heads=8)
)
"""A model whose sizes divide over eight devices."""
OPTIM = OptimConfig(warmup_steps=3)
TRAIN = TrainConfig(steps=5, local_chunk_frames=13)


def random_stream(stream: Stream, length: int, rng: np.random.Generator, vocabulary: Vocabulary = VOCABULARY):
    """Random content of a stream: codes [n, Q], ids [n] or vectors [n, W]."""
    kind = KINDS[stream.kind]
    if kind.span is None:
        return rng.normal(size=(length, TEXT_WIDTH)).astype(np.float32)
    if kind.form == "codes":
        return rng.integers(0, vocabulary.entries, (length, vocabulary.codebooks)).astype(np.int32)
    return rng.integers(0, len(vocabulary.ranges[kind.span]), length).astype(np.int32)


def random_example(task: Task, rng: np.random.Generator, longest: int = 7) -> Frames:
    streams = {s.key: random_stream(s, int(rng.integers(1, longest + 1)), rng) for s in task.streams}
    return to_frames(task, streams, VOCABULARY, TEXT_WIDTH)


def stack_rows(rows: list[Batch]) -> Batch:
    return Batch(*(np.stack(field) for field in zip(*rows, strict=True)))


def random_batch(
    rows: int = 8,
    seed: int = 0,
    frames: int = 61,
    loss_frames: int = 37,
    loss_on: str = "target",
    tasks: tuple[str, ...] = ("tts", "enhancement", "text_to_music"),
) -> Batch:
    """Rows of two examples of different tasks, on the host."""
    rng = np.random.default_rng(seed)
    packed = []
    for row in range(rows):
        examples = [random_example(get_task(tasks[(row + n) % len(tasks)]), rng) for n in range(2)]
        packed.append(pack(examples, frames, loss_frames, 17, loss_on))
    return stack_rows(packed)


def make_programs(
    devices: int = 1, mesh: MeshConfig | None = None, model: ModelConfig = MODEL, optim: OptimConfig = OPTIM, **changes
) -> Programs:
    chosen = make_mesh(mesh or MeshConfig(), jax.devices()[:devices])
    return Programs(model, replace(TRAIN, **changes), optim, chosen)


def start(programs: Programs, batch: Batch, seed: int = 0):
    """A fresh state, and the batch on the mesh of the programs."""
    return programs.init(jax.random.key(seed)), place_batch(batch, programs.mesh)
