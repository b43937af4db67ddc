"""Laws of attention kernels and positions: every kernel equals the plain sum, and a new kind needs no other edit."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import MODEL, random_batch
from uniaudio_jax.model import kernels, positions
from uniaudio_jax.model.attention import Cache
from uniaudio_jax.model.block import unstack
from uniaudio_jax.model.kernels import KERNELS, choose_kernel
from uniaudio_jax.model.kernels.kernel import MASKED, Kernel, cached_attention
from uniaudio_jax.model.positions.kind import Positions
from uniaudio_jax.model.uniaudio import ModelDefinition
from uniaudio_jax.sequence import Batch, unscored


def plain_rows(query, key, value, segments):
    """Causal attention with one softmax over a mask."""
    scores = jnp.einsum("bqhe,bkhe->bhqk", query, key) * query.shape[-1] ** -0.5
    visible = jnp.tril(jnp.ones((query.shape[1],) * 2, bool))[None]
    if segments is not None:
        visible = visible & (segments[:, :, None] == segments[:, None])
    weights = jax.nn.softmax(jnp.where(visible[:, None], scores, MASKED), axis=-1)
    return jnp.einsum("bhqk,bkhe->bqhe", weights, value)


class Rotary(Positions):
    """Turns pairs of a head's channels by an angle that grows with the position."""

    def turn(self, queries, keys, positions):
        half = queries.shape[-1] // 2
        angles = positions[..., None, None] * 0.3 ** jnp.arange(1, half + 1)

        def turned(x):
            one, other, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
            cos, sin = jnp.cos(angles), jnp.sin(angles)
            return jnp.concatenate([one * cos - other * sin, one * sin + other * cos, rest], axis=-1)

        return turned(queries), turned(keys)


@pytest.fixture
def seams(monkeypatch):
    """A kernel and a kind of positions that are registered by one line each."""
    monkeypatch.setitem(kernels.KERNELS, "plain", Kernel(plain_rows, cached_attention))
    monkeypatch.setitem(positions.POSITIONS, "rotary", Rotary())


def segments_of(rows: int, frames: int) -> jax.Array:
    """Uneven segments, and a padded tail in every row but the first."""
    rng = np.random.default_rng(3)
    segments = np.sort(rng.integers(1, 5, (rows, frames)), axis=1)
    for row in range(1, rows):
        segments[row, frames - 7 * row :] = 0
    return jnp.asarray(segments)


@pytest.mark.parametrize("name", sorted(KERNELS))
@pytest.mark.parametrize("frames", [3, 61, 307])
def test_a_kernel_equals_plain_attention_forward_and_backward(name, frames):
    packed = name != "pairwise"
    if not packed and frames > 3:
        pytest.skip("made for the few tokens of a frame")
    queries, keys, values, direction = jax.random.normal(jax.random.key(0), (4, 3, frames, 5, 7))
    segments = segments_of(3, frames) if packed and frames > 3 else None

    def through(rows):
        return jax.vjp(lambda q, k, v: rows(q, k, v, segments), queries, keys, values)

    (mixed, pull), (wanted, wanted_pull) = through(KERNELS[name].rows), through(plain_rows)
    real = jnp.ones((3, frames), bool) if segments is None else segments > 0
    direction = direction * real[..., None, None]
    np.testing.assert_allclose(mixed * real[..., None, None], wanted * real[..., None, None], rtol=1e-5, atol=1e-5)
    for gradient, plain in zip(pull(direction), wanted_pull(direction), strict=True):
        np.testing.assert_allclose(gradient, plain, rtol=1e-4, atol=1e-5)


def on_device(batch: Batch) -> Batch:
    return jax.tree.map(jnp.asarray, batch)


def span_of(batch: Batch, frames: slice) -> Batch:
    """Some frames of each row."""
    tokens, segments, places, slots = (
        array[:, frames] for array in (batch.tokens, batch.segments, batch.positions, batch.text_slots)
    )
    return unscored(tokens, segments, places, slots, batch.text_vectors)


def model_with(**changes):
    stacks = {}
    for name in ("global_stack", "local_stack"):
        stacks[name] = replace(getattr(MODEL, name), attention=changes.get("attention", "auto"))
    return replace(MODEL, positions=changes.get("positions", "learned"), **stacks)


def test_a_model_with_another_kernel_has_the_same_logits(seams):
    batch = on_device(random_batch(rows=2))
    definition = ModelDefinition(MODEL)
    params = definition.init(jax.random.key(0))
    wanted = definition.logits(params, batch)
    logits = ModelDefinition(model_with(attention="plain")).logits(params, batch)
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["learned", "rotary"])
def test_fill_step_and_grow_equal_the_full_forward(kind, seams):
    definition = ModelDefinition(model_with(positions=kind))
    params = definition.init(jax.random.key(0))
    stack, local = (definition.merge(part, params[part]) for part in ("global", "local"))
    assert (kind == "rotary") == ("positions" not in params["global"])
    rows, frames, prefix = 2, 11, 5
    batch = on_device(random_batch(rows=rows))
    places = jnp.tile(jnp.arange(frames), (rows, 1))
    tokens = batch.tokens[:, :frames]
    batch = unscored(tokens, jnp.ones_like(places), places, jnp.full_like(places, -1), batch.text_vectors)
    whole = stack(batch)
    cut = batch._replace(
        **{name: getattr(batch, name)[:, :prefix] for name in ("tokens", "segments", "positions", "text_slots")}
    )
    filled, caches = stack.fill(cut)
    np.testing.assert_allclose(filled, whole[:, :prefix], rtol=1e-5, atol=1e-5)
    none, room = (0, 0), (0, frames - prefix)
    caches = [
        Cache(jnp.pad(keys, (none, none, none, room)), jnp.pad(values, (none, none, room, none)))
        for keys, values in caches
    ]
    for frame in range(prefix, frames):
        position = jnp.full(rows, frame)
        vectors, caches = stack.step(unstack(stack.blocks), batch.tokens[:, frame - 1], caches, position)
        np.testing.assert_allclose(vectors, whole[:, frame], rtol=1e-5, atol=1e-5)
    tokens = tokens[:, 0]
    logits, linked = local(whole[:, 0], tokens), local.linked(whole[:, 0])
    past, before = [None] * MODEL.local_stack.layers, jnp.full(rows, 24)
    for level in range(MODEL.codebooks):
        x, past = local.step(unstack(local.blocks), before, linked[:, level], past, level)
        np.testing.assert_allclose(local.head(x), logits[:, level], rtol=1e-5, atol=1e-5)
        before = tokens[:, level]


def test_rotary_positions_tell_orders_apart_and_restart_in_each_segment(seams):
    definition = ModelDefinition(model_with(positions="rotary"))
    params = definition.init(jax.random.key(0))
    batch = on_device(random_batch(rows=1))
    logits = definition.logits(params, batch)
    order = jnp.array([1, 0, *range(2, batch.tokens.shape[1])])
    swapped = batch._replace(tokens=batch.tokens[:, order])
    assert np.abs(definition.logits(params, swapped)[0, 3] - logits[0, 3]).max() > 1e-4
    start = int(np.argmax(batch.segments[0] == 2))
    count = int((batch.segments[0] == 2).sum())
    moved = {
        name: getattr(batch, name)[:, start : start + count]
        for name in ("tokens", "segments", "positions", "text_slots")
    }
    alone = definition.logits(params, batch._replace(**moved))
    np.testing.assert_allclose(alone[0], logits[0, start : start + count], rtol=1e-4, atol=1e-5)


def test_unknown_names_are_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="global_stack.attention: got 'blokked'.*did you mean 'blocked'"):
        choose_kernel("blokked", "global")
    with pytest.raises(ValueError, match="model.positions: got 'lernd'.*did you mean 'learned'"):
        ModelDefinition(replace(MODEL, positions="lernd"))


def test_the_pairwise_kernel_refuses_packed_rows():
    x = jnp.ones((1, 3, 2, 5))
    with pytest.raises(ValueError, match="choose it for the local stack"):
        KERNELS["pairwise"].rows(x, x, x, jnp.ones((1, 3), jnp.int32))
