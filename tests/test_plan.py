"""Laws of the packing plan: pure, complete, within its limits, and the same on any number of hosts."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import plan as plan_module
from data_pipelines.batches import BatchStream, Rows, make_batches
from data_pipelines.index import make_index, read_index, write_index
from data_pipelines.plan import Limits, Plan, permute
from tests.tiny import TEXT_WIDTH, VOCABULARY, random_stream
from uniaudio_jax.sequence import frame_count, target_count
from uniaudio_jax.tasks import get_task

LIMITS = Limits(frames=61, loss_frames=37, text_frames=11, prompt_frames=5, loss_on="target")


class MemoryRecords:
    """Records of random streams, made again at each access."""

    def __init__(self, task, lengths):
        self.task, self.lengths = task, lengths

    def __getitem__(self, number):
        rng = np.random.default_rng(number)
        return {key: random_stream(next(s for s in self.task.streams if s.key == key), int(column[number]), rng)
                for key, column in self.lengths.items()}  # fmt: skip


def corpus(name, examples, seed=0, speakers=7):
    task, rng = get_task(name), np.random.default_rng(seed)
    keys = [s.key for s in task.streams if s.key != "speaker_prompt"]
    lengths = {key: rng.integers(1, 9, examples) for key in keys}
    index = make_index(lengths, [f"speaker {n}" for n in rng.integers(0, speakers, examples)])
    return task, index, MemoryRecords(task, lengths)


def make_rows(name, examples, seed=0):
    task, index, records = corpus(name, examples, seed)
    return Rows(index, records, task, LIMITS, seed, VOCABULARY, TEXT_WIDTH)


@given(size=st.integers(1, 3000), key=st.integers(0, 2**62))
@settings(max_examples=40, deadline=None)
def test_the_shuffle_is_a_permutation(size, key):
    assert sorted(permute(np.arange(size), size, key)) == list(range(size))


@pytest.mark.parametrize("name", ["tts", "enhancement", "text_to_music"])
def test_an_epoch_holds_every_example_once_within_the_limits(name, monkeypatch):
    monkeypatch.setattr(plan_module, "BLOCK", 101)
    task, index, _ = corpus(name, 499)
    plan = Plan(index, task, LIMITS, seed=3)
    for epoch in (0, 1):
        first = sum(plan.epoch_rows(e) for e in range(epoch))
        rows = [plan.row(first + n) for n in range(plan.epoch_rows(epoch))]
        records = [member.record for row in rows for member in row]
        assert sorted(records) == list(range(499))
        for row in rows:
            lengths = [{key: int(column[m.record]) for key, column in index.lengths.items()}
                       | {"speaker_prompt": min(5, int(index.lengths["audio"][m.prompt]))} for m in row]  # fmt: skip
            assert sum(frame_count(task, one) for one in lengths) <= 61
            assert sum(target_count(task, one) for one in lengths) <= 37
            assert sum(one.get("caption", 0) for one in lengths) <= 11
    orders = [[member.record for n in range(20) for member in plan.row(first + n)] for first in (0, plan.epoch_rows(0))]
    assert orders[0] != orders[1]


def test_a_speaker_prompt_is_another_utterance_of_the_same_speaker():
    task, index, _ = corpus("tts", 499)
    plan = Plan(index, task, LIMITS, seed=3)
    members = [m for n in range(plan.epoch_rows(0) + plan.epoch_rows(1)) for m in plan.row(n)]
    assert all(m.prompt != m.record and index.speakers[m.prompt] == index.speakers[m.record] for m in members)
    prompts = {}
    for member in members:
        prompts.setdefault(member.record, set()).add(member.prompt)
    assert np.mean([len(drawn) == 2 for drawn in prompts.values()]) > 0.9


def test_the_plan_is_a_pure_function_of_index_seed_and_row():
    task, index, _ = corpus("tts", 499)
    one, other, third = Plan(index, task, LIMITS, 3), Plan(index, task, LIMITS, 3), Plan(index, task, LIMITS, 4)
    far = one.row(5 * one.epoch_rows(0))
    assert far == other.row(5 * one.epoch_rows(0))
    assert [one.row(n) for n in range(9)] == [other.row(n) for n in range(9)]
    assert [one.row(n) for n in range(9)] != [third.row(n) for n in range(9)]


def test_examples_that_can_never_be_placed_are_counted():
    task = get_task("tts")
    index = make_index({"phone": np.array([3, 3, 3, 90]), "audio": np.array([4, 4, 4, 4])}, ["a", "a", "b", "a"])
    plan = Plan(index, task, LIMITS, 0)
    assert plan.skipped == {"longer than a row": 1, "speaker with one utterance": 1}
    with pytest.raises(ValueError, match="none of 1 examples fits"):
        Plan(make_index({"phone": np.array([90]), "audio": np.array([4])}, ["a"]), task, LIMITS, 0)


@pytest.mark.parametrize("hosts", [2, 4])
def test_the_examples_of_a_step_are_the_same_on_any_number_of_hosts(hosts):
    def dataset(host, hosts):
        sources = [make_rows("tts", 211), make_rows("enhancement", 97), make_rows("text_to_music", 53)]
        return make_batches(sources, [0.5, 0.3, 0.2], 4, host, hosts)

    whole: Any = dataset(0, 1)
    parts: list[Any] = [dataset(host, hosts) for host in range(hosts)]
    for step in (0, 1, 2, 31, 1009):
        wanted = sorted(row.tobytes() for row in whole[step].tokens)
        got = sorted(row.tobytes() for part in parts for row in part[step].tokens)
        assert wanted == got


def test_a_streams_state_is_one_integer():
    dataset = make_batches([make_rows("tts", 211), make_rows("enhancement", 97)], [0.5, 0.5], 3, 0, 1)
    stream = BatchStream(dataset)
    batches = [next(stream) for _ in range(7)]
    assert stream.step == 7
    again = BatchStream(dataset, 5)
    np.testing.assert_array_equal(next(again).tokens, batches[5].tokens)
    assert again.step == 6


def test_an_index_comes_back_from_disk_as_it_was(tmp_path):
    _, index, _ = corpus("tts", 101)
    write_index(tmp_path, index)
    back = read_index(tmp_path)
    for name in ("speakers", "by_speaker", "place", "starts"):
        np.testing.assert_array_equal(getattr(back, name), getattr(index, name))
    assert set(back.lengths) == {"phone", "audio"}
    with pytest.raises(ValueError, match="no index"):
        read_index(tmp_path / "nothing")
