"""Laws of the packing plan: pure, complete, within its limits, and the same on any number of hosts."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import plan as plan_module
from data_pipelines.batches import BatchStream, Rows, Source, make_batches
from data_pipelines.plan import Examples, Limits, Plan, one_epoch, permute
from data_pipelines.store import group_speakers
from data_pipelines.views import Index
from tests.tiny import TEXT_WIDTH, VOCABULARY, random_stream
from uniaudio_jax.sequence import frame_count, target_count
from uniaudio_jax.tasks import TASKS, get_task

LIMITS = Limits(frames=61, loss_frames=37, text_frames=11, prompt_frames=5, loss_on="target")


class MemoryRecords:
    """Random streams, made again at each access."""

    def __init__(self, task, lengths):
        self.task, self.lengths = task, lengths

    def tokens(self, number, key):
        stream = next(stream for stream in self.task.streams if stream.key == key)
        rng = np.random.default_rng([number, *key.encode()])
        return random_stream(stream, int(self.lengths[key][number]), rng)


def index_of(lengths, speakers):
    return Index(lengths, group_speakers(np.array(speakers)))


def corpus(name, examples, seed=0, speakers=7):
    task, rng = get_task(name), np.random.default_rng(seed)
    lengths = {stream.key: rng.integers(1, 9, examples) for stream in task.columns}
    return task, index_of(lengths, rng.integers(0, speakers, examples)), MemoryRecords(task, lengths)


def make_examples(name, examples, seed=0):
    task, index, _ = corpus(name, examples, seed)
    return Examples(index, task, LIMITS, seed)


def make_rows(sizes, shares, seed=0, **settings):
    sources = []
    for name, examples in sizes.items():
        task, index, records = corpus(name, examples, seed)
        sources.append(Source(Examples(index, task, LIMITS, seed), records))
    return Rows(sources, shares, LIMITS, seed, VOCABULARY, TEXT_WIDTH, **settings)


MIXTURE = {"tts": 211, "enhancement": 97, "text_to_music": 53}
SHARES = [0.5, 0.3, 0.2]


@given(size=st.integers(1, 3000), key=st.integers(0, 2**62))
@settings(max_examples=40, deadline=None)
def test_the_shuffle_is_a_permutation(size, key):
    assert sorted(permute(np.arange(size), size, key)) == list(range(size))


def check_rows(rows, sources):
    """Every row is within the limits."""
    for row in rows:
        of = [sources[member.source] for member in row]
        lengths = [
            {key: int(column[m.record]) for key, column in one.index.lengths.items()}
            | {"speaker_prompt": min(5, int(one.index.lengths.get("audio", [0])[m.prompt]))}
            for m, one in zip(row, of, strict=True)
        ]
        pairs = list(zip(of, lengths, strict=True))
        assert sum(frame_count(one.task, length) for one, length in pairs) <= 61
        assert sum(target_count(one.task, length) for one, length in pairs) <= 37
        assert sum(length.get("caption", 0) for _, length in pairs) <= 11


@pytest.mark.parametrize("name", ["tts", "enhancement", "text_to_music"])
def test_one_epoch_holds_every_example_once_within_the_limits(name, monkeypatch):
    monkeypatch.setattr(plan_module, "BLOCK", 101)
    examples = make_examples(name, 499)
    rows = one_epoch(examples)
    assert sorted(member.record for row in rows for member in row) == list(range(499))
    check_rows(rows, [examples])


def test_each_epoch_of_the_endless_list_holds_every_example_once_in_its_own_order():
    examples = make_examples("tts", 499)
    whole = examples.take(0, 2 * 499)
    first, second = whole.records[:499].tolist(), whole.records[499:].tolist()
    assert sorted(first) == sorted(second) == list(range(499)) and first != second
    parts = [examples.take(start, min(start + 83, 998)) for start in range(0, 998, 83)]
    for column, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(column, np.concatenate(pieces))


def test_the_rows_of_a_mixture_hold_each_datasets_list_in_turn_and_share_out_the_frames(monkeypatch):
    monkeypatch.setattr(plan_module, "BLOCK", 211)
    sources = [make_examples(name, size) for name, size in MIXTURE.items()]
    plan = Plan(sources, SHARES, LIMITS, seed=3)
    plan.row(2000)
    blocks = len(plan.starts) - 1
    rows = [plan.row(number) for number in range(plan.starts[-1])]
    check_rows(rows, sources)
    frames = np.zeros(3)
    for number, source in enumerate(sources):
        drawn = [m.record for row in rows for m in row if m.source == number]
        wanted = source.take(0, len(drawn))
        assert sorted(drawn) == sorted(wanted.records.tolist())
        frames[number] = wanted.sizes[:, 0].sum()
    np.testing.assert_allclose(frames / frames.sum(), SHARES, atol=0.01)
    assert plan.fill(blocks) == pytest.approx(frames.sum() / (61 * len(rows)))
    assert plan.fill(blocks) > 0.9
    assert any(len({member.source for member in row}) > 1 for row in rows)


def test_a_speaker_prompt_is_another_utterance_of_the_same_speaker():
    examples = make_examples("tts", 499)
    records, prompts, _ = examples.take(0, 2 * 499)
    assert (prompts != records).all()
    speakers = examples.index.speakers.numbers
    np.testing.assert_array_equal(speakers[prompts], speakers[records])
    drawn = {}
    for record, prompt in zip(records, prompts, strict=True):
        drawn.setdefault(record, set()).add(prompt)
    assert np.mean([len(of) == 2 for of in drawn.values()]) > 0.9


def test_the_plan_is_a_pure_function_of_indexes_seed_and_row():
    sources = [make_examples(name, size) for name, size in MIXTURE.items()]
    one, other, third = (Plan(sources, SHARES, LIMITS, seed) for seed in (3, 3, 4))
    far = one.row(5003)
    assert far == other.row(5003)
    assert [one.row(n) for n in range(9)] == [other.row(n) for n in range(9)]
    assert [one.row(n) for n in range(9)] != [third.row(n) for n in range(9)]


def count_packed_blocks(monkeypatch) -> list[int]:
    """A list that grows by one for each block that is packed from now on."""
    packed, pack_rows = [], plan_module.pack_rows

    def counted(*arguments):
        packed.append(1)
        return pack_rows(*arguments)

    monkeypatch.setattr(plan_module, "pack_rows", counted)
    return packed


def test_a_plan_goes_on_from_an_anchor_with_the_same_rows_and_without_packing_what_came_before(monkeypatch):
    monkeypatch.setattr(plan_module, "BLOCK", 101)
    sources = [make_examples(name, size) for name, size in MIXTURE.items()]
    whole = Plan(sources, SHARES, LIMITS, seed=3)
    for far in (0, 97, 1009, 5003):
        wanted = [whole.row(far + number) for number in range(7)]
        anchor = whole.anchor_of(far)
        resumed = Plan(sources, SHARES, LIMITS, seed=3)
        resumed.start_at(anchor)
        with monkeypatch.context() as patch:
            packed = count_packed_blocks(patch)
            assert [resumed.row(far + number) for number in range(7)] == wanted
            assert len(packed) <= 2
        assert resumed.anchor_of(far) == anchor
        assert resumed.row(5) == whole.row(5)


def test_examples_that_can_never_be_placed_are_counted():
    task = get_task("tts")
    index = index_of({"phone": np.array([3, 3, 3, 90]), "audio": np.array([4, 4, 4, 4])}, ["a", "a", "b", "a"])
    examples = Examples(index, task, LIMITS, 0)
    assert examples.skipped == {"longer than a row": 1, "speaker with one utterance": 1}
    assert sorted(examples.take(0, 8).records.tolist()) == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="none of 1 examples fits"):
        Examples(index_of({"phone": np.array([90]), "audio": np.array([4])}, ["a"]), task, LIMITS, 0)


@pytest.mark.parametrize("hosts", [2, 4])
def test_the_examples_of_a_step_are_the_same_on_any_number_of_hosts(hosts):
    def dataset(host, hosts):
        return make_batches(make_rows(MIXTURE, SHARES), 4, host, hosts)

    whole: Any = dataset(0, 1)
    parts: list[Any] = [dataset(host, hosts) for host in range(hosts)]
    for step in (0, 1, 2, 31, 1009):
        wanted = sorted(row.tobytes() for row in whole[step].tokens)
        got = sorted(row.tobytes() for part in parts for row in part[step].tokens)
        assert wanted == got


def test_a_streams_state_is_one_integer():
    dataset = make_batches(make_rows(MIXTURE, SHARES), 3, 0, 1)
    stream = BatchStream(dataset)
    batches = [next(stream) for _ in range(7)]
    assert stream.step == 7
    again = BatchStream(dataset, 5)
    np.testing.assert_array_equal(next(again).tokens, batches[5].tokens)
    assert again.step == 6


def test_a_row_says_of_each_counted_frame_its_task_and_weight_and_of_each_dataset_its_audio():
    rows = make_rows(MIXTURE, SHARES, loss_weights={"enhancement": 7.0})
    for number in range(23):
        row, members = rows[number], rows.plan.row(number)
        tasks = [rows.sources[member.source].examples.task for member in members]
        used = row.loss_weights > 0
        counted = row.segments[row.loss_frames[used]] - 1
        names = np.array([task.name for task in tasks])[counted]
        assert [list(TASKS)[task] for task in row.task[used]] == names.tolist()
        np.testing.assert_array_equal(row.loss_weights[used], np.where(names == "enhancement", 7.0, 1.0))
        heard = [0, 0, 0]
        for member in members:
            lengths = rows.sources[member.source].examples.index.lengths
            heard[member.source] += max(int(lengths[key][member.record]) for key in lengths if "audio" in key)
        assert row.audio_frames.tolist() == heard
