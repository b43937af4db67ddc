"""Laws of the residual vector quantiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniaudio_jax.codec import rvq

LEVELS, ENTRIES, WIDTH = 3, 17, 5


def random_books(seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (LEVELS, ENTRIES, WIDTH))


def random_vectors(*shape: int, seed: int = 1) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (*shape, WIDTH))


def test_codes_minimise_the_distance_at_every_level():
    books, vectors = random_books(), random_vectors(2, 7)
    codes = np.asarray(rvq.encode(vectors, books))
    assert codes.shape == (2, 7, LEVELS) and codes.dtype == np.int32
    residual = np.asarray(vectors, np.float64)
    for level in range(LEVELS):
        distance = ((residual[..., None, :] - np.asarray(books[level], np.float64)) ** 2).sum(-1)
        np.testing.assert_array_equal(codes[..., level], distance.argmin(-1))
        residual = residual - np.asarray(books[level], np.float64)[codes[..., level]]


def test_of_equal_distances_the_first_entry_wins():
    books = jnp.zeros((1, 5, WIDTH))
    assert not np.asarray(rvq.encode(random_vectors(3), books)).any()


def test_decode_is_the_sum_of_the_chosen_entries():
    books = random_books()
    codes = jnp.asarray([[3, 1, 16], [0, 5, 2]])
    np.testing.assert_allclose(rvq.decode(codes, books)[0], books[0, 3] + books[1, 1] + books[2, 16], rtol=1e-6)
    np.testing.assert_allclose(rvq.decode(codes[:, :1], books), books[0][jnp.asarray([3, 0])], rtol=1e-6)


def test_more_codes_than_codebooks_are_refused():
    with pytest.raises(ValueError, match="got 4 codes per frame, wanted at most 3"):
        rvq.decode(jnp.zeros((2, 4), jnp.int32), random_books())


def test_after_k_means_more_levels_never_increase_the_error_on_training_data():
    vectors = random_vectors(301)
    books = rvq.kmeans_start(vectors, LEVELS, ENTRIES, jax.random.key(0)).codebooks
    codes = rvq.encode(vectors, books)
    errors = [float(jnp.mean(vectors**2))]
    errors += [float(jnp.mean((vectors - rvq.decode(codes[:, :k], books)) ** 2)) for k in range(1, LEVELS + 1)]
    assert all(later < earlier for earlier, later in zip(errors, errors[1:], strict=False)), errors


def test_k_means_needs_as_many_vectors_as_entries():
    with pytest.raises(ValueError, match="got 13 vectors, wanted at least as many as the 17 entries"):
        rvq.kmeans_start(random_vectors(13), LEVELS, ENTRIES, jax.random.key(0))


def test_gradients_pass_straight_through():
    books, vectors = random_books(), random_vectors(2, 7)
    weights = random_vectors(2, 7, seed=3)
    levels = jnp.asarray([1, 3])
    gradient = jax.grad(lambda v: jnp.sum(rvq.quantise(v, books, levels).vectors * weights))(vectors)
    np.testing.assert_allclose(gradient, weights, rtol=1e-6)


def test_each_row_uses_its_own_number_of_levels():
    books, vectors = random_books(), random_vectors(2, 7)
    result = rvq.quantise(vectors, books, jnp.asarray([1, 3]))
    codes = rvq.encode(vectors, books)
    np.testing.assert_allclose(result.vectors[0], rvq.decode(codes[0, :, :1], books), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.vectors[1], rvq.decode(codes[1], books), rtol=1e-5, atol=1e-5)


def test_commitment_is_the_mean_error_over_the_levels_in_use():
    books, vectors = random_books(), random_vectors(2, 7)
    codes = rvq.encode(vectors, books)
    errors = [float(jnp.mean((vectors - rvq.decode(codes[..., :k], books)) ** 2)) for k in (1, 2)]
    result = rvq.quantise(vectors, books, jnp.asarray([2, 2]))
    np.testing.assert_allclose(float(result.commitment), np.mean(errors), rtol=1e-5)


def test_codebooks_follow_to_the_means_of_what_chooses_them():
    vectors = random_vectors(1, 211)
    statistics = rvq.kmeans_start(vectors[0], LEVELS, ENTRIES, jax.random.key(0))
    result = rvq.quantise(vectors, statistics.codebooks, jnp.asarray([LEVELS]))
    moved = rvq.ema_update(statistics, result, decay=0.0)
    chosen = np.asarray(result.codes)[0, :, 0] == 4
    np.testing.assert_allclose(moved.codebooks[0, 4], np.asarray(vectors)[0, chosen].mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moved.counts.sum(-1), 211, rtol=1e-5)


def test_revival_moves_dead_entries_only():
    vectors = random_vectors(1, 211)
    statistics = rvq.kmeans_start(vectors[0], LEVELS, ENTRIES, jax.random.key(0))
    counts = statistics.counts.at[1, 6].set(0.0)
    result = rvq.quantise(vectors, statistics.codebooks, jnp.asarray([LEVELS]))
    revived, dead = rvq.replace_dead_codes(
        statistics._replace(counts=counts), result.residuals, 0.01, jax.random.key(2)
    )
    assert np.argwhere(np.asarray(dead)).tolist() == [[1, 6]]
    assert any(np.allclose(revived.codebooks[1, 6], residual) for residual in result.residuals[1])
    np.testing.assert_array_equal(revived.codebooks[0], statistics.codebooks[0])
