"""Laws of the level of the loss and of its spikes."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uniaudio_jax.optim import TrainState, apply_gradients
from uniaudio_jax.spikes import LEAST_UPDATES, LossLevel, loss_limit, no_level, with_loss

LOSSES = np.random.default_rng(0).normal(5, 0.3, 97)


def level_of(losses) -> LossLevel:
    level = no_level()
    for loss in losses:
        level = with_loss(level, jnp.float32(loss))
    return level


def test_the_level_of_the_first_losses_is_their_mean_and_variance():
    level = level_of(LOSSES)
    assert float(level.mean) == pytest.approx(LOSSES.mean(), rel=1e-5)
    assert float(level.variance) == pytest.approx(LOSSES.var(), rel=1e-4)
    assert int(level.updates) == 97


def test_later_losses_outweigh_those_of_long_ago():
    shifted = level_of([*LOSSES, *LOSSES - 3, *LOSSES - 3, *LOSSES - 3, *LOSSES - 3, *LOSSES - 3])
    assert float(shifted.mean) == pytest.approx(LOSSES.mean() - 3, abs=0.1)


def test_the_limit_is_so_many_deviations_above_the_mean_once_enough_losses_are_known():
    wanted = LOSSES.mean() + 7 * LOSSES.std()
    assert float(loss_limit(level_of(LOSSES), 7.0)) == pytest.approx(wanted, rel=1e-4)
    assert not np.isfinite(loss_limit(level_of(LOSSES[: LEAST_UPDATES - 1]), 7.0))
    assert not np.isfinite(loss_limit(None, None))


def test_losses_that_barely_differ_are_given_a_hundredth_of_their_mean_as_deviation():
    assert float(loss_limit(level_of([5.0] * 53), 7.0)) == pytest.approx(5 + 7 * 0.05, rel=1e-5)


@pytest.mark.parametrize(("loss", "skipped"), [(5.1, 0), (40.0, 1), (jnp.inf, 1)])
def test_a_spike_changes_neither_weights_nor_the_level(loss, skipped):
    optimizer, level, tokens = optax.sgd(0.1), level_of(LOSSES), jnp.float32(3)
    params = {"bias": jnp.ones(5)}
    state = TrainState(params, optimizer.init(params), jnp.int32(97), jnp.int32(0), level=level)
    new, _ = apply_gradients(optimizer, state, {"bias": jnp.ones(5)}, tokens, tokens * loss, 10.0)
    assert (int(new.step), int(new.skipped)) == (98, skipped)
    assert new.level is not None and int(new.level.updates) == 98 - skipped
    assert (float(new.params["bias"][0]) == 1.0) == bool(skipped)
    assert (float(new.level.mean) == float(level.mean)) == bool(skipped)
