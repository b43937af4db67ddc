"""Laws of generation: the caches give what the full forward gives, and only ids that may come do come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import MODEL, TEXT_WIDTH, VOCABULARY, make_programs, random_stream
from uniaudio_jax.decoding import Generator, Prompt, idle_state, next_frame, prepare_for_decoding
from uniaudio_jax.sampling import DRAWS, Past, Sampling, kept, sample
from uniaudio_jax.sequence import Batch, to_frames, to_prefix, unscored
from uniaudio_jax.tasks import get_task
from uniaudio_jax.vocab import SPECIAL_IDS


@pytest.fixture(scope="module")
def params():
    return random_params()


def random_params():
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


@pytest.mark.parametrize("name", ["tts", pytest.param("text_to_music", marks=pytest.mark.slow), "enhancement"])
def test_cached_logits_equal_the_full_forward(name, generator, params):
    task = get_task(name)
    rows = [example_streams(task, seed) for seed in range(3)]
    prefixes = [to_prefix(task, row, VOCABULARY, TEXT_WIDTH) for row in rows]
    wholes = [to_frames(task, row, VOCABULARY, TEXT_WIDTH) for row in rows]
    lengths = [len(prefix.tokens) for prefix in prefixes]
    everything = jnp.tile(jnp.arange(MODEL.vocabulary_size), (3, 1))
    model = prepare_for_decoding(generator.definition, params, everything)
    state = generator._with_slot(generator._with_room(idle_state(MODEL, 3), context=61), np.int32(max(lengths)))
    for row, prefix in enumerate(prefixes):
        batch, length = generator._padded(prefix, 61)
        numbers = map(np.int32, (length, 61))
        state = generator._admit(model.global_, state, np.int32(row), batch, *numbers, jax.random.key(0))
    logits_of = jax.jit(generator.definition.logits)
    wanted = [logits_of(params, jax.tree.map(jnp.asarray, single(whole)))[0] for whole in wholes]

    @jax.jit
    def step(model, state, forced):
        new, _, logits = next_frame(model, state, lambda _, level, *__: forced[:, level], jnp.zeros((3, 3, DRAWS)))
        return new, logits

    for frame in range(min(len(w.tokens) - length for w, length in zip(wholes, lengths, strict=True))):
        forced = jnp.array([w.tokens[length + frame] for w, length in zip(wholes, lengths, strict=True)])
        state, logits = step(model, state, forced)
        for row, length in enumerate(lengths):
            np.testing.assert_allclose(logits[row], wanted[row][length + frame], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(top_k=3), Sampling(top_k=0, temperature=2.0)])
def test_only_codes_of_the_level_come(sampling, generator):
    task = get_task("enhancement")
    prefixes = [to_prefix(task, example_streams(task, seed), VOCABULARY, TEXT_WIDTH) for seed in range(5)]
    made = generator.generate(task, prefixes, sampling, frames=23)
    assert max(map(len, made)) <= 23
    for codes in made:
        assert codes.shape[1:] == (3,) and ((codes >= 0) & (codes < VOCABULARY.entries)).all()


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


ROWS, CODES, END = 4001, 100, 500


def chosen(sampling: Sampling, logits, recent: int = -1) -> np.ndarray:
    """What 4001 rows with these logits of 100 codes and the end choose at the first level."""
    ids = jnp.asarray([[*range(CODES), END]])
    past = Past(jnp.ones(ROWS, jnp.int32), jnp.full((ROWS, 10), recent))
    choose = sample(sampling.rule, sampling.values(), ids, END, past)
    draws = jax.random.uniform(jax.random.key(0), (ROWS, DRAWS))
    return np.asarray(choose(jnp.broadcast_to(logits, (ROWS, CODES + 1)), 0, jnp.zeros(ROWS, jnp.int32), draws))


def assert_share(hits, chance):
    assert abs(hits.mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / ROWS)


@pytest.mark.parametrize("top_k", [5, 0])
def test_the_end_keeps_its_probability(top_k):
    """With k of n ids kept, the end comes as often as the softmax over all of them says."""
    tokens = chosen(Sampling(top_k=top_k, min_frames=0), jnp.zeros(CODES + 1).at[-1].set(1.5))
    assert_share(tokens == END, np.exp(1.5) / (CODES + np.exp(1.5)))
    assert len(set(tokens[tokens != END].tolist())) == (top_k or CODES)


def test_an_end_less_likely_than_the_kept_codes_does_not_come():
    logits = jnp.zeros(CODES + 1).at[:5].set(1.0).at[-1].set(0.9)
    for top_k, comes in ((5, False), (6, True)):
        assert bool((chosen(Sampling(top_k=top_k), logits) == END).any()) is comes


def test_an_end_bias_of_ln_2_makes_the_end_twice_as_likely():
    logits = jnp.zeros(CODES + 1)
    for bias in (0, np.log(2), -np.log(2)):
        odds = np.exp(bias) / CODES
        assert_share(chosen(Sampling(top_k=0, end_bias=bias), logits) == END, odds / (1 + odds))


@pytest.mark.parametrize("top_p", [0.1, 0.37, 0.9, 1.0])
def test_top_p_keeps_the_fewest_codes_with_that_probability(top_p):
    logits = jax.random.normal(jax.random.key(1), (CODES + 1,)).at[-1].set(-1e9)
    chances = np.asarray(jax.nn.softmax(logits[:-1])).astype(float)
    falling = np.sort(chances)[::-1]
    count = int(kept(Sampling(top_k=0, top_p=top_p).values(), *map(jnp.float32, (falling, falling.cumsum()))).sum())
    assert falling[:count].sum() >= top_p - 1e-6 and falling[: count - 1].sum() < top_p
    tokens = chosen(Sampling(top_k=0, top_p=top_p), logits)
    assert set(tokens.tolist()) <= set(np.argsort(-chances)[:count].tolist())
    best = int(chances.argmax())
    assert_share(tokens == best, chances[best] / falling[:count].sum())


def test_a_code_that_repeats_itself_is_drawn_anew_among_all_codes():
    """VALL-E 2: a drawn code that fills too much of the last frames gives way to one of the whole distribution."""
    logits = jnp.zeros(CODES + 1).at[3].set(2.0).at[-1].set(-1e9)
    greedy_like = Sampling(top_k=1, most_repeated=0.1)
    assert (chosen(greedy_like, logits) == 3).all()
    again = chosen(greedy_like, logits, recent=3)
    assert_share(again == 3, np.exp(2) / (CODES - 1 + np.exp(2)))
    assert len(set(again.tolist())) > 90
    assert (chosen(Sampling(top_k=1), logits, recent=3) == 3).all()


def test_other_numbers_of_a_sampling_need_no_other_program(generator):
    task = get_task("tts")
    prefix = to_prefix(task, example_streams(task, 1), VOCABULARY, TEXT_WIDTH)
    samplings = [
        Sampling(),
        Sampling(temperature=0.7, top_k=7, top_p=0.9, seed=3),
        Sampling(end_bias=-1.0, most_repeated=0.1, min_frames=5),
    ]
    generator.generate(task, [prefix], samplings[0], frames=7)
    programs = generator._block._cache_size()
    for sampling in samplings:
        generator.generate(task, [prefix], sampling, frames=7)
    assert generator._block._cache_size() == programs


@pytest.mark.parametrize(
    "numbers",
    [
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"most_repeated": -0.1},
        {"end_bias": float("inf")},
        {"top_k": -1},
        {"guidance": -0.1},
    ],
)
def test_numbers_that_mean_nothing_are_refused(numbers):
    with pytest.raises(ValueError, match="Sampling: got"):
        Sampling(**numbers)


def test_greedy_takes_the_first_of_equally_likely_codes():
    logits = jnp.zeros(CODES + 1).at[jnp.array([13, 17, 89])].set(1.0)
    assert (chosen(Sampling(temperature=0), logits) == 13).all()


@pytest.mark.parametrize("rows", [1, 3])
def test_the_caches_are_written_in_place(rows, generator):
    """A copy of each cache in each frame was a third of the time of one row."""
    end = SPECIAL_IDS["<audio_end>"]
    model = generator._model(get_task("tts"), end)
    state = generator._with_room(idle_state(MODEL, rows), context=61)
    greedy = Sampling(temperature=0)
    program = generator._block.lower(model, greedy.values(), state, np.bool_(False), rule=greedy.rule, end=end)
    stack = MODEL.global_stack
    items, width = rows * stack.heads, stack.head_width
    text = program.compile().as_text()
    shapes = [f"f32[{items},{width},61]", f"f32[{items},61,{width}]"]
    assert all(shape in text for shape in shapes)
    assert [line for line in text.splitlines() if " copy(" in line and any(shape in line for shape in shapes)] == []


# a queue


def prompts_of(task, count: int) -> list[Prompt]:
    prefixes = [to_prefix(task, example_streams(task, seed), VOCABULARY, TEXT_WIDTH) for seed in range(count)]
    return [Prompt(number, prefix, 5 + 7 * (number % 4)) for number, prefix in enumerate(prefixes)]


def assert_the_same_in_any_queue(generator, task, prompts, sampling, alone):
    """Asserts that each prompt gets in two queues what it got alone."""
    for rows, order in ((2, prompts), (3, prompts[::-1])):
        queued = dict(generator.results(task, iter(order), sampling, rows))
        assert sorted(queued) == sorted(alone)
        for number, codes in queued.items():
            np.testing.assert_array_equal(codes, alone[number])


def test_a_prompt_gives_the_same_alone_and_in_any_queue(generator):
    task, sampling = get_task("text_to_music"), Sampling(top_k=5, seed=11, end_bias=-1.0)
    prompts = prompts_of(task, 7)
    alone = {p.number: next(generator.results(task, [p], sampling))[1] for p in prompts}
    assert len({len(codes) for codes in alone.values()}) > 2
    assert_the_same_in_any_queue(generator, task, prompts, sampling, alone)


def test_a_prompt_at_the_end_of_the_context_leaves_the_rows_beside_it_as_they_are(generator):
    task, rng, greedy = get_task("enhancement"), np.random.default_rng(2), Sampling(temperature=0, min_frames=99)
    sizes = ((50, None), (3, 41), (19, 13))
    prompts = [
        Prompt(number, to_prefix(task, {"noisy_audio": stream}, VOCABULARY, TEXT_WIDTH), frames)
        for number, (length, frames) in enumerate(sizes)
        for stream in [random_stream(task.conditions[0], length, rng)]
    ]
    alone = [next(generator.results(task, [prompt], greedy))[1] for prompt in prompts]
    assert list(map(len, alone)) == [6, 41, 13]
    for rows, order in ((2, prompts), (2, prompts[1:] + prompts[:1]), (3, prompts)):
        for number, codes in generator.results(task, order, greedy, rows):
            np.testing.assert_array_equal(codes, alone[number])


def test_two_prompts_that_are_equal_have_their_own_random_numbers(generator):
    task = get_task("tts")
    prefix = to_prefix(task, example_streams(task, 1), VOCABULARY, TEXT_WIDTH)
    one, other = generator.generate(task, [prefix, prefix], Sampling(min_frames=19), frames=19)
    assert not np.array_equal(one, other)


def test_a_free_row_takes_the_next_prompt_at_once_and_no_more_are_read(generator):
    task, read = get_task("tts"), []

    def reading():
        for prompt in prompts_of(task, 7):
            read.append(prompt.number)
            yield prompt

    results = generator.results(task, reading(), Sampling(min_frames=99), rows=2)
    ended = [(next(results)[0], len(read)) for _ in range(3)]
    assert ended == [(0, 3), (1, 4), (2, 5)]  # of 5, 12, 19 and 26 frames; one prompt is held ready
    assert [number for number, _ in results] == [4, 3, 5, 6]


def test_no_prompt_gives_no_result(generator):
    assert list(generator.results(get_task("tts"), [], Sampling())) == []
