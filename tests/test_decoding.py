"""Laws of generation: the caches give what the full forward gives, and only ids that may come do come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import MODEL, TEXT_WIDTH, VOCABULARY, make_programs, random_stream
from uniaudio_jax.decoding import Generator, Sampling, next_frame, prepare_for_decoding, sample, start_state
from uniaudio_jax.sequence import Batch, to_frames, to_prefix, unscored
from uniaudio_jax.tasks import get_task
from uniaudio_jax.vocab import SPECIAL_IDS


@pytest.fixture(scope="module")
def params():
    params = make_programs().init(jax.random.key(0)).params
    return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)


@pytest.fixture(scope="module")
def generator(params):
    return Generator(make_programs().definition, params, VOCABULARY)


def example_streams(task, seed):
    rng = np.random.default_rng(seed)
    return {s.key: random_stream(s, 2 + (seed + n) % 5, rng) for n, s in enumerate(task.streams)}


def single(frames) -> Batch:
    length = len(frames.tokens)
    vectors = np.concatenate([frames.text_vectors, np.zeros((1, TEXT_WIDTH), np.float32)])
    segments, places = np.ones((1, length), np.int32), np.arange(length, dtype=np.int32)[None]
    return unscored(frames.tokens[None], segments, places, frames.text_slots[None], vectors[None])


@pytest.mark.parametrize("name", ["tts", "text_to_music", "enhancement"])
def test_cached_logits_equal_the_full_forward(name, generator, params):
    task = get_task(name)
    rows = [example_streams(task, seed) for seed in range(3)]
    prefixes = [to_prefix(task, row, VOCABULARY, TEXT_WIDTH) for row in rows]
    wholes = [to_frames(task, row, VOCABULARY, TEXT_WIDTH) for row in rows]
    batch, lengths = generator._pad(prefixes, MODEL.context_frames)
    everything = jnp.tile(jnp.arange(MODEL.vocabulary_size), (3, 1))
    model = prepare_for_decoding(generator.definition, params, everything)
    state = start_state(model.global_, jax.tree.map(jnp.asarray, batch), jnp.asarray(lengths), 61, jax.random.key(0))
    wanted = [generator.definition.logits(params, jax.tree.map(jnp.asarray, single(whole)))[0] for whole in wholes]
    for frame in range(min(len(w.tokens) - length for w, length in zip(wholes, lengths, strict=True))):
        forced = jnp.array([w.tokens[length + frame] for w, length in zip(wholes, lengths, strict=True)])
        state, _, logits = next_frame(model, state, lambda _, level, *__, forced=forced: forced[:, level])
        for row, length in enumerate(lengths):
            np.testing.assert_allclose(logits[row], wanted[row][length + frame], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(top_k=3), Sampling(top_k=0, temperature=2.0)])
def test_only_codes_of_the_level_or_the_end_come(sampling, generator):
    task = get_task("enhancement")
    prefixes = [to_prefix(task, example_streams(task, seed), VOCABULARY, TEXT_WIDTH) for seed in range(5)]
    tokens = np.concatenate(list(generator.blocks(task, prefixes, sampling, frames=23)), axis=1)
    end = SPECIAL_IDS["<audio_end>"]
    for row in tokens:
        stops = np.flatnonzero(row[:, 0] == end)
        frames = row[: stops[0]] if len(stops) else row
        assert len(stops) == 0 or (row[stops[0]] == end).all()
        assert (row[stops[0] + 1 :] == 0).all() if len(stops) else len(frames) == 23
        for level in range(3):
            span = VOCABULARY.level(level)
            assert ((frames[:, level] >= span.start) & (frames[:, level] < span.stop)).all()


def test_greedy_generation_of_a_batch_equals_one_by_one(generator):
    task = get_task("tts")
    prefixes = [to_prefix(task, example_streams(task, seed), VOCABULARY, TEXT_WIDTH) for seed in range(3)]
    greedy = Sampling(temperature=0, min_frames=5)
    together = generator.generate(task, prefixes, greedy, frames=17)
    for prefix, codes in zip(prefixes, together, strict=True):
        alone = generator.generate(task, [prefix], greedy, frames=17)[0]
        np.testing.assert_array_equal(codes, alone)
        assert 5 <= len(codes) <= 17 and codes.min() >= 0 and codes.max() < VOCABULARY.entries


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others(generator):
    task = get_task("tts")
    prefix = [to_prefix(task, example_streams(task, 1), VOCABULARY, TEXT_WIDTH)]
    one, again, other = (
        generator.generate(task, prefix, Sampling(seed=seed, min_frames=19), frames=19)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_prompt_that_leaves_no_room_is_refused(generator):
    task = get_task("enhancement")
    rng = np.random.default_rng(0)
    prefix = to_prefix(task, {"noisy_audio": random_stream(task.conditions[0], 60, rng)}, VOCABULARY, TEXT_WIDTH)
    with pytest.raises(ValueError, match="prompt of 65 frames .* 61 positions"):
        generator.generate(task, [prefix], Sampling())


def test_a_seed_repeats_itself_and_each_task_has_its_own_numbers(generator):
    names = ("enhancement", "dereverberation")
    prefix = to_prefix(get_task(names[0]), example_streams(get_task(names[0]), 0), VOCABULARY, TEXT_WIDTH)
    sampling = Sampling(min_frames=17)
    made = [generator.generate(get_task(name), [prefix], sampling, 17)[0] for name in (*names, names[0])]
    np.testing.assert_array_equal(made[0], made[2])
    assert (made[0] != made[1]).any()


def test_top_k_keeps_the_probability_of_the_end():
    """With k of n ids kept, the end comes as often as the softmax over all of them says."""
    rows, codes, end = 4001, 100, 500
    ids = jnp.asarray([[*range(codes), end]])
    logits = jnp.broadcast_to(jnp.zeros(codes + 1).at[-1].set(1.5), (rows, codes + 1))
    choose = sample(Sampling(top_k=5, min_frames=0), ids, end, False, jnp.int32(1))
    tokens = np.asarray(choose(logits, 0, jnp.zeros(rows, jnp.int32), jax.random.key(0)))
    chance = np.exp(1.5) / (codes + np.exp(1.5))
    assert abs((tokens == end).mean() - chance) < 4 * np.sqrt(chance / rows)
    assert len(set(tokens[tokens != end].tolist())) == 5


def test_an_end_less_likely_than_the_k_best_does_not_come():
    rows, codes, end = 4001, 100, 500
    logits = jnp.broadcast_to(jnp.zeros(codes + 1).at[:5].set(1.0).at[-1].set(0.9), (rows, codes + 1))
    ids = jnp.asarray([[*range(codes), end]])
    for kept, comes in ((5, False), (6, True)):
        choose = sample(Sampling(top_k=kept, min_frames=0), ids, end, False, jnp.int32(1))
        assert bool((choose(logits, 0, jnp.zeros(rows, jnp.int32), jax.random.key(0)) == end).any()) is comes
