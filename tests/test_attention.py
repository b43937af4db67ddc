"""Laws of attention kernels and positions: every kernel equals the plain sum, and a new kind needs no other edit."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tests.tiny import MODEL, WIDE, random_batch
from uniaudio_jax.config import MODERN, PAPER, LayoutConfig
from uniaudio_jax.model import kernels
from uniaudio_jax.model.aligned import aligned_frames
from uniaudio_jax.model.attention import Cache
from uniaudio_jax.model.block import unstack
from uniaudio_jax.model.kernels import KERNELS, choose_kernel
from uniaudio_jax.model.kernels.cudnn import cudnn_attention
from uniaudio_jax.model.kernels.kernel import MASKED, Kernel, cached_attention
from uniaudio_jax.model.kernels.splash import LANES, LARGEST_TILE, splash_attention, tiles
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


ROWS_HERE = {name: kernel.rows for name, kernel in KERNELS.items()} | {
    "cudnn": partial(cudnn_attention, half="xla"),
    "splash": partial(splash_attention, largest_tile=128, interpret=True),
}
"""The kernels as a CPU can run them: Pallas interpreted in small tiles, and XLA in cuDNN's place."""


def segments_of(rows: int, frames: int) -> jax.Array:
    """Uneven segments, and a padded tail in every row but the first; the last row's is longer than a tile."""
    rng = np.random.default_rng(3)
    segments = np.sort(rng.integers(1, 5, (rows, frames)), axis=1)
    for row in range(1, rows):
        segments[row, frames - frames * row // rows :] = 0
    return jnp.asarray(segments)


def forward_and_backward(attend):
    """A function of queries, keys, values, segments and a direction: the mixed values and the three gradients."""

    def both(query, key, value, segments, direction):
        mixed, pull = jax.vjp(lambda *inputs: attend(*inputs, segments), query, key, value)
        return mixed, *pull(direction)

    return both


@pytest.mark.parametrize(
    ("frames", "packed", "width", "dtype", "share"),
    [
        (3, False, 16, jnp.float32, 2e-6),
        (131, False, 64, jnp.float32, 2e-6),
        (257, True, 24, jnp.float32, 2e-6),
        (257, True, 96, jnp.bfloat16, 2**-7),
    ],
)
@pytest.mark.parametrize("name", sorted(KERNELS))
def test_a_kernel_equals_plain_attention_forward_and_backward(name, frames, packed, width, dtype, share):
    if name == "pairwise" and frames > 3:
        pytest.skip("made for the few tokens of a frame")
    rows, heads = 3, 5
    query, key, value, direction = jax.random.normal(jax.random.key(0), (4, rows, frames, heads, width)).astype(dtype)
    segments = segments_of(rows, frames) if packed else None
    real = jnp.ones((rows, frames), bool) if segments is None else segments > 0
    direction = direction * real[..., None, None].astype(dtype)

    got = jax.jit(forward_and_backward(ROWS_HERE[name]))(query, key, value, segments, direction)
    query, key, value, direction = (x.astype(jnp.float32) for x in (query, key, value, direction))
    wanted = forward_and_backward(plain_rows)(query, key, value, segments, direction)
    for one, plain in zip(got, wanted, strict=True):
        assert one.dtype == dtype and bool(jnp.isfinite(one).all())
        np.testing.assert_allclose(one[real].astype(jnp.float32), plain[real], rtol=0, atol=share * abs(plain).max())
    for gradient in got[1:]:
        np.testing.assert_array_equal(gradient[~real].astype(jnp.float32), 0)


def test_equal_tiles_pad_a_row_by_less_than_a_row_of_lanes_each():
    assert tiles(2048, LARGEST_TILE) == (512, 2048)
    assert tiles(3, LARGEST_TILE) == (128, 128)
    for frames in (127, 131, 509, 521, 1031, 2053, 3001):
        tile, padded = tiles(frames, LARGEST_TILE)
        assert tile % LANES == 0 and tile <= LARGEST_TILE and padded % tile == 0
        assert 0 <= padded - frames < LANES * padded // tile


@pytest.mark.parametrize("packed", [True, False])
def test_cudnn_is_called_with_the_mask_of_packed_rows(packed, monkeypatch):
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)

    def lowered(dtype):
        x = jax.ShapeDtypeStruct((3, 131, 5, 24), dtype)
        segments = jax.ShapeDtypeStruct((3, 131), jnp.int32) if packed else None
        traced = jax.jit(forward_and_backward(cudnn_attention)).trace(x, x, x, segments, x)
        return traced.lower(lowering_platforms=("cuda",)).as_text()

    calls = [line for line in lowered(jnp.bfloat16).splitlines() if "__cudnn$" in line]
    kind = "ScaleBiasSoftmax" if packed else "Softmax"
    assert [line.split("@__cudnn$fmha")[1].split("(")[0] for line in calls] == [kind, f"{kind}Backward"]
    for line in calls:
        assert "CAUSAL" in line and "tensor<3x256x5x24xbf16>" in line
        assert ("tensor<3x1x256x256xbf16>" in line) == packed
    assert "__cudnn" not in lowered(jnp.float32)


@pytest.mark.parametrize("width", [12, 264])
def test_cudnn_refuses_other_head_widths(width):
    x = jnp.ones((1, 3, 2, width), jnp.bfloat16)
    with pytest.raises(ValueError, match=f"'cudnn': got heads {width} wide, wanted a multiple of 8 .*'blocked'"):
        cudnn_attention(x, x, x, None)


def test_splash_compiles_for_a_tpu_in_shards_of_rows_and_heads(tpu_compiler):
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    mesh = Mesh(np.array(devices).reshape(2, 2), ("rows", "heads"), axis_types=(AxisType.Auto,) * 2)
    heads, rows = PartitionSpec("rows", None, "heads"), PartitionSpec("rows")
    attend = jax.shard_map(
        splash_attention, mesh=mesh, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False
    )
    x = jax.ShapeDtypeStruct((2, 131, 6, 24), jnp.bfloat16, sharding=NamedSharding(mesh, heads))
    segments = jax.ShapeDtypeStruct((2, 131), jnp.int32, sharding=NamedSharding(mesh, rows))
    compiled = str(jax.jit(forward_and_backward(attend)).lower(x, x, x, segments, x).compile().as_text())
    assert "splash_mha_fwd_segmented" in compiled and "splash_mha_dkv_segmented" in compiled


def on_device(batch: Batch) -> Batch:
    return jax.tree.map(jnp.asarray, batch)


@pytest.mark.parametrize("name", sorted(set(KERNELS) - {"blocked", "pairwise"}))
def test_a_model_with_another_kernel_has_the_same_logits(name, monkeypatch):
    monkeypatch.setitem(kernels.KERNELS, "another", Kernel(ROWS_HERE[name], cached_attention))
    batch = on_device(random_batch(rows=2))
    definition = ModelDefinition(WIDE)
    params = jax.jit(definition.init)(jax.random.key(0))
    wanted = jax.jit(definition.logits)(params, batch)
    other = replace(WIDE, global_stack=replace(WIDE.global_stack, attention="another"))
    logits = jax.jit(ModelDefinition(other).logits)(params, batch)
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("platform", "rows"),
    [("cpu", "blocked"), ("tpu", "splash"), ("gpu", "cudnn"), ("cuda", "cudnn"), ("new", "blocked")],
)
def test_auto_takes_the_kernel_of_the_platform(platform, rows):
    assert choose_kernel("auto", "global", platform) is KERNELS[rows]
    assert choose_kernel("auto", "local", platform) is KERNELS["pairwise"]
    assert choose_kernel("auto", "global") is KERNELS["blocked"]


def test_a_kernel_of_another_platform_is_refused():
    with pytest.raises(ValueError, match="global_stack.attention: got 'splash' on cpu.*for tpu alone; choose auto"):
        choose_kernel("splash", "global")
    with pytest.raises(ValueError, match="local_stack.attention: got 'cudnn' on tpu.*choose auto"):
        choose_kernel("cudnn", "local", "tpu")


@pytest.mark.parametrize("layout", [pytest.param(PAPER, marks=pytest.mark.slow), MODERN], ids=["paper", "modern"])
def test_fill_step_and_grow_equal_the_full_forward(layout):
    definition = ModelDefinition(replace(MODEL, layout=layout))
    params = definition.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    stack, local = (definition.merge(part, params[part]) for part in ("global", "local"))
    assert (layout == MODERN) == ("positions" not in params["global"])
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
    caches = [Cache(jnp.pad(keys, (none, none, room)), jnp.pad(values, (none, room, none))) for keys, values in caches]
    for frame in range(prefix, frames):
        position = jnp.full(rows, frame)
        aligned = aligned_frames(batch.tokens, places, stack.ahead)[:, frame]
        vectors, caches = stack.step(
            unstack(stack.blocks), batch.tokens[:, frame - 1], caches, position, jnp.int32(frame), aligned
        )
        np.testing.assert_allclose(vectors, whole[:, frame], rtol=1e-5, atol=1e-5)
    starts = [MODEL.ids.level(level).start for level in range(MODEL.codebooks)]
    tokens = jax.random.randint(jax.random.key(1), (rows, MODEL.codebooks), 0, MODEL.entries) + jnp.array(starts)
    linked = jnp.broadcast_to(local.linked(whole[:, 0]), (rows, MODEL.codebooks, whole.shape[-1]))
    logits = local.logits(whole[:, 0], tokens)
    past, before = [None] * MODEL.local_stack.layers, jnp.full(rows, 24)
    for level in range(MODEL.codebooks):
        x, past = local.step(unstack(local.blocks), before, linked[:, level], past, level)
        ids = jnp.array(MODEL.ids.level(level))
        stepped = x @ local.head.columns(level, ids)
        np.testing.assert_allclose(stepped, logits[:, level, ids], rtol=1e-5, atol=1e-5)
        before = tokens[:, level]


def test_rotary_positions_tell_orders_apart_and_restart_in_each_segment():
    definition = ModelDefinition(replace(MODEL, layout=LayoutConfig(positions="rotary")))
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
    with pytest.raises(ValueError, match="model.layout.positions: got 'lernd'.*did you mean 'learned'"):
        ModelDefinition(replace(MODEL, layout=LayoutConfig(positions="lernd")))


def test_the_pairwise_kernel_refuses_packed_rows():
    x = jnp.ones((1, 3, 2, 5))
    with pytest.raises(ValueError, match="choose it for the local stack"):
        KERNELS["pairwise"].rows(x, x, x, jnp.ones((1, 3), jnp.int32))
