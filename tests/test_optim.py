"""Laws of optimizers and schedules: by name, with the values of their formulas."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniaudio_jax.config import OptimConfig
from uniaudio_jax.optim import SkippedInARow, TrainState, apply_gradients, guarded_update, make_optimizer, mean_weights
from uniaudio_jax.schedules import make_schedule

CONFIG = OptimConfig(peak_learning_rate=0.03, warmup_steps=7, weight_decay=0.5, clip_norm=2.0)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("inverse_sqrt", {0: 0.03 / 7, 6: 0.03, 27: 0.03 * 0.5}),
        ("warmup_cosine", {0: 0.0, 7: 0.03, 18: 0.03 * (0.01 + 0.99 / 2), 29: 0.0003}),
        (
            "warmup_stable_decay",
            {0: 0.03 / 7, 6: 0.03, 17: 0.03, 20: 0.03 * (1 - 0.5), 28: 0.03 * (1 - (11 / 12) ** 0.5)},
        ),
        ("constant", {0: 0.03, 28: 0.03}),
    ],
)
def test_a_schedule_has_the_values_of_its_formula(schedule, rates):
    rate = make_schedule(replace(CONFIG, schedule=schedule, decay_share=12 / 29), steps=29)
    for step, wanted in rates.items():
        assert float(rate(step)) == pytest.approx(wanted, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(("decayed", "bias_decays"), [("kernels", False), ("all", True)])
def test_the_rule_says_which_weights_decay(decayed, bias_decays):
    params = {"linear": {"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)}}
    optimizer = make_optimizer(replace(CONFIG, schedule="constant", decayed=decayed), 29)
    zero = jax.tree.map(jnp.zeros_like, params)
    updated, *_ = guarded_update(optimizer, zero, optimizer.init(params), params, jnp.float32(3))
    np.testing.assert_allclose(updated["linear"]["kernel"], 1 - 0.03 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(updated["linear"]["bias"], 1 - 0.03 * 0.5 * bias_decays, rtol=1e-6)


def test_the_first_update_of_adamw_is_the_learning_rate_times_the_sign_of_the_gradient():
    params, gradients = {"bias": jnp.zeros(3)}, {"bias": jnp.array([0.3, -0.2, 0.001])}
    optimizer = make_optimizer(replace(CONFIG, schedule="constant"), 29)
    updated, _, norm, finite = guarded_update(optimizer, gradients, optimizer.init(params), params, jnp.float32(3))
    np.testing.assert_allclose(updated["bias"], [-0.03, 0.03, -0.03], rtol=1e-4)
    assert bool(finite) and float(norm) == pytest.approx(np.linalg.norm([0.3, -0.2, 0.001]))


def updated_by(name, params, gradients):
    """The weights after two updates of this optimizer, which clips nothing."""
    optimizer = make_optimizer(replace(CONFIG, name=name, schedule="constant", clip_norm=1e9), 29)
    moments = optimizer.init(params)
    for scale in (1.0, -3.0):
        scaled = jax.tree.map(lambda g, scale=scale: scale * g, gradients)
        params, moments, *_ = guarded_update(optimizer, scaled, moments, params, jnp.float32(3))
    return params


def random_tree(seed):
    rng = np.random.default_rng(seed)
    shapes = {
        "blocks": {"up": {"kernel": (3, 5, 7), "bias": (3, 7)}},
        "head": {"kernel": (7, 11)},
        "embedding": (11, 7),
    }
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )


def test_muon_updates_each_layer_of_a_stack_as_that_layer_alone():
    params, gradients = random_tree(0), random_tree(1)
    stacked = updated_by("muon", params, gradients)["blocks"]["up"]["kernel"]
    for layer in range(3):
        one, its = (
            {"blocks": {"up": {"kernel": tree["blocks"]["up"]["kernel"][layer]}}} for tree in (params, gradients)
        )
        np.testing.assert_allclose(stacked[layer], updated_by("muon", one, its)["blocks"]["up"]["kernel"], rtol=1e-5)


def test_muon_leaves_all_but_the_matrices_of_the_blocks_to_adamw():
    params, gradients = random_tree(0), random_tree(1)
    one, other = (updated_by(name, params, gradients) for name in ("muon", "adamw"))
    assert not np.allclose(one["blocks"]["up"].pop("kernel"), other["blocks"]["up"].pop("kernel"), atol=1e-3)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_an_update_by_muon_has_even_singular_values_and_the_size_of_one_by_adamw():
    gradient = random_tree(1)["blocks"]["up"]["kernel"] * jnp.array([1.0, 1e-3, 1e3])[:, None, None]
    params = {"blocks": {"up": {"kernel": jnp.zeros((3, 5, 7))}}}
    optimizer = make_optimizer(replace(CONFIG, name="muon", schedule="constant"), 29)
    gradients = {"blocks": {"up": {"kernel": gradient}}}
    updated, *_ = guarded_update(optimizer, gradients, optimizer.init(params), params, jnp.float32(3))
    singular = np.linalg.svd(np.asarray(updated["blocks"]["up"]["kernel"]), compute_uv=False)
    assert singular.shape == (3, 5)
    np.testing.assert_allclose(singular, 0.03 * 0.2 * 7**0.5, rtol=0.4)  # Muon's iteration ends at 0.7 to 1.2


@pytest.mark.parametrize(("slope", "loss"), [(jnp.nan, 3.0), (jnp.inf, 3.0), (1.0, jnp.nan), (1.0, -jnp.inf)])
def test_a_loss_or_gradient_that_is_not_finite_changes_neither_weights_nor_moments(slope, loss):
    params = {"bias": jnp.ones(3)}
    optimizer = make_optimizer(CONFIG, 29)
    moments = optimizer.init(params)
    gradients = {"bias": jnp.array([1.0, slope, 1.0])}
    updated, new_moments, _, finite = guarded_update(optimizer, gradients, moments, params, jnp.float32(loss))
    assert not bool(finite)
    for wanted, leaf in zip(jax.tree.leaves((params, moments)), jax.tree.leaves((updated, new_moments)), strict=True):
        np.testing.assert_array_equal(leaf, wanted)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "adamv", "OptimConfig.name: got 'adamv'.*did you mean 'adamw'"),
        ("schedule", "cosine", "OptimConfig.schedule: got 'cosine'.*did you mean 'warmup_cosine'"),
        ("name", "muom", "OptimConfig.name: got 'muom'.*did you mean 'muon'"),
        ("decayed", "kernel", "OptimConfig.decayed: got 'kernel'.*did you mean 'kernels'"),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(field, value, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(replace(CONFIG, **{field: value}), 29)


def test_only_updates_skipped_one_after_another_stop_a_training():
    skipped = SkippedInARow(3)
    for step, flags in ((2, [1, 1]), (5, [0, 1, 1]), (7, [0, 0]), (8, [1])):
        for flag in flags:
            skipped.add(jnp.int32(flag))
        skipped.check(step, "loss nan")
    skipped.add(jnp.int32(1))
    skipped.add(jnp.int32(1))
    with pytest.raises(
        ValueError, match=r"step 10: the last 3 updates were skipped.*\(loss nan\).*most_skipped_updates"
    ):
        skipped.check(10, "loss nan")


@pytest.mark.parametrize(("step", "share"), [(1, 2 / 11), (2, 3 / 12), (89, 0.9), (10_007, 0.9)])
def test_the_mean_of_weights_keeps_its_decay_but_less_in_the_first_steps(step, share):
    ema, params = {"bias": jnp.array([1.0, 0.0, 3.0])}, {"bias": jnp.array([0.0, 1.0, 3.0])}
    mean = mean_weights(ema, params, jnp.int32(step), decay=0.9)
    np.testing.assert_allclose(mean["bias"], [share, 1 - share, 3.0], rtol=1e-6)


def test_a_gradient_is_taken_per_token_and_cut_to_the_clip_norm():
    optimizer, params = make_optimizer(CONFIG, 29), {"bias": jnp.zeros(5)}
    state = TrainState(params, optimizer.init(params), jnp.int32(0), jnp.int32(0))
    gradients = {"bias": jnp.array([30.0, 40.0, 0.0, 0.0, 0.0])}
    for tokens, wanted in ((10.0, [1.2, 1.6]), (100.0, [0.3, 0.4])):
        (_, (adam, *_)) = apply_gradients(optimizer, state, gradients, jnp.float32(tokens), jnp.float32(3))[0].optimizer
        np.testing.assert_allclose(adam.mu["bias"][:2], (1 - CONFIG.beta1) * np.array(wanted), rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_means_kept_in_bfloat16_take_half_the_memory_and_lead_to_nearly_the_same_weights(name):
    weights = {"blocks": {"kernel": jax.random.normal(jax.random.key(0), (3, 7, 11))}, "bias": jnp.ones(13)}
    after, sizes = {}, {}
    for dtype in ("float32", "bfloat16"):
        optimizer = make_optimizer(replace(CONFIG, name=name, state_dtype=dtype), 100)
        params, state = weights, optimizer.init(weights)
        for step in range(31):
            gradients = jax.tree.map(lambda w, step=step: jnp.sin(w + 0.1 * step), params)
            updates, state = optimizer.update(gradients, state, params)
            params = jax.tree.map(jnp.add, params, updates)
        means = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
        assert {leaf.dtype.name for leaf in means} == {dtype}
        after[dtype], sizes[dtype] = params, sum(leaf.nbytes for leaf in means)
    assert sizes["float32"] == 2 * sizes["bfloat16"]
    moved = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()), after["float32"], weights)
    apart = jax.tree.map(lambda one, other: float(jnp.abs(one - other).max()), after["float32"], after["bfloat16"])
    for distance, difference in zip(jax.tree.leaves(moved), jax.tree.leaves(apart), strict=True):
        assert 0 < difference < 0.02 * distance
