"""Laws of the sequence: every task goes to frames and back, and rows hold their examples whole."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import TEXT_WIDTH, VOCABULARY, random_example, random_stream
from uniaudio_jax.sequence import MASK_CODE, frame_count, from_frames, pack, target_count, to_frames, to_prefix
from uniaudio_jax.tasks import KINDS, TASKS, get_task
from uniaudio_jax.vocab import PUBLIC_TOKENS, SPECIAL_IDS, SPECIAL_SLOTS, Vocabulary, grows_from

FORMAT = Path(__file__).parent / "golden" / "uniaudio_v1_format.json"


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(TASKS)), seed=st.integers(0, 2**32 - 1), longest=st.integers(0, 13))
def test_every_task_goes_to_frames_and_back(name, seed, longest):
    task, rng = get_task(name), np.random.default_rng(seed)
    streams = {s.key: random_stream(s, int(rng.integers(0, longest + 1)), rng) for s in task.streams}
    frames = to_frames(task, streams, VOCABULARY, TEXT_WIDTH)
    lengths = {key: len(value) for key, value in streams.items()}
    assert len(frames.tokens) == frame_count(task, lengths)
    assert frames.target.sum() == target_count(task, lengths)
    back, content = from_frames(frames, VOCABULARY)
    assert back is task and set(content) == set(streams)
    for key, value in streams.items():
        np.testing.assert_array_equal(content[key], value)


@given(name=st.sampled_from(sorted(TASKS)), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_prefix_is_the_start_of_the_whole_and_ends_with_the_targets_start(name, seed):
    task, rng = get_task(name), np.random.default_rng(seed)
    streams = {s.key: random_stream(s, int(rng.integers(1, 9)), rng) for s in task.streams}
    whole, prefix = (make(task, streams, VOCABULARY, TEXT_WIDTH) for make in (to_frames, to_prefix))
    np.testing.assert_array_equal(prefix.tokens, whole.tokens[: len(prefix.tokens)])
    assert (prefix.tokens[-1] == SPECIAL_IDS[f"<{task.target.kind}_start>"]).all()
    assert prefix.target.sum() == 1 and whole.target[len(prefix.tokens) - 1]


def test_masked_codes_of_a_speech_edit_survive():
    task, rng = get_task("speech_edit"), np.random.default_rng(0)
    streams = {s.key: random_stream(s, 5, rng) for s in task.streams}
    streams["masked_audio"][2:4] = MASK_CODE
    frames = to_frames(task, streams, VOCABULARY, TEXT_WIDTH)
    assert (frames.tokens == VOCABULARY.audio_mask).sum() == 6
    np.testing.assert_array_equal(from_frames(frames, VOCABULARY)[1]["masked_audio"], streams["masked_audio"])


def test_the_vocabulary_of_three_codebooks_is_the_papers():
    vocabulary = Vocabulary(codebooks=3)
    assert vocabulary.size == 4212
    assert vocabulary.audio_mask == 128 + 3 * 1024


def test_tokens_and_formats_are_those_of_the_public_checkpoints():
    public = json.loads(FORMAT.read_text())
    assert list(PUBLIC_TOKENS) == public["special_tokens_in_order"]
    assert SPECIAL_SLOTS == public["special_tokens_reserved"]
    sizes = {name: len(span) for name, span in Vocabulary(3).ranges.items()}
    assert sizes == {
        "audio": 3073,
        "phone": public["phone_entries"],
        "semantic": 500,
        "sing_phone": public["sing_phone_entries"],
        "sing_midi": public["sing_midi_entries"],
    }
    for task in (task for task in TASKS.values() if task.token in PUBLIC_TOKENS):
        row = public["task_formats"][task.token[1 : -len("_task>")]]
        assert [KINDS[stream.kind].name for stream in task.streams] == row["types"]


def test_a_task_whose_range_is_not_in_the_vocabulary_is_refused_with_the_remedy():
    task, rng = get_task("asr"), np.random.default_rng(0)
    streams = {s.key: random_stream(s, 3, rng) for s in task.streams}
    with pytest.raises(ValueError, match="no range 'text'.*model.appended text SIZE"):
        to_frames(task, streams, Vocabulary(codebooks=3, entries=11), TEXT_WIDTH)


def test_a_layout_may_grow_at_its_end_and_nowhere_else():
    public, grown = Vocabulary(3).layout(), Vocabulary(3, appended={"text": 23}).layout()
    assert grows_from(public, public) and grows_from(grown, public) and not grows_from(public, grown)
    assert not grows_from(Vocabulary(5).layout(), public)
    assert not grows_from({**public, "special": public["special"][1:]}, public)
    assert grows_from({**public, "special": [*public["special"], "<new_task>"]}, public)


def test_a_row_that_is_too_full_is_refused():
    task, rng = get_task("tts"), np.random.default_rng(0)
    examples = [random_example(task, rng) for _ in range(3)]
    used = sum(len(example.tokens) for example in examples)
    assert (pack(examples, used, used, 1, "all").loss_weights == 1).all()
    with pytest.raises(ValueError, match="a row of 3 examples of tts"):
        pack(examples, used - 1, used, 1, "all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phone": None}, "missing"),
        ({"phone": np.array([305])}, "values 305 to 305"),
        ({"audio": np.zeros((3, 2), np.int32)}, "shape"),
        ({"speaker_prompt": np.full((3, 3), 11)}, "values 11 to 11"),
    ],
)
def test_broken_streams_are_refused_with_their_place(change, message):
    task, rng = get_task("tts"), np.random.default_rng(0)
    streams = {s.key: random_stream(s, 3, rng) for s in task.streams} | change
    streams = {key: value for key, value in streams.items() if value is not None}
    with pytest.raises(ValueError, match=f"task tts, stream .*{message}"):
        to_frames(task, streams, VOCABULARY, TEXT_WIDTH)


def test_an_unknown_task_is_told_its_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'enhancement'"):
        get_task("enhancment")
