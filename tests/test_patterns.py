"""Laws of the ways to predict codes: orders lose nothing, nobody sees what comes later, caches and packing change
nothing."""

import json
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_run import write_run
from tests.tiny import MODEL, OPTIM, TEXT_WIDTH, TRAIN, VOCABULARY, random_batch, random_stream
from uniaudio_jax.bench import patterns
from uniaudio_jax.bench.__main__ import main
from uniaudio_jax.bench.patterns import PATTERNS, Options
from uniaudio_jax.bench.patterns.decoder import DecoderDefinition, layers_for, level_index, level_logits, parameters
from uniaudio_jax.bench.patterns.generation import Decoding, whole_examples
from uniaudio_jax.bench.patterns.multi_scale import tally_within_levels
from uniaudio_jax.bench.patterns.one_stack import OneStack
from uniaudio_jax.bench.patterns.pattern import Sizes, is_codes, lay_out, row_cells, sizes_of, to_frames, to_positions
from uniaudio_jax.config import DataConfig, RunConfig
from uniaudio_jax.model.uniaudio import ModelDefinition
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sequence import Batch, pack, to_prefix
from uniaudio_jax.sequence import to_frames as example_frames
from uniaudio_jax.tasks import get_task
from uniaudio_jax.vocab import SPECIAL_IDS

RUN = RunConfig(
    name="tiny",
    codec=None,
    model=MODEL,
    data=DataConfig(root="", tasks={"tts": 1.0}, row_frames=61, target_frames=37, rows=3, text_frames=17),
    train=TRAIN,
    optim=OPTIM,
)
SINGLE = sorted(PATTERNS)
SHAPE = (VOCABULARY, TEXT_WIDTH)


def warm(tree, spread=0.1):
    """The weights with noise on them, so that no bias is zero and no gain one."""
    keys = iter(jax.random.split(jax.random.key(7), 101))
    return jax.tree.map(lambda leaf: leaf + spread * jax.random.normal(next(keys), leaf.shape), tree)


@pytest.fixture(scope="module")
def definition():
    return DecoderDefinition(MODEL, layers=2)


@pytest.fixture(scope="module")
def params(definition):
    return warm(jax.jit(definition.init)(jax.random.key(0)))


@pytest.fixture(scope="module")
def logits_of(definition, params):
    """(pattern, batch) → logits of each token of the rows' frames, [B, T, Q, V]."""
    multi_scale = ModelDefinition(MODEL)
    weights = warm(jax.jit(multi_scale.init)(jax.random.key(0)))
    whole = jax.jit(multi_scale.logits)
    forward = jax.jit(lambda rows: definition.merge(params).head(definition.merge(params)(rows)))

    def logits(name, batch):
        if name == "multi-scale":
            return np.asarray(whole(weights, jax.tree.map(jnp.asarray, batch)))
        rows = lay_out(PATTERNS[name], batch, VOCABULARY, Sizes(positions=211, counted=113))
        each = [jax.tree.map(lambda field, row=row: field[row : row + 1], rows) for row in range(len(batch.tokens))]
        return np.stack([np.asarray(forward(row))[0][places(name, batch, number)] for number, row in enumerate(each)])

    return logits


def places(name, batch, row=0):
    """The position that each token of a row's frames has in the order of a pattern, [T, Q]."""
    order = PATTERNS["flattening" if name == "multi-scale" else name]
    cells, _ = row_cells(order, batch.tokens[row], batch.segments[row], VOCABULARY)
    positions = np.broadcast_to(np.arange(len(cells))[:, None], cells.shape)
    return to_frames(cells, positions, len(batch.tokens[row]))


def example_batch(name, seed=0, length=7):
    """A row with one example of a task."""
    rng = np.random.default_rng(seed)
    streams = {s.key: random_stream(s, length, rng) for s in get_task(name).streams}
    frames = example_frames(get_task(name), streams, VOCABULARY, TEXT_WIDTH)
    return Batch(*(field[None] for field in pack([frames], len(frames.tokens), 37, 17, "items")))


CODES = np.array([False, True, True, False, True, False, False])
LAYOUTS = {
    "flattening": "0-- 1-- -1- --1 2-- -2- --2 3-- 4-- -4- --4 5-- 6--",
    "parallel": "0-- 111 222 3-- 444 5-- 6--",
    "delay": "0-- 1-- 21- 321 4-2 54- 6-4",
    "coarse first": "0-- 1-- 2-- 3-- -11 -22 4-- 5-- -44 6--",
}


@pytest.mark.parametrize("name", SINGLE)
def test_each_order_is_the_one_of_its_paper(name):
    cells = [["-0123456"[frame + 1] for frame in position] for position in PATTERNS[name](CODES, 3)]
    assert " ".join("".join(position) for position in cells) == LAYOUTS[name]


@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("name", SINGLE)
def test_positions_hold_every_code_once_and_give_the_frames_back(name, levels):
    rng = np.random.default_rng(levels)
    for frames in (1, 11, 13):
        codes = rng.random(frames) < 0.7
        values = np.where(codes[:, None], rng.integers(0, 97, (frames, levels)), rng.integers(0, 97, (frames, 1)))
        cells = PATTERNS[name](codes, levels)
        assert (cells >= 0).sum() == (codes * (levels - 1) + 1).sum() and (cells >= 0).any(axis=1).all()
        assert (to_frames(cells, to_positions(cells, values), frames) == values).all()


@pytest.mark.parametrize("name", [*SINGLE, "multi-scale"])
@pytest.mark.parametrize("task", ["enhancement", "text_to_music"])
def test_a_token_depends_on_those_before_it_in_its_order_and_on_none_after(name, task, logits_of):
    batch = example_batch(task)
    order, codes = places(name, batch), is_codes(batch.tokens[0], VOCABULARY)
    known = logits_of(name, batch)[0]
    rng = np.random.default_rng(3)
    for place in rng.permutation(np.unique(order[codes]))[:11]:
        later = codes[:, None] & (order >= place)
        changed = np.where(later, shifted(batch.tokens[0]), batch.tokens[0])
        logits = logits_of(name, batch._replace(tokens=changed[None]))[0]
        difference = np.abs(logits - known).max(axis=-1)
        assert difference[order <= place].max() <= 1e-6
        after = order == place + 1
        assert not after.any() or difference[after].min() > 1e-3


def shifted(tokens):
    """Another code of the same level for each code."""
    starts = np.array([VOCABULARY.level(level).start for level in range(3)])
    return starts + (tokens - starts + 1) % VOCABULARY.entries


@pytest.mark.parametrize("name", SINGLE)
def test_a_packed_row_equals_its_examples_alone(name, logits_of):
    packed = random_batch(rows=3)
    logits = logits_of(name, packed)
    for row in range(3):
        for segment in (1, 2):
            at = np.flatnonzero(packed.segments[row] == segment)
            alone = packed._replace(
                **{field: getattr(packed, field)[row : row + 1, at] for field in ("tokens", "positions", "text_slots")},
                segments=np.ones((1, len(at)), np.int32),
                text_vectors=packed.text_vectors[row : row + 1],
                loss_frames=None,
            )
            np.testing.assert_allclose(logits_of(name, alone)[0], logits[row, at], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "task"), [*((name, "tts") for name in SINGLE), ("delay", "text_to_music"), ("coarse first", "enhancement")]
)
def test_cached_generation_takes_the_tokens_of_the_full_forward(name, task, definition, params, logits_of):
    rng, frames = np.random.default_rng(5), 7
    prefixes = [
        to_prefix(get_task(task), {s.key: random_stream(s, n, rng) for s in get_task(task).conditions}, *SHAPE)
        for n in (2, 5, 3)
    ]
    decoding = Decoding(definition, PATTERNS[name])
    codes = decoding.generate(params, get_task(task), prefixes, Sampling(temperature=0), frames)
    batch = whole_examples(prefixes, frames, SPECIAL_IDS["<audio_end>"], VOCABULARY)
    starts = np.array([VOCABULARY.level(level).start for level in range(3)])
    for row, prefix in enumerate(prefixes):
        batch.tokens[row, len(prefix.tokens) : len(prefix.tokens) + frames] = codes[row] + starts
    logits = logits_of(name, batch)
    for row, prefix in enumerate(prefixes):
        target = logits[row, len(prefix.tokens) : len(prefix.tokens) + frames]
        for level, start in enumerate(starts):
            best = target[:, level, start : start + VOCABULARY.entries].argmax(axis=-1)
            np.testing.assert_array_equal(codes[row, :, level], best)


def test_sampled_codes_follow_the_seed(definition, params):
    task, rng, decoding = get_task("tts"), np.random.default_rng(0), Decoding(definition, PATTERNS["delay"])
    prefix = to_prefix(task, {s.key: random_stream(s, 3, rng) for s in task.conditions}, *SHAPE)
    one, again, other = (
        decoding.generate(params, task, [prefix], Sampling(top_k=5, seed=seed), 11) for seed in (1, 1, 2)
    )
    assert (one == again).all() and (one != other).any()
    assert ((one >= 0) & (one < VOCABULARY.entries)).all()


@pytest.mark.slow
def test_loss_and_gradients_are_those_of_all_positions_at_once():
    batch = random_batch(rows=3)
    trainee = OneStack(PATTERNS["coarse first"], RUN, [batch])
    params, rows = warm(trainee.state.params), jax.tree.map(jnp.asarray, trainee.lay_out(batch))
    counts = np.zeros(rows.tokens.shape, np.float32)
    np.add.at(counts, (np.arange(3)[:, None], rows.counted), rows.weights)

    def plain(params):
        decoder = trainee.definition.merge(params)
        parts = level_logits(decoder.head(decoder(rows)), VOCABULARY)
        chosen = zip(parts, level_index(rows.tokens, VOCABULARY), strict=True)
        losses = [-jnp.take_along_axis(jax.nn.log_softmax(part), at[..., None], -1)[..., 0] for part, at in chosen]
        return (jnp.stack(losses, axis=-1) * counts).sum()

    wanted, wanted_gradients = jax.jit(jax.value_and_grad(plain))(params)
    gradients, loss = jax.jit(trainee._gradients)(params, rows)
    np.testing.assert_allclose([loss, trainee.tally(params, rows)[0]], wanted, rtol=1e-5)
    for got, want in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted_gradients), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("name", SINGLE)
def test_the_same_codes_are_counted_as_by_the_multi_scale_model(name):
    batch = random_batch(rows=3, loss_on="items")
    sizes = sizes_of(PATTERNS[name], [batch], VOCABULARY)
    weights = lay_out(PATTERNS[name], batch, VOCABULARY, sizes).weights
    assert weights.sum() == batch.loss_weights.sum() * 3 and batch.loss_weights.sum() > 0


def test_no_other_number_of_layers_comes_nearer_to_the_multi_scale_model():
    model = replace(MODEL, global_stack=replace(MODEL.global_stack, layers=7))
    wanted, best = parameters(ModelDefinition(model).shapes()), layers_for(model)
    far = {n: abs(parameters(DecoderDefinition(model, n).state) - wanted) for n in range(1, 13)}
    assert 1 < best < 12 and far[best] == min(far.values())


@pytest.mark.slow
def test_multi_scale_is_measured_within_the_levels_too(logits_of):
    batch, definition = random_batch(rows=3, loss_on="items"), ModelDefinition(MODEL)
    weights = warm(jax.jit(definition.init)(jax.random.key(0)))
    loss, tokens = tally_within_levels(definition, weights, jax.tree.map(jnp.asarray, batch), levels=3)
    logits, each = logits_of("multi-scale", batch), np.arange(3)[:, None]
    chosen = batch.tokens[each, batch.loss_frames]
    total = 0.0
    for level in range(3):
        among = logits[each, batch.loss_frames, level]
        if level:
            among = np.where(np.isin(np.arange(among.shape[-1]), VOCABULARY.level(level)), among, -1e9)
        else:
            later = [*VOCABULARY.level(1), *VOCABULARY.level(2)]
            among = np.where(np.isin(np.arange(among.shape[-1]), later), -1e9, among)
        chances = np.asarray(jax.nn.log_softmax(among))
        total -= (np.take_along_axis(chances, chosen[..., level, None], -1)[..., 0] * batch.loss_weights).sum()
    np.testing.assert_allclose([loss, tokens], [total, batch.loss_weights.sum() * 3], rtol=1e-5)


@pytest.mark.slow
def test_an_update_lowers_the_loss_of_its_batch():
    batch, task = random_batch(rows=3, tasks=("tts",)), get_task("tts")
    trainee = OneStack(PATTERNS["delay"], RUN, [batch])
    before = trainee.loss(task, [batch])
    for _ in range(3):
        trainee.step([batch])
    assert trainee.loss(task, [batch]) < before - 0.1 and int(trainee.state.step) == 3
    assert trainee.peak_bytes(batch) > 3 * 4 * trainee.parameters  # weights and two moments


@pytest.mark.slow
def test_the_patterns_are_compared_in_a_table_curves_and_a_picture(tmp_path, capsys, monkeypatch):
    words = ["--config", str(write_run(tmp_path)), "--minutes", "0.01", "--evaluations", "2", "--frames", "5"]
    monkeypatch.setattr(sys, "argv", ["bench", "patterns", *words, "--out", str(tmp_path)])
    main()
    result = json.loads((tmp_path / "patterns.json").read_text())
    assert sorted(result["table"]) == sorted(result["curves"]) == sorted([*PATTERNS, "multi-scale"])
    printed, fewest = capsys.readouterr().out, min(row["steps"] for row in result["table"].values())
    for name, row in result["table"].items():
        assert f"| {name} | {row['parameters']} | " in printed and row["skipped updates"] == 0
        assert all(row[key] > 0 for key in ("peak MiB", "ms a step", "frames/s, rows=1", "frames/s, rows=4"))
        by_steps = {point["steps"]: point for point in result["curves"][name]}
        tasks = [by_steps[fewest][task] for task in ("tts", "enhancement", "text_to_music")]
        assert row[f"loss at {fewest} steps"] == pytest.approx(sum(tasks) / 3) and max(by_steps) == row["steps"]
    assert (tmp_path / "patterns.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluations": 0}, "--evaluations: got 0, wanted at least 1"),
        ({"frames": 0}, "--frames: got 0, wanted at least 1"),
        ({"minutes": 0.0}, "--minutes: got 0.0, wanted more than 0"),
        ({"root": "nowhere"}, "bench patterns: the folder of tokens nowhere is not there; .*quickstart.sh"),
    ],
)
def test_a_comparison_without_tokens_or_anything_to_do_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        patterns.run(Options(**changes))
