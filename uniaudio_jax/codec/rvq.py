"""Residual vector quantisation: each codebook codes the residual of the ones before (arXiv 2107.03312 section III-C).

An entry is the running mean of the vectors nearest to it, without a gradient. Codebooks must start from k-means on the
residuals of a trained encoder: after a random start the later levels carry no information, though all entries are used.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

EPSILON = 1e-5


class Statistics(NamedTuple):
    """Codebooks as running means: `codebooks = sums / counts`."""

    codebooks: Float[Array, "K entries width"]
    sums: Float[Array, "K entries width"]
    counts: Float[Array, "K entries"]


class Quantised(NamedTuple):
    """Vectors for the decoder, codes, the commitment loss, and each level's residuals for `ema_update`."""

    vectors: Float[Array, "B T width"]
    codes: Int[Array, "B T K"]
    commitment: Float[Array, ""]
    residuals: Float[Array, "K N width"]


def nearest(vectors: Float[Array, "... width"], codebook: Float[Array, "entries width"]) -> Int[Array, "..."]:
    """Index of the entry with the smallest Euclidean distance, the first of equal ones.

    Computed as a minimum and a comparison, as XLA's argmin on a CPU is three times slower.
    """
    distance = jnp.sum(codebook**2, axis=-1) - 2 * vectors @ codebook.T
    smallest = jnp.min(distance, axis=-1, keepdims=True)
    indices = jnp.arange(len(codebook), dtype=jnp.int32)
    return jnp.min(jnp.where(distance <= smallest, indices, len(codebook) - 1), axis=-1)


def encode(vectors: Float[Array, "... width"], codebooks: Float[Array, "K entries width"]) -> Int[Array, "... K"]:
    """Codes of each vector, the coarsest level first."""
    residual, codes = vectors, []
    for codebook in codebooks:
        codes.append(nearest(residual, codebook))
        residual = residual - codebook[codes[-1]]
    return jnp.stack(codes, axis=-1)


def decode(codes: Int[Array, "... k"], codebooks: Float[Array, "K entries width"]) -> Float[Array, "... width"]:
    """Sum of the chosen entries of the first k levels, k <= K."""
    levels, stored = codes.shape[-1], codebooks.shape[0]
    if levels > stored:
        raise ValueError(f"rvq.decode: got {levels} codes per frame, wanted at most {stored}, the number of codebooks")
    return jnp.sum(jnp.stack([codebooks[level][codes[..., level]] for level in range(levels)]), axis=0)


def quantise(
    vectors: Float[Array, "B T width"], codebooks: Float[Array, "K entries width"], levels: Int[Array, " B"]
) -> Quantised:
    """Quantises with the first `levels` of each row; gradients pass straight through to `vectors`.

    The commitment loss pulls the vectors towards the sum of the first 1, 2, … `levels` entries: the mean squared
    distance over the levels in use. Residuals and codes are of all levels: every codebook learns from every row.
    """
    codes = jax.lax.stop_gradient(encode(vectors, codebooks))
    entries = jnp.stack([codebook[codes[..., level]] for level, codebook in enumerate(codebooks)])
    partial = jax.lax.stop_gradient(jnp.cumsum(entries, axis=0))
    used = jnp.arange(len(codebooks))[:, None] < levels[None]
    last = jnp.take_along_axis(partial, (levels - 1)[None, :, None, None], axis=0)[0]
    squared = jnp.mean((vectors[None] - partial) ** 2, axis=(2, 3))
    commitment = jnp.sum(squared * used) / jnp.sum(used)
    before = jnp.concatenate([jnp.zeros_like(partial[:1]), partial[:-1]])
    residuals = jax.lax.stop_gradient(vectors)[None] - before
    return Quantised(
        vectors=vectors + jax.lax.stop_gradient(last - vectors),
        codes=codes,
        commitment=commitment,
        residuals=residuals.reshape(len(codebooks), -1, vectors.shape[-1]),
    )


def ema_update(statistics: Statistics, quantised: Quantised, decay: float) -> Statistics:
    """The running means after one more batch: `decay` of the old ones plus 1 - `decay` of the batch's."""
    levels = len(statistics.codebooks)
    codes, level = quantised.codes.reshape(-1, levels).T, jnp.arange(levels)[:, None]
    counts = (decay * statistics.counts).at[level, codes].add(1 - decay)
    sums = (decay * statistics.sums).at[level, codes].add((1 - decay) * quantised.residuals)
    return Statistics(sums / (counts[..., None] + EPSILON), sums, counts)


def replace_dead_codes(
    statistics: Statistics, residuals: Float[Array, "K N width"], below: float, key: PRNGKeyArray
) -> tuple[Statistics, Bool[Array, "K entries"]]:
    """(statistics, replaced entries): dead entries are replaced by random residuals of their level.

    An entry is dead when its running count is under `below` of an even share. Replace seldom: done at every step, it
    keeps all entries in use, but the later levels carry no information.
    """
    levels, entries, _ = statistics.codebooks.shape
    even = jnp.mean(statistics.counts, axis=-1, keepdims=True)
    dead = statistics.counts < below * even
    picks = jax.random.randint(key, (levels, entries), 0, residuals.shape[1])
    fresh = jnp.take_along_axis(residuals, picks[..., None], axis=1)
    counts = jnp.where(dead, even, statistics.counts)
    codebooks = jnp.where(dead[..., None], fresh, statistics.codebooks)
    return Statistics(codebooks, codebooks * counts[..., None], counts), dead


def _lloyd(
    vectors: Float[Array, "N width"], centres: Float[Array, "entries width"]
) -> tuple[Float[Array, "entries width"], Float[Array, " entries"]]:
    """The means of the vectors nearest to each centre (a centre without vectors stays), and their counts."""
    codes = nearest(vectors, centres)
    counts = jnp.zeros(len(centres)).at[codes].add(1.0)
    sums = jnp.zeros_like(centres).at[codes].add(vectors)
    return jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], centres), counts


@jax.jit
def _improve(vectors, centres):
    return jax.lax.fori_loop(0, 10, lambda _, c: _lloyd(vectors, c)[0], centres)


def kmeans_start(
    vectors: Float[Array, "N width"], codebooks: int, entries: int, key: PRNGKeyArray, share: float = 1.0
) -> Statistics:
    """Codebooks from ten rounds of k-means at each level, on the residuals of the levels before it.

    `share` scales the running counts: frames per batch / N makes them comparable to those of `ema_update`.
    """
    if len(vectors) < entries:
        raise ValueError(f"kmeans_start: got {len(vectors)} vectors, wanted at least as many as the {entries} entries")
    residual, books, sizes = jnp.asarray(vectors), [], []
    for level_key in jax.random.split(key, codebooks):
        picks = jax.random.choice(level_key, len(residual), (entries,), replace=False)
        centres = _improve(residual, residual[picks])
        codes = nearest(residual, centres)
        sizes.append(jnp.zeros(entries).at[codes].add(share))
        books.append(centres)
        residual = residual - centres[codes]
    stacked, counts = jnp.stack(books), jnp.stack(sizes) + EPSILON
    return Statistics(stacked, stacked * counts[..., None], counts)
