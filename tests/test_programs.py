"""Laws of the training step: what is cut into programs, chunks, rows and devices gives what the whole gives."""

import functools
from contextlib import closing
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import MODEL, WIDE, make_programs, random_batch, random_example, stack_rows, start
from uniaudio_jax.bench.fused import fused_loss_and_gradients
from uniaudio_jax.checkpoint import Checkpoints, describe, one_device, read_newest, restore_state, state_items
from uniaudio_jax.config import DataConfig, MeshConfig, OptimConfig, RunConfig, StackConfig, TrainConfig
from uniaudio_jax.loss import cross_entropy
from uniaudio_jax.model.mlps import gelu
from uniaudio_jax.model.norms import normalise
from uniaudio_jax.planning.hlo import read_moved
from uniaudio_jax.programs import Programs
from uniaudio_jax.sequence import pack
from uniaudio_jax.sharding import axes_sharding, check_rows, place_batch, rows_sharding
from uniaudio_jax.tasks import get_task
from uniaudio_jax.telemetry import tally_report
from uniaudio_jax.trees import flatten

TOKENS = jnp.asarray(np.random.default_rng(2).integers(0, 23, (7, 3)))


def assert_trees_close(one, other, relative):
    """Each leaf within `relative` of the largest value of the leaf."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(one):
        wanted = np.asarray(dict(jax.tree_util.tree_leaves_with_path(other))[path])
        scale = max(float(np.abs(wanted).max()), 1e-12)
        np.testing.assert_allclose(np.asarray(leaf) / scale, wanted / scale, atol=relative, err_msg=str(path))


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
@pytest.mark.parametrize("loss_on", ["target", "all"])
def test_gradients_of_the_programs_equal_one_fused_gradient(loss_on, remat):
    programs = make_programs(global_remat=remat, local_remat=remat, loss_on=loss_on)
    state, batch = start(programs, random_batch(loss_frames=61, loss_on=loss_on))
    gradients, tally = programs.gradients(state.params, batch)
    loss, wanted = jax.jit(fused_loss_and_gradients(MODEL))(state.params, batch)
    np.testing.assert_allclose(tally.loss.sum(), loss, rtol=1e-5)
    assert_trees_close(gradients, wanted, 1e-5)


def plain_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)


def plain_cross_entropy(x):
    return -jnp.take_along_axis(jax.nn.log_softmax(x), TOKENS[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        (gelu, lambda x: jax.nn.gelu(x, approximate=False)),
        (normalise, plain_norm),
        (lambda x: cross_entropy(x, TOKENS)[0], plain_cross_entropy),
    ],
    ids=["gelu", "norm", "cross-entropy"],
)
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_a_written_gradient_is_that_of_the_plain_formula(written, plain, scale):
    x = scale * jax.random.normal(jax.random.key(0), (7, 3, 23))
    value, pull = jax.vjp(written, x)
    wanted, wanted_pull = jax.vjp(plain, x)
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6 * scale)
    d = jax.random.normal(jax.random.key(1), value.shape)
    np.testing.assert_allclose(pull(d)[0], wanted_pull(d)[0], rtol=1e-5, atol=2e-6)


def test_a_guess_is_right_where_no_other_id_has_a_larger_logit():
    logits = jnp.zeros((7, 3, 23)).at[jnp.arange(7), 1, TOKENS[:, 1]].set(1.0).at[:, 2, 5].set(2.0)
    np.testing.assert_array_equal(cross_entropy(logits, TOKENS)[1][:, 1], 1.0)
    np.testing.assert_array_equal(cross_entropy(logits, TOKENS)[1][:, 2], TOKENS[:, 2] == 5)


def test_the_chunk_size_changes_nothing():
    whole, parts = make_programs(local_chunk_frames=10_000), make_programs(local_chunk_frames=7)
    state, batch = start(whole, random_batch())
    one, one_tally = whole.gradients(state.params, batch)
    other, other_tally = parts.gradients(state.params, batch)
    np.testing.assert_allclose(one_tally.loss, other_tally.loss, rtol=1e-5)
    assert_trees_close(one, other, 1e-5)


MESHES = [
    MeshConfig(data=8),
    MeshConfig(fsdp=8),
    MeshConfig(tensor=8),
    MeshConfig(data=2, fsdp=2, tensor=2),
    MeshConfig(data=4, fsdp=2),
]


@functools.cache
def after_five_updates(mesh: MeshConfig | None, optimizer: str):
    """Gradients of the first batch, the losses of five steps, and the weights after them; on one device for None."""
    # Where a gradient is nearly zero, Adam would take the sign of its rounding error: epsilon keeps such steps small.
    optim = OptimConfig(name=optimizer, warmup_steps=3, epsilon=1e-3)
    programs = make_programs(8 if mesh else 1, mesh, WIDE, optim)
    state, losses = programs.init(jax.random.key(0)), []
    batches = [place_batch(random_batch(seed=seed), programs.mesh) for seed in range(5)]
    gradients, _ = programs.gradients(state.params, batches[0])
    for batch in batches:
        state, metrics = programs.step(state, [batch])
        losses.append(float(metrics.tally.mean_loss))
    return jax.device_get(gradients), losses, jax.device_get(state.params)


@pytest.mark.parametrize(
    ("mesh", "optimizer"),
    [
        *(pytest.param(mesh, "adamw", marks=pytest.mark.slow) for mesh in MESHES),
        *(pytest.param(mesh, "muon", marks=pytest.mark.slow) for mesh in MESHES[:3]),
        (MESHES[3], "muon"),
        pytest.param(MESHES[4], "muon", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_eight_devices_give_the_gradients_losses_and_weights_of_one(mesh, optimizer):
    (one_gradients, one_losses, one), (gradients, losses, eight) = (
        after_five_updates(devices, optimizer) for devices in (None, mesh)
    )
    np.testing.assert_allclose(one_losses, losses, rtol=1e-5)
    assert_trees_close(gradients, one_gradients, 1e-5)
    assert_trees_close(eight, one, 1e-5)


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_no_collective_stands_in_the_loop_over_chunks(remat):
    programs = make_programs(8, MeshConfig(data=2, fsdp=2, tensor=2), WIDE, local_chunk_frames=3, local_remat=remat)
    batch = place_batch(random_batch(), programs.mesh)
    vectors = jax.device_put(jnp.zeros((8, 61, 48)), rows_sharding(programs.mesh))
    moved = read_moved(
        str(programs.local_loss.lower(programs.state_shapes().params["local"], vectors, batch).compile().as_text())
    )
    weights = sum(leaf.size * 4 for leaf in jax.tree.leaves(programs.definition.shapes()["local"]))
    assert sum(moved.bytes.values()) > weights and sum(moved.in_loops.values()) == 0
    # Each weight is gathered over fsdp and then over tensor, so the smaller of the two moves half of it.
    assert moved.bytes["all-gather"] <= 1.6 * weights


def test_parameters_and_moments_are_born_sharded():
    programs = make_programs(8, MeshConfig(data=1, fsdp=2, tensor=4), WIDE)
    state = programs.init(jax.random.key(0))
    moments = state.optimizer[1][0]
    up = state.params["global"]["blocks"]["mlp"]["up"]["kernel"]
    assert up.shape == (3, 48, 192) and up.addressable_shards[0].data.shape == (3, 24, 48)
    names = flatten(programs.definition.axes())
    for tree in (state.params, moments.mu, moments.nu):
        for name, leaf in flatten(tree).items():
            parts = {"embed": 2, "heads": 4, "mlp": 4, "vocab": 4}
            wanted = tuple(size // parts.get(axis, 1) for axis, size in zip(names[name], leaf.shape, strict=True))
            assert leaf.addressable_shards[0].data.shape == wanted, name


@pytest.mark.parametrize(
    ("model", "mesh", "message"),
    [
        (MODEL, MeshConfig(fsdp=4), r"weight global\.\S+: axis 'embed' of size 30 .* fsdp=4; .* 32 "),
        (
            replace(WIDE, vocabulary=1217),
            MeshConfig(fsdp=4, tensor=2),
            r"axis 'vocab' of size 1217 .* tensor=2; pad it with model.vocabulary 1218",
        ),
        (
            replace(WIDE, global_stack=StackConfig(layers=3, width=48, heads=6)),
            MeshConfig(fsdp=2, tensor=4),
            r"model.global_stack.heads: axis 'heads' of size 6 .* tensor=4; choose a size such as 8",
        ),
    ],
)
def test_a_size_that_does_not_divide_over_the_mesh_is_refused_with_the_weight_and_a_size_that_does(
    model, mesh, message
):
    with pytest.raises(ValueError, match=message):
        make_programs(8, mesh, model)


def test_rows_that_do_not_divide_and_axes_that_collide_are_refused():
    mesh = make_programs(8, MeshConfig(data=2, fsdp=2, tensor=2), WIDE).mesh
    with pytest.raises(ValueError, match=r"data.rows: axis 'act_rows' of size 6 .* 4 parts"):
        check_rows(mesh, 6, "data.rows")
    with pytest.raises(ValueError, match="'heads' and 'mlp' would both be cut over the mesh axis 'tensor'"):
        axes_sharding(mesh, ("heads", "mlp"), (48, 48))


def test_packed_rows_give_the_loss_of_the_same_examples_alone():
    rng = np.random.default_rng(3)
    examples = [random_example(get_task(name), rng) for name in ("tts", "text_to_music", "enhancement")]
    programs = make_programs()
    packed = stack_rows([pack(examples, 83, 41, 7, "target")])
    alone = stack_rows([pack([example], 83, 41, 7, "target") for example in examples])
    state, packed = start(programs, packed)
    one = programs.evaluate(state.params, packed)
    other = programs.evaluate(state.params, start(programs, alone)[1])
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5)
    np.testing.assert_array_equal(one.tokens, other.tokens)


def test_a_tasks_loss_weight_scales_its_gradient_and_no_mean():
    rng = np.random.default_rng(3)
    of = {name: random_example(get_task(name), rng) for name in ("tts", "enhancement")}
    programs = make_programs()

    def gradients(names, weights=None):
        row = pack([of[name] for name in names], 83, 41, 7, "target", weights)
        state, batch = start(programs, stack_rows([row]))
        return programs.gradients(state.params, batch)

    (tts, _), (enhancement, alone) = gradients(["tts"]), gradients(["enhancement"])
    mixed, tally = gradients(["tts", "enhancement"], {"enhancement": 7.0})
    assert_trees_close(mixed, jax.tree.map(lambda one, other: one + 7 * other, tts, enhancement), 1e-4)
    name = "loss/enhancement"
    assert tally_report(jax.device_get(tally))[name] == pytest.approx(tally_report(jax.device_get(alone))[name])


def test_accumulated_batches_equal_one_large_batch():
    programs = make_programs()
    large = random_batch(rows=8)
    halves = [jax.tree.map(lambda x, part=part: x[part], large) for part in (slice(0, 4), slice(4, 8))]
    state, whole = start(programs, large)
    parts = [start(programs, half)[1] for half in halves]
    wanted, _ = programs.gradients(state.params, whole)
    summed = jax.tree.map(jnp.add, *(programs.gradients(state.params, part)[0] for part in parts))
    assert_trees_close(summed, wanted, 1e-5)
    _, metrics = programs.step(programs.init(jax.random.key(0)), [whole])
    _, halved = programs.step(state, parts)
    np.testing.assert_allclose(metrics.gradient_norm, halved.gradient_norm, rtol=1e-5)
    np.testing.assert_allclose(metrics.tally.loss, halved.tally.loss, rtol=1e-5)


def test_the_gradient_of_drawn_frames_is_on_average_that_of_all():
    programs = make_programs(local_share=0.3)
    state, batch = start(programs, random_batch(rows=2, loss_frames=37))
    kept = min(12, int((batch.loss_weights > 0).sum(axis=1).min()))
    assert kept < int((batch.loss_weights > 0).sum(axis=1).max())
    full, tally = programs.gradients(state.params, batch)
    gradients = []
    for step in range(199):
        drawn = programs.draw(batch, jnp.int32(step))
        assert drawn.loss_frames.shape == (2, 12) and int((drawn.loss_weights > 0).sum(axis=1).min()) == kept
        one, one_tally = programs.gradients(state.params, drawn)
        np.testing.assert_allclose(one_tally.tokens.sum(), tally.tokens.sum(), rtol=1e-6)
        gradients.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(one)]))
    wanted = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(full)])
    error = np.linalg.norm(np.mean(gradients, axis=0) - wanted)
    expected = np.sqrt(np.var(gradients, axis=0, ddof=1).sum() / len(gradients))
    assert error < 1.5 * expected < 0.2 * np.linalg.norm(wanted)


def test_the_draw_follows_from_seed_step_and_row_on_any_mesh():
    one, eight = make_programs(1, local_share=0.3), make_programs(8, model=WIDE, local_share=0.3)
    rows = random_batch(loss_frames=37)
    batch, other = start(one, rows)[1], start(eight, jax.tree.map(lambda field: field[::-1], rows))[1]
    frames = np.asarray(one.draw(batch, jnp.int32(3)).loss_frames)
    np.testing.assert_array_equal(frames, np.asarray(eight.draw(other, jnp.int32(3)).loss_frames)[::-1])
    for programs, step in ((one, 5), (make_programs(local_share=0.3, seed=1), 3)):
        assert not np.array_equal(frames, programs.draw(batch, jnp.int32(step)).loss_frames)


RUN = RunConfig(
    name="tiny",
    codec=None,
    model=MODEL,
    data=DataConfig(root="", tasks={"tts": 1.0}, row_frames=61, target_frames=37, rows=8, text_frames=17),
    train=TrainConfig(steps=5, ema_decay=0.2, local_share=0.3, local_chunk_frames=13),
    optim=OptimConfig(name="muon", warmup_steps=3),
)


def saved_and_going_on(programs, folder, updates):
    """A state after so many updates, saved in `folder`, and the batch of the next one."""
    state, batch = start(programs, random_batch())
    for _ in range(updates):
        state, _ = programs.step(state, [batch])
    with closing(Checkpoints(folder)) as checkpoints:
        train = replace(RUN.train, ema_decay=programs.train.ema_decay)
        checkpoints.save(updates, state_items(state), describe(replace(RUN, train=train), None))
    return state, batch


def restored(programs, folder):
    with closing(Checkpoints(folder)) as checkpoints:
        return restore_state(checkpoints, programs.state_shapes(), describe(RUN, None))


@pytest.mark.slow
def test_a_training_by_muon_on_drawn_frames_with_a_mean_of_weights_resumes_to_the_bit(tmp_path):
    programs = Programs(MODEL, RUN.train, RUN.optim, make_programs().mesh)
    state, batch = saved_and_going_on(programs, tmp_path, 2)
    known = jax.device_get(state.ema)
    assert not np.array_equal(known["local"]["head"]["kernel"], state.params["local"]["head"]["kernel"])
    read = read_newest(tmp_path, lambda *_: one_device(programs.definition.shapes())).weights
    jax.tree.map(np.testing.assert_array_equal, read, known)
    one, metrics = programs.step(state, [batch])
    other, again = programs.step(restored(programs, tmp_path), [batch])
    jax.tree.map(np.testing.assert_array_equal, jax.device_get((one, metrics)), jax.device_get((other, again)))


@pytest.mark.slow
def test_a_mean_of_weights_begins_with_the_weights_of_a_checkpoint_that_has_none(tmp_path):
    with_mean, without = (
        Programs(MODEL, replace(RUN.train, ema_decay=decay), RUN.optim, make_programs().mesh) for decay in (0.2, None)
    )
    _, batch = saved_and_going_on(without, tmp_path, 0)
    state = restored(with_mean, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state.ema, state.params)
    state, _ = with_mean.step(state, [batch])
    assert state.weights is state.ema


def test_a_non_finite_gradient_changes_no_weight_and_no_moment():
    programs = make_programs()
    state, batch = start(programs, random_batch())
    state, _ = programs.step(state, [batch])
    before = jax.device_get(state)
    broken = batch._replace(text_vectors=jnp.full_like(batch.text_vectors, jnp.nan))
    state, metrics = programs.step(state, [broken])
    assert not np.isfinite(metrics.gradient_norm)
    assert int(state.skipped) == 1 and int(state.step) == 2
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state[:2]), before[:2])
    state, _ = programs.step(state, [batch])
    assert int(state.skipped) == 1 and not np.array_equal(
        state.params["local"]["head"]["kernel"], before.params["local"]["head"]["kernel"]
    )


def test_bfloat16_losses_are_near_those_of_float32_and_not_the_same():
    batch, losses = random_batch(), {}
    for dtype in ("float32", "bfloat16"):
        programs = make_programs(compute_dtype=dtype)
        state, placed = start(programs, batch)
        losses[dtype] = float(programs.evaluate(state.params, placed).mean_loss)
    assert 0 < abs(losses["bfloat16"] - losses["float32"]) < 0.01 * losses["float32"]
