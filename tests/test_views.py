"""Laws of views of many records: columns are joined by clip, opened once, and read however many shards they have."""

import os
import resource

import numpy as np
import pytest

from data_pipelines.store import group_speakers
from data_pipelines.views import open_views
from tests.tiny import MODEL
from uniaudio_jax.bench import records
from uniaudio_jax.codec.codec import load_codec

TASKS = ["tts", "text_to_music"]
CLIPS, CLIPS_PER_SHARD = 1321, 43


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """Columns of many shards, of which that of phones lacks a clip."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "RECORDS_PER_SHARD", CLIPS_PER_SHARD)
        codec = load_codec("tiny_16k").passport()
        return records.write_records(tmp_path_factory.mktemp("tokens"), CLIPS, MODEL, codec)


def test_a_view_of_columns_that_hold_different_clips_joins_them_by_clip(tokens):
    (view,) = open_views(tokens, TASKS, "train")["tts"]
    clips = np.delete(np.arange(CLIPS), records.DISTINCT)
    assert len(view) == len(clips) == CLIPS - 1
    audio, phone = view.columns["audio"], view.columns["phone"]
    np.testing.assert_array_equal(view.index.lengths["audio"], audio.lengths[clips])
    np.testing.assert_array_equal(view.index.lengths["phone"], phone.lengths[:-1])
    for number in (0, 42, 43, 1008, 1009, 1319):
        assert audio.clips[clips[number]] == phone.clips[number]
        for key in ("audio", "phone"):
            assert len(view.tokens(number, key)) == view.index.lengths[key][number]
        np.testing.assert_array_equal(view.tokens(number, "audio"), audio.record(int(clips[number]))["tokens"])


def test_a_column_of_several_tasks_is_opened_once(tokens):
    views = open_views(tokens, TASKS, "train")
    (speech,), (music,) = views.values()
    assert speech.columns["audio"] is music.columns["audio"]
    assert speech.columns["audio"].shards == 31


def test_more_shards_are_read_than_the_soft_limit_of_open_files(tokens):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, limits[1]))
        (view,) = open_views(tokens, ["text_to_music"], "train")["text_to_music"]
        seen = {number: len(view.tokens(number, "audio")) for number in range(0, CLIPS, CLIPS_PER_SHARD)}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(seen) == 31 and all(view.index.lengths["audio"][number] == length for number, length in seen.items())


def test_more_shards_than_the_hard_limit_of_open_files_are_refused(tokens, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (97, 251))
    with pytest.raises(ValueError, match=r"got a limit of 251 open files .*, wanted 293 to read 93 shards; raise it"):
        open_views(tokens, TASKS, "train")


@pytest.mark.parametrize("count", [0, 1, 211])
def test_the_records_of_a_speaker_stand_together_in_their_order(count):
    names = np.random.default_rng(count).integers(0, 2**62, 13)[np.arange(count) % 13]
    speakers = group_speakers(names)
    assert speakers.by_speaker.tolist() == sorted(range(count), key=lambda record: (names[record], record))
    np.testing.assert_array_equal(speakers.by_speaker[speakers.position], np.arange(count))
    assert len(speakers.starts) == len(set(names.tolist())) + 1
    for record in range(count):
        first, end = speakers.starts[speakers.numbers[record] :][:2]
        assert set(names[speakers.by_speaker[first:end]].tolist()) == {int(names[record])}
