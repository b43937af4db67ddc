"""What the CPU computes is right, whatever XLA makes of it: see `uniaudio_jax/xla_flags.py`."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_run import REPO, environment
from tests.values import values
from uniaudio_jax.codec import rvq
from uniaudio_jax.xla_flags import FAULTY, FUSIONS, keep_reductions_right

TOLERANCE = 2e-6
"""Of the largest value, for one product and sum."""
DEEP_TOLERANCE = 1e-5
"""The same for what many layers make."""


@pytest.mark.parametrize(("rows", "columns"), [(101, 101), (512, 512), (1009, 1009), (1009, 13)])
def test_a_product_with_a_full_matrix_is_summed_right(rows, columns):
    e = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    full = np.full((columns, columns), 0.5)
    got = jax.jit(lambda e: jnp.sum((e @ jnp.full((columns, columns), 0.5)) * e, axis=-1))(e)
    wanted = ((e.astype(np.float64) @ full) * e).sum(axis=-1)
    np.testing.assert_allclose(got / np.abs(wanted).max(), wanted / np.abs(wanted).max(), atol=TOLERANCE)


@pytest.mark.parametrize("rows", [101, 32_769, 100_003])
def test_squares_of_mapped_matrix_vector_products_are_summed_right(rows):
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    got = jax.jit(lambda x: jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))(x))(x)
    np.testing.assert_allclose(got, np.square(x, dtype=np.float64).sum(axis=1), rtol=TOLERANCE)


@pytest.mark.parametrize(("vectors", "entries", "width"), [(1, 7, 3), (1013, 97, 61), (20_011, 1024, 128)])
def test_the_nearest_entry_is_that_of_double_precision(vectors, entries, width):
    rng = np.random.default_rng(entries)
    x, book = (rng.normal(size=(n, width)).astype(np.float32) for n in (vectors, entries))
    squared = np.square(book, dtype=np.float64).sum(axis=1) - 2 * x.astype(np.float64) @ book.T.astype(np.float64)
    chosen = np.take_along_axis(squared, np.asarray(jax.jit(rvq.nearest)(x, book))[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(chosen, squared.min(axis=1), rtol=0, atol=TOLERANCE * np.abs(squared).max())


@pytest.mark.slow
def test_model_and_codec_agree_with_a_run_without_those_fusions(tmp_path):
    words = [sys.executable, "-m", "tests.values", str(tmp_path / "plain.npz")]
    plain = environment() | {"XLA_FLAGS": f"{FUSIONS}="}
    subprocess.run(words, cwd=REPO, env=plain, check=True, timeout=300)
    with np.load(tmp_path / "plain.npz") as file:
        wanted = dict(file)
    got = values()
    assert got.keys() == wanted.keys() and len(got) > 50
    for name, value in wanted.items():
        if name.endswith("/codes"):
            assert (got[name] == value).mean() > 0.999, name
        else:
            scale = np.abs(value).max() or 1.0
            np.testing.assert_allclose(got[name] / scale, value / scale, rtol=0, atol=DEEP_TOLERANCE, err_msg=name)


def test_flags_of_the_user_are_kept(monkeypatch):
    monkeypatch.setattr("uniaudio_jax.xla_flags.version", lambda _: FAULTY[0])
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
    keep_reductions_right()
    assert os.environ["XLA_FLAGS"] == f"--xla_force_host_platform_device_count=3 {FUSIONS}=-reduce"
    monkeypatch.setenv("XLA_FLAGS", f"{FUSIONS}=-dot")
    keep_reductions_right()
    assert os.environ["XLA_FLAGS"] == f"{FUSIONS}=-dot"


def test_a_jaxlib_that_may_not_know_the_flag_gets_none(monkeypatch):
    monkeypatch.setattr("uniaudio_jax.xla_flags.version", lambda _: "0.10.1")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    keep_reductions_right()
    assert "XLA_FLAGS" not in os.environ
