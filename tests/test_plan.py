"""Laws of the packing plan: pure, complete, within its limits, and the same on any number of hosts."""

import threading
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import plan as plan_module
from data_pipelines.batches import READERS, BatchStream, Rows, Source, make_batches
from data_pipelines.plan import Examples, Limits, Plan, one_epoch, permute, splitmix64
from data_pipelines.store import group_speakers
from data_pipelines.views import Index
from tests.tiny import TEXT_WIDTH, VOCABULARY, random_stream
from uniaudio_jax.sequence import Batch, frame_count, from_frames, target_count
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


def make_examples(name, examples, seed=0, dropout=0.0):
    task, index, _ = corpus(name, examples, seed)
    return Examples(index, task, LIMITS, seed, dropout)


def make_rows(sizes, shares, seed=0, dropout=0.0, **settings):
    sources = []
    for name, examples in sizes.items():
        task, index, records = corpus(name, examples, seed)
        sources.append(Source(Examples(index, task, LIMITS, seed, dropout), records))
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


def rows_of_lengths(frames: int, longest_first: bool, monkeypatch) -> tuple[int, float]:
    """Rows of 11 blocks of enhancement (half of its frames counted) and music (most are), and how full they are."""
    limits, rng = Limits(frames, 5 * frames // 7, 257, 151, "target"), np.random.default_rng(0)
    sources = []
    for name in ("enhancement", "text_to_music"):
        task = get_task(name)
        lengths = {stream.key: rng.integers(101, 251, 4999) for stream in task.columns}
        lengths = {key: column // 11 if key == "caption" else column for key, column in lengths.items()}
        if name == "enhancement":
            lengths = dict.fromkeys(lengths, lengths["audio"])
        sources.append(Examples(index_of(lengths, np.zeros(4999, int)), task, limits, 3))
    with monkeypatch.context() as patch:
        if longest_first:
            orders = plan_module.packing_orders
            patch.setattr(plan_module, "packing_orders", lambda shares: orders(shares)[:1])
        plan = Plan(sources, [1.0, 1.0], limits, 3)
        return sum(len(plan._packed(block)) for block in range(11)), plan.fill(11)


def test_kinds_that_fill_different_limits_share_rows_and_leave_less_room(monkeypatch):
    """In rows of many examples the order that merges both kinds needs fewer; no rows need more than by length alone."""
    (rows, full), (of_longest, _) = (rows_of_lengths(2053, first, monkeypatch) for first in (False, True))
    assert rows < 0.95 * of_longest and full > 0.96
    for frames in (307, 643, 1021):
        (rows, _), (of_longest, _) = (rows_of_lengths(frames, first, monkeypatch) for first in (False, True))
        assert rows <= of_longest


def test_a_speaker_prompt_is_another_utterance_of_the_same_speaker():
    examples = make_examples("tts", 499)
    records, prompts, *_ = examples.take(0, 2 * 499)
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


@pytest.mark.parametrize(("rows", "hosts", "steps"), [(4, 2, (0, 1, 2, 31, 1009)), (4, 4, (0, 31)), (128, 64, (3,))])
def test_the_slices_of_all_hosts_are_together_the_batch_of_one(rows, hosts, steps):
    whole = make_batches(make_rows(MIXTURE, SHARES), rows, 0, 1)
    parts = [make_batches(make_rows(MIXTURE, SHARES), rows, host, hosts) for host in range(hosts)]
    for step in steps:
        wanted = whole[step]
        for field in Batch._fields:
            got = np.stack([getattr(part[step], field) for part in parts], axis=1)
            np.testing.assert_array_equal(got.reshape(getattr(wanted, field).shape), getattr(wanted, field))


def test_a_streams_state_is_one_integer():
    batches = make_batches(make_rows(MIXTURE, SHARES), 3, 0, 1)
    with BatchStream(batches) as stream, BatchStream(batches, 5) as again:
        seen = [next(stream) for _ in range(7)]
        assert stream.step == 7
        for number in (5, 6):
            np.testing.assert_array_equal(next(again).tokens, seen[number].tokens)
        assert again.step == 7
        for number, batch in enumerate(seen):
            np.testing.assert_array_equal(batch.tokens, batches[number].tokens)


class CountedRows:
    """Rows by number that are counted as they are made; some fail."""

    def __init__(self, bad=None):
        self.made, self.bad, self.rows = [], bad, make_rows(MIXTURE, SHARES)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        self.made.append(number)
        if number == self.bad:
            raise ValueError(f"row {number} cannot be read")
        return self.rows[number]


def wait_for(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def test_a_stream_makes_one_batch_and_some_rows_ahead_and_no_more():
    rows = CountedRows()
    with BatchStream(make_batches(cast(Any, rows), 6, 1, 2)) as stream:
        for step in (1, 2):
            next(stream)
            ahead = range(1, 2 * (3 * step + 3 + READERS), 2)
            assert wait_for(lambda ahead=ahead: len(rows.made) >= len(ahead))
            time.sleep(0.05)
            assert sorted(rows.made) == list(ahead)


def test_a_row_that_fails_ahead_is_raised_where_its_batch_is_asked_for():
    rows = CountedRows(bad=7)
    with BatchStream(make_batches(cast(Any, rows), 3, 0, 1)) as stream:
        next(stream)
        assert wait_for(lambda: 7 in rows.made)
        next(stream)
        assert stream.step == 2
        with pytest.raises(ValueError, match="row 7 cannot be read"):
            next(stream)


def test_a_closed_stream_leaves_no_thread_behind():
    before = set(threading.enumerate())
    with BatchStream(make_batches(make_rows(MIXTURE, SHARES), 3, 0, 1)) as stream:
        next(stream)
        assert set(threading.enumerate()) - before
    assert wait_for(lambda: not set(threading.enumerate()) - before)


def test_a_stream_goes_on_from_the_anchor_of_its_step_though_the_plan_is_ahead(monkeypatch):
    monkeypatch.setattr(plan_module, "BLOCK", 29)
    rows, again = make_rows(MIXTURE, SHARES), make_rows(MIXTURE, SHARES)
    with BatchStream(make_batches(rows, 3, 0, 1)) as stream:
        for _ in range(11):
            next(stream)
        assert wait_for(lambda: len(rows.plan.starts) > 1 and rows.plan.starts[-1] > 3 * 11 + READERS)
        anchor = rows.plan.anchor_of(3 * 11)
        again.plan.start_at(anchor)
        assert anchor["block"] > 0 and again.plan.starts[0] <= 3 * 11
        with BatchStream(make_batches(again, 3, 0, 1), 11) as resumed:
            for _ in range(3):
                np.testing.assert_array_equal(next(resumed).tokens, next(stream).tokens)


def test_the_order_of_the_examples_is_that_of_earlier_checkpoints():
    assert splitmix64(np.array([0, 1, 2**62]), 7).tolist() == [
        16184226688143867045,
        13398859234004329862,
        8877080465617208531,
    ]
    assert permute(np.arange(11), 11, 3).tolist() == [2, 4, 0, 1, 3, 5, 7, 9, 8, 10, 6]
    assert permute(np.array([0, 1, 9_999_999]), 10_000_000, 3).tolist() == [4874606, 7989304, 8107770]
    rows = make_rows(MIXTURE, SHARES).plan
    assert rows.row(0) == [(0, 163, 162, 0), (2, 22, -1, 0), (2, 26, -1, 0)]
    assert rows.row(1009) == [(0, 6, 26, 0), (1, 65, -1, 0), (1, 93, -1, 0), (1, 93, -1, 0)]


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


# dropped conditions


def test_about_the_stated_share_of_the_examples_is_dropped_and_others_in_each_epoch():
    examples = make_examples("tts", 499, dropout=0.3)
    chosen = examples.take(0, 11 * 499)
    assert abs(chosen.dropped.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / (11 * 499))
    times = np.bincount(chosen.records, chosen.dropped, 499)
    assert times.std() == pytest.approx(np.sqrt(11 * 0.3 * 0.7), rel=0.15)  # as independent draws of each epoch have
    assert np.abs(np.corrcoef(chosen.dropped, chosen.prompts)[0, 1]) < 4 / np.sqrt(11 * 499)
    whole = make_examples("tts", 499).take(0, 11 * 499)
    for column in ("records", "prompts"):
        np.testing.assert_array_equal(getattr(chosen, column), getattr(whole, column))
    assert not whole.dropped.any()


def test_a_task_without_conditions_has_none_to_drop():
    assert not make_examples("lm", 499, dropout=0.9).take(0, 499).dropped.any()


def test_a_dropped_example_keeps_its_target_and_the_marks_of_its_conditions():
    rows = make_rows(MIXTURE, SHARES, dropout=0.5)
    for member in (member for number in range(7) for member in rows.plan.row(number)):
        bare, whole = (rows.example(member._replace(dropped=dropped)) for dropped in (1, 0))
        (task, left), (same, streams) = (from_frames(frames, VOCABULARY) for frames in (bare, whole))
        assert task is same and {key: len(left[key]) for key in left} == {
            key: len(items) if key == task.target.key else 0 for key, items in streams.items()
        }
        np.testing.assert_array_equal(bare.tokens[bare.target], whole.tokens[whole.target])
        assert len(bare.tokens) == frame_count(task, {key: len(items) for key, items in left.items()})
        assert len(bare.text_vectors) == 0 and (bare.text_slots == -1).all()


def test_a_row_counts_the_target_of_a_dropped_example_and_hears_it_alone():
    rows = make_rows(MIXTURE, SHARES, dropout=0.5)
    for number in range(23):
        row, members = rows[number], rows.plan.row(number)
        targets = [rows.sources[m.source].records.tokens(m.record, "audio") for m in members]
        counted = np.bincount(row.segments[row.loss_frames[row.loss_weights > 0]], minlength=len(members) + 1)
        assert counted[1:].tolist() == [len(target) + 3 for target in targets]
        if all(member.dropped for member in members):
            assert row.audio_frames.sum() == sum(map(len, targets))


def test_a_plan_counts_dropped_examples_as_short_as_they_are_and_skips_no_others():
    limits = Limits(frames=17, loss_frames=17, text_frames=5, prompt_frames=5, loss_on="target")
    task, index, _ = corpus("enhancement", 499)
    whole, half = (Examples(index, task, limits, 0, dropout) for dropout in (0.0, 0.5))
    assert half.skipped == whole.skipped and whole.skipped["longer than a row"] > 0
    np.testing.assert_array_equal(half.take(0, 998).records, whole.take(0, 998).records)
    assert half.mean_frames < whole.mean_frames
    assert Plan([make_examples("tts", 499, dropout=0.5)], [1.0], LIMITS, 0).fill(3) > 0.9


def test_the_same_examples_are_dropped_on_any_number_of_hosts_and_after_a_resume_at_any_step():
    def batches(host, hosts):
        return make_batches(make_rows(MIXTURE, SHARES, dropout=0.3), 6, host, hosts)

    wanted, parts = batches(0, 1), [batches(host, 2) for host in range(2)]
    dropped = [
        member.dropped
        for number in range(6 * 11)
        for member in make_rows(MIXTURE, SHARES, dropout=0.3).plan.row(number)
    ]
    assert 0 < sum(dropped) < len(dropped)
    for step in range(11):
        got = np.stack([part[step].tokens for part in parts], axis=1)
        np.testing.assert_array_equal(got.reshape(wanted[step].tokens.shape), wanted[step].tokens)
        with BatchStream(batches(0, 1), step) as resumed:
            np.testing.assert_array_equal(next(resumed).tokens, wanted[step].tokens)
