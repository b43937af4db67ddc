"""Laws of layouts other than the paper's: each choice alone, and the modern set, keep every law of the model."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_programs import assert_trees_close
from tests.tiny import MODEL, VOCABULARY, make_programs, random_batch, start
from uniaudio_jax.bench.fused import fused_loss_and_gradients
from uniaudio_jax.config import MODERN, LayoutConfig, ModelConfig
from uniaudio_jax.loss import cross_entropy, tally_tokens
from uniaudio_jax.model.mlps import squared_relu
from uniaudio_jax.model.norms import RmsNorm, unit_power
from uniaudio_jax.model.positions import POSITIONS
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.sequence import Batch

LAYOUTS = {
    "rms": LayoutConfig(norm="rms"),
    "squared_relu": LayoutConfig(mlp="squared_relu"),
    "rotary": LayoutConfig(positions="rotary"),
    "query_key_norm": LayoutConfig(query_key_norm=True),
    "no_biases": LayoutConfig(biases=False),
    "summed": LayoutConfig(frame_vectors="summed"),
    "levels": LayoutConfig(head="levels"),
    "modern": MODERN,
    "aligned": LayoutConfig(aligned=(0, 3)),
    "every": replace(MODERN, aligned=(0, 1, 5), query_key_norm=True),
}
EVERY = pytest.mark.parametrize(
    "layout",
    [
        pytest.param(layout, id=name, marks=() if name == "every" else pytest.mark.slow)
        for name, layout in LAYOUTS.items()
    ],
)


def with_layout(layout: LayoutConfig) -> ModelConfig:
    return replace(MODEL, layout=layout)


def params_of(model: ModelConfig) -> Params:
    """Weights of a size that makes every part matter: with half as much noise, gradients of the local stack's attention
    are so small that rounding, which the larger terms of the same sums bring, shows in them."""
    params = ModelDefinition(model).init(jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf + 0.2 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)


def on_device(batch: Batch) -> Batch:
    return jax.tree.map(jnp.asarray, batch)


@EVERY
def test_gradients_of_the_programs_equal_one_fused_gradient(layout):
    programs = make_programs(model=with_layout(layout), loss_on="all")
    _, batch = start(programs, random_batch(rows=3, loss_frames=61, loss_on="all"))
    params = params_of(programs.model)
    gradients, tally = programs.gradients(params, batch)
    loss, wanted = jax.jit(fused_loss_and_gradients(programs.model))(params, batch)
    np.testing.assert_allclose(tally.loss.sum(), loss, rtol=1e-5)
    assert_trees_close(gradients, wanted, 1e-5)


def test_packed_examples_have_the_logits_of_each_alone():
    definition, batch = ModelDefinition(with_layout(MODERN)), on_device(random_batch(rows=1))
    params = params_of(definition.config)
    logits_of = jax.jit(definition.logits)
    logits = logits_of(params, batch)[0]
    for segment in (1, 2):
        (places,) = np.nonzero(np.asarray(batch.segments[0]) == segment)
        own = {name: getattr(batch, name)[:, places] for name in ("tokens", "segments", "positions", "text_slots")}
        alone = logits_of(params, batch._replace(**own))[0]
        np.testing.assert_allclose(alone, logits[places], rtol=1e-4, atol=1e-4)


def test_a_fresh_block_with_outputs_of_zero_changes_nothing():
    model = with_layout(MODERN)
    definition = ModelDefinition(model)
    params, batch = definition.init(jax.random.key(0)), on_device(random_batch(rows=2))
    stack = definition.merge("global", params["global"])
    np.testing.assert_array_equal(stack(batch), stack.norm(stack.inputs(batch)))


def test_a_head_of_levels_has_the_loss_of_its_logits_over_all_ids():
    local, vectors, tokens = local_stack_with_levels()
    tally = tally_tokens(local(vectors, tokens), jnp.ones(len(tokens)), jnp.zeros(len(tokens), jnp.int32))
    losses, hits = cross_entropy(local.logits(vectors, tokens), tokens)
    np.testing.assert_allclose(tally.loss[0], losses.sum(0), rtol=1e-5)
    np.testing.assert_array_equal(tally.hits[0], hits.sum(0))


def test_after_a_first_token_that_is_no_code_a_head_of_levels_is_certain_that_it_repeats():
    local, vectors, tokens = local_stack_with_levels()
    losses, _ = cross_entropy(local.logits(vectors, tokens), tokens)
    is_code = np.isin(tokens[:, 0], VOCABULARY.level(0))
    assert 0 < is_code.sum() < len(is_code)
    np.testing.assert_array_equal(losses[~is_code, 1:], 0)
    assert (np.asarray(losses)[is_code] > 0).all() and (np.asarray(losses)[:, 0] > 0).all()


def test_a_head_of_levels_gives_no_chance_to_ids_that_cannot_come():
    local, vectors, tokens = local_stack_with_levels()
    chances = np.asarray(jax.nn.softmax(local.logits(vectors, tokens), axis=-1))
    np.testing.assert_allclose(chances.sum(-1), 1, rtol=1e-5)
    later = np.isin(np.arange(VOCABULARY.size), [*VOCABULARY.level(1), *VOCABULARY.level(2)])
    assert (chances[:, 0, later] == 0).all() and (chances[:, 0, ~later] > 0).all()
    is_code = np.isin(tokens[:, 0], VOCABULARY.level(0))
    for level in (1, 2):
        own = np.isin(np.arange(VOCABULARY.size), VOCABULARY.level(level))
        assert (chances[is_code, level][:, ~own] == 0).all() and (chances[is_code, level][:, own] > 0).all()


def local_stack_with_levels():
    """A local stack whose head is of levels, and vectors and tokens of frames, a few of them audio."""
    definition = ModelDefinition(with_layout(LayoutConfig(head="levels")))
    local = definition.merge("local", params_of(definition.config)["local"])
    batch = random_batch(rows=2)
    tokens = jnp.asarray(batch.tokens.reshape(-1, 3)[np.asarray(batch.segments).reshape(-1) > 0])
    return local, jax.random.normal(jax.random.key(3), (len(tokens), 30)), tokens


def test_rotary_scores_depend_on_distances_alone():
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 7, 3, 10))
    places = jnp.arange(7)

    def scores(positions):
        turn = POSITIONS["rotary"].turn(positions)
        return jnp.einsum("bqhe,bkhe->bhqk", turn(query), turn(key))

    np.testing.assert_allclose(scores(places), scores(places + 31), rtol=1e-4, atol=1e-4)
    assert np.abs(scores(places) - scores(places * 2)).max() > 0.1
    np.testing.assert_allclose(POSITIONS["rotary"].turn(jnp.zeros(7, int))(query), query, rtol=1e-6)


def test_the_written_gradient_of_the_rms_norm_is_that_of_the_plain_formula():
    x = jax.random.normal(jax.random.key(0), (7, 23))
    value, pull = jax.vjp(unit_power, x)
    wanted, wanted_pull = jax.vjp(lambda x: x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5), x)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    d = jax.random.normal(jax.random.key(1), x.shape)
    np.testing.assert_allclose(pull(d)[0], wanted_pull(d)[0], rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(RmsNorm(23)(3 * x), wanted, rtol=1e-4)


def test_a_squared_relu_is_the_square_of_what_is_above_zero():
    np.testing.assert_array_equal(squared_relu(jnp.array([-3.0, 0.0, 3.0])), [0.0, 0.0, 9.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "rsm"}, "model.layout.norm: got 'rsm', wanted layer or rms; did you mean 'rms'"),
        ({"mlp": "relu"}, "model.layout.mlp: got 'relu', wanted gelu or squared_relu"),
        ({"positions": "rotery"}, "model.layout.positions: got 'rotery'.*did you mean 'rotary'"),
        ({"head": "level"}, "model.layout.head: got 'level', wanted shared or levels; did you mean 'levels'"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(change, message):
    with pytest.raises(ValueError, match=message):
        ModelDefinition(with_layout(replace(LayoutConfig(), **change)))


def test_a_head_of_levels_wants_levels_of_audio():
    stacks = {name: replace(MODEL.global_stack) for name in ("global_stack", "local_stack")}
    for change in ({"codebooks": 1}, {"ranges": (), "appended": {"text": 23}}):
        with pytest.raises(ValueError, match="ModelConfig.layout.head: got levels .*, wanted at least 2 codebooks"):
            replace(MODEL, layout=LayoutConfig(head="levels"), **stacks, **change)
