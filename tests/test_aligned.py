"""What the conditions hold at the time of a frame: looked up, the same in three libraries, and in what is generated."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import MODEL, TEXT_WIDTH, random_batch, random_stream
from uniaudio_jax.config import MODERN
from uniaudio_jax.decoding import Generator
from uniaudio_jax.model.aligned import ALIGNED_KINDS, NOTHING, aligned_frames
from uniaudio_jax.model.uniaudio import ModelDefinition
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sequence import to_frames, to_prefix, unscored
from uniaudio_jax.tasks import TASKS, get_task
from uniaudio_jax.vocab import END_MARKS, SPECIAL_TOKENS, START_MARKS

AHEAD = (0, 2, 5)
ALIGNED = replace(MODEL, layout=replace(MODERN, aligned=AHEAD))
MADE = [name for name, task in TASKS.items() if task.makes_audio]


def example(task: str, seed: int = 0, items: int = 11) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Random streams of a task, all so long, and their frames."""
    rng, row = np.random.default_rng(seed), get_task(task)
    streams = {stream.key: random_stream(stream, items, rng) for stream in row.streams}
    return streams, to_frames(row, streams, MODEL.ids, TEXT_WIDTH).tokens


def aligned_of(tokens: np.ndarray) -> np.ndarray:
    return np.asarray(aligned_frames(jnp.asarray(tokens[None]), jnp.arange(len(tokens))[None], AHEAD)[0])


@pytest.mark.parametrize("task", MADE)
def test_a_frame_of_the_target_finds_the_frame_of_each_condition_at_its_time(task):
    streams, tokens = example(task)
    found, row = aligned_of(tokens), get_task(task)
    target = len(tokens) - 2 - len(streams[row.target.key])
    spans, at = {}, 2
    for stream in row.conditions:
        spans[stream.kind] = range(at + 1, at + 1 + len(streams[stream.key]))
        at = spans[stream.kind].stop + 1
    for number, kind in enumerate(ALIGNED_KINDS):
        span = spans.get(kind, range(0))
        for item in range(len(streams[row.target.key])):
            for of_ahead, ahead in zip(found[target + item], AHEAD, strict=True):
                wanted = tokens[span[item + ahead]] if item + ahead < len(span) else np.full(3, NOTHING)
                np.testing.assert_array_equal(of_ahead[number], wanted)


def test_what_is_found_is_of_the_same_example_and_of_the_past():
    batch = random_batch(rows=3)
    tokens, positions = jnp.asarray(batch.tokens), jnp.asarray(batch.positions)
    found = aligned_frames(tokens, positions, AHEAD)
    for row, segments in enumerate(batch.segments):
        for segment in range(1, segments.max() + 1):
            own = np.flatnonzero(segments == segment)
            np.testing.assert_array_equal(found[row, own], aligned_of(batch.tokens[row, own]))
    cut = tokens.shape[1] // 2
    changed = aligned_frames(tokens.at[:, cut:].set(5), positions, AHEAD)
    np.testing.assert_array_equal(changed[:, : cut + 1], found[:, : cut + 1])


@pytest.mark.parametrize("task", [pytest.param("speech_edit", marks=pytest.mark.slow), "singing"])
def test_generation_looks_up_what_the_full_forward_does(task):
    definition = ModelDefinition(ALIGNED)
    params = definition.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    rng, row = np.random.default_rng(0), get_task(task)
    prefixes = [
        to_prefix(row, {s.key: random_stream(s, items, rng) for s in row.conditions}, MODEL.ids, TEXT_WIDTH)
        for items in (3, 5, 7, 9)
    ]
    made = Generator(definition, params, MODEL.ids).generate(row, prefixes, Sampling(temperature=0.0), frames=17)
    starts = [MODEL.ids.level(level).start for level in range(3)]
    assert sum(map(len, made)) > 17
    for prefix, codes in zip(prefixes, made, strict=True):
        tokens = np.concatenate([prefix.tokens, codes + starts])[None].astype(np.int32)
        slots = np.pad(prefix.text_slots, (0, len(codes)), constant_values=-1)[None]
        vectors = (prefix.text_vectors if len(prefix.text_vectors) else np.zeros((1, TEXT_WIDTH), np.float32))[None]
        ones, positions = np.ones(tokens.shape[:2], np.int32), np.arange(tokens.shape[1], dtype=np.int32)[None]
        batch = jax.tree.map(jnp.asarray, unscored(tokens, ones, positions, slots, vectors))
        logits = definition.logits(params, batch)[0, len(prefix.tokens) :]
        for level, start in enumerate(starts):
            best = logits[:, level, start : start + MODEL.entries].argmax(-1)
            np.testing.assert_array_equal(best, codes[:, level])


@pytest.mark.parametrize("task", MADE)
def test_pytorch_finds_the_same_frames(task):
    torch = pytest.importorskip("torch")
    from uniaudio_jax.pytorch import modeling_uniaudio as modeling

    assert (modeling.START_MARKS, modeling.END_MARKS) == (START_MARKS, END_MARKS)
    assert [SPECIAL_TOKENS[mark] for mark in modeling.ALIGNED_MARKS] == [f"<{kind}_start>" for kind in ALIGNED_KINDS]
    _, tokens = example(task)
    both = np.concatenate([tokens, tokens])[None].astype(np.int64)
    positions = np.concatenate([np.arange(len(tokens))] * 2)[None]
    found = modeling.aligned_frames(torch.from_numpy(both), torch.from_numpy(positions), AHEAD)[0].numpy()
    np.testing.assert_array_equal(found, np.concatenate([aligned_of(tokens)] * 2))


@pytest.mark.parametrize("task", MADE)
def test_numpy_finds_the_same_frames(task):
    pytest.importorskip("onnxruntime")
    from uniaudio_jax.pytorch import onnx_generate

    special = {name: number for number, name in enumerate(SPECIAL_TOKENS)}
    _, tokens = example(task)
    assert onnx_generate.ALIGNED_KINDS == ALIGNED_KINDS
    cut = len(tokens) - 5
    padded = np.concatenate([tokens[:cut], np.zeros((9, 3), int)])
    found = onnx_generate.aligned_frames(tokens[:cut], 9, special, AHEAD)
    np.testing.assert_array_equal(found, aligned_of(padded))
