"""Laws of guidance: the logits with and without conditions are mixed, and both halves of the rows go on alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_decoding import assert_the_same_in_any_queue, example_streams, prompts_of, random_params
from tests.tiny import MODEL, TEXT_WIDTH, VOCABULARY, make_programs, stack_rows
from uniaudio_jax.decoding import Generator, idle_state, next_frame, prepare_for_decoding
from uniaudio_jax.sampling import DRAWS, Sampling, guided
from uniaudio_jax.sequence import empty_streams, pack, to_frames, to_prefix
from uniaudio_jax.tasks import get_task


@pytest.fixture(scope="module")
def generator():
    return Generator(make_programs().definition, random_params(), VOCABULARY)


def without_conditions(task, streams):
    return {**streams, **empty_streams(task.conditions, VOCABULARY, TEXT_WIDTH)}


def mixed_logits(generator, task, rows, guidance):
    """For each row the formula over two full forwards, from the target's first item on, and the tokens there."""
    wholes = [to_frames(task, row, VOCABULARY, TEXT_WIDTH) for row in rows]
    bare = [to_frames(task, without_conditions(task, row), VOCABULARY, TEXT_WIDTH) for row in rows]
    batch = stack_rows([pack([frames], 61, 61, 17, "target") for frames in wholes + bare])
    logits = jax.jit(generator.definition.logits)(generator.params, batch)
    mixed = []
    for whole, frames, with_, without in zip(wholes, bare, logits[: len(rows)], logits[len(rows) :], strict=True):
        first, last = int(np.argmax(whole.target)) + 1, len(whole.tokens)
        without = without[first - last + len(frames.tokens) : len(frames.tokens)]
        mixed.append((without + guidance * (with_[first:last] - without), whole.tokens[first:]))
    return mixed


@pytest.mark.parametrize("name", ["tts", "text_to_music"])
def test_guided_logits_with_caches_equal_the_formula_over_two_full_forwards(name, generator):
    task, guidance = get_task(name), 2.5
    rows = [example_streams(task, seed) for seed in range(3)]
    wanted, tokens = zip(*mixed_logits(generator, task, rows, guidance), strict=True)
    everything = jnp.tile(jnp.arange(MODEL.vocabulary_size), (3, 1))
    model = prepare_for_decoding(generator.definition, generator.params, everything)
    every = [*rows, *(without_conditions(task, row) for row in rows)]
    prefixes = [to_prefix(task, streams, VOCABULARY, TEXT_WIDTH) for streams in every]
    slot = np.int32(max(len(prefix.tokens) for prefix in prefixes))
    state = generator._with_slot(generator._with_room(idle_state(MODEL, 6), context=61), slot)
    for row, prefix in enumerate(prefixes):
        batch, length = generator._padded(prefix, 61)
        numbers = map(np.int32, (length, 61))
        state = generator._admit(model.global_, state, np.int32(row), batch, *numbers, jax.random.key(0))

    @jax.jit
    def step(model, state, forced):
        seen = []

        def choose(logits, level, *_):
            seen.append(logits)
            return forced[:, level]

        new, *_ = next_frame(model, state, guided(choose, guidance), jnp.zeros((6, 3, DRAWS)))
        return new, jnp.stack(seen, axis=1)

    for frame in range(min(map(len, tokens))):
        state, logits = step(model, state, jnp.array([of_row[frame] for of_row in tokens]))
        np.testing.assert_array_equal(state.frame[:3], state.frame[3:])
        for row in range(3):
            np.testing.assert_allclose(logits[row], wanted[row][frame], rtol=1e-5, atol=1e-5)


def test_greedy_guided_tokens_are_the_most_likely_of_the_mixed_logits(generator):
    task = get_task("tts")
    rows = [example_streams(task, seed) for seed in range(3)]
    prefixes = [to_prefix(task, row, VOCABULARY, TEXT_WIDTH) for row in rows]
    made = generator.generate(task, prefixes, Sampling(temperature=0, guidance=3, min_frames=17), frames=17)
    mixed = mixed_logits(generator, task, [{**row, "audio": codes} for row, codes in zip(rows, made, strict=True)], 3)
    for codes, (logits, _) in zip(made, mixed, strict=True):
        for level in range(3):
            best = logits[:17, level, np.array(VOCABULARY.level(level))].argmax(-1)
            np.testing.assert_array_equal(codes[:, level], best)


def test_guidance_of_1_needs_no_second_rows_and_its_number_no_other_program(generator, monkeypatch):
    task, used = get_task("tts"), []
    block, prompts = generator._block, prompts_of(task, 3)

    def noted(model, values, state, *rest, **rule):
        used.append((len(state.frame), rule["rule"].guided))
        return block(model, values, state, *rest, **rule)

    monkeypatch.setattr(generator, "_block", noted)
    made = [dict(generator.results(task, prompts, Sampling(guidance=number))) for number in (1, 2.5)]
    programs = block._cache_size()
    made += [dict(generator.results(task, prompts, sampling)) for sampling in (Sampling(), Sampling(guidance=3))]
    assert block._cache_size() == programs
    assert set(used) == {(3, False), (6, True)}
    for number in range(3):
        np.testing.assert_array_equal(made[0][number], made[2][number])
    assert any(not np.array_equal(made[1][number], made[3][number]) for number in range(3))


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"top_k": 5, "seed": 3}])
def test_guidance_of_0_gives_the_tokens_of_the_prompt_without_conditions(sampling, generator):
    task, streams = get_task("enhancement"), example_streams(get_task("enhancement"), 3)
    given, bare = (
        to_prefix(task, of_prompt, VOCABULARY, TEXT_WIDTH) for of_prompt in (streams, without_conditions(task, streams))
    )
    (wanted,) = generator.generate(task, [bare], Sampling(**sampling), frames=19)
    (made,) = generator.generate(task, [given], Sampling(guidance=0, **sampling), frames=19)
    np.testing.assert_array_equal(made, wanted)
    (other,) = generator.generate(task, [given], Sampling(**sampling), frames=19)
    assert not np.array_equal(made, other)


@pytest.mark.slow
def test_a_guided_prompt_gives_the_same_alone_in_a_stream_and_in_any_queue(generator):
    task, sampling = get_task("text_to_music"), Sampling(guidance=2.5, top_k=5, seed=11, end_bias=-1.0)
    prompts = prompts_of(task, 7)
    alone = {p.number: np.concatenate(list(generator.stream(task, p, sampling))) for p in prompts}
    assert len({len(codes) for codes in alone.values()}) > 2
    assert_the_same_in_any_queue(generator, task, prompts, sampling, alone)
