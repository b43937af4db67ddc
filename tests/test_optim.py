"""Laws of the optimizer: its schedule, what decays, and how long a step may be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniaudio_jax.config import OptimConfig
from uniaudio_jax.optim import TrainState, apply_gradients, learning_rate, make_optimizer

CONFIG = OptimConfig(peak_learning_rate=0.01, warmup_steps=7, clip_norm=1.0, weight_decay=0.1)
PARAMS = {"kernel": jnp.full((3, 5), 2.0), "bias": jnp.full(5, 2.0)}


def updated(gradients: dict, tokens: float = 1.0) -> TrainState:
    """The state after a first update by these gradients."""
    optimizer = make_optimizer(CONFIG)
    state = TrainState(PARAMS, optimizer.init(PARAMS), jnp.int32(0), jnp.int32(0))
    return apply_gradients(optimizer, state, gradients, jnp.float32(tokens))[0]


def test_the_learning_rate_rises_to_its_peak_and_halves_at_four_times_the_warm_up():
    rates = [float(learning_rate(CONFIG, step)) for step in range(28)]
    np.testing.assert_allclose(rates[:7], 0.01 * np.arange(1, 8) / 7, rtol=1e-6)
    assert max(rates) == rates[6] and rates[27] == pytest.approx(0.005)


def test_only_kernels_decay():
    params = updated(jax.tree.map(jnp.zeros_like, PARAMS)).params
    np.testing.assert_allclose(params["kernel"], 2.0 * (1 - 0.1 * 0.01 / 7), rtol=1e-6)
    np.testing.assert_array_equal(params["bias"], PARAMS["bias"])


def test_a_gradient_is_taken_per_token_and_cut_to_the_clip_norm():
    gradients = {"kernel": jnp.zeros((3, 5)), "bias": jnp.array([30.0, 40.0, 0.0, 0.0, 0.0])}
    (_, (adam, *_)) = updated(gradients, tokens=10.0).optimizer
    np.testing.assert_allclose(adam.mu["bias"][:2], (1 - CONFIG.beta1) * np.array([0.6, 0.8]), rtol=1e-5)
    (_, (adam, *_)) = updated(gradients, tokens=100.0).optimizer
    np.testing.assert_allclose(adam.mu["bias"][:2], (1 - CONFIG.beta1) * np.array([0.3, 0.4]), rtol=1e-5)
