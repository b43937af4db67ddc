"""The reader of Lhotse's and NeMo's manifests."""

import gzip
import json

import numpy as np
import pytest
import soundfile

from data_pipelines.corpora.manifest import open_manifest
from tests.corpus_files import cut, lines, read_all, read_one, recording, refused, sound


def test_lhotse_cuts_are_cut_at_their_samples(tmp_path):
    sound(tmp_path / "one.wav", samples=16007, channels=2)
    both = soundfile.read(tmp_path / "one.wav")[0].astype(np.float32)
    resampled = recording("one.wav", transforms=[{"name": "Resample", "kwargs": {}}])
    rows = [cut(), cut(id="u2", channel=0, start=0.5, duration=0.125, supervisions=[], recording=resampled)]
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(fields) + "\n" for fields in rows)
    clips = read_all(open_manifest(tmp_path / "cuts.jsonl.gz"))
    np.testing.assert_array_equal(clips["u1"].audio, both[4000:8000, 1])
    np.testing.assert_array_equal(clips["u2"].audio, both[8000:10000, 0])
    assert (clips["u1"].text, clips["u1"].speaker, clips["u1"].language) == ("Hello.", "ivy", "en-us")
    assert clips["u2"].text is None and {clip.split for clip in clips.values()} == {"train", "heldout"}


@pytest.mark.parametrize("named", ["recordings.jsonl", "libri_recordings_dev.jsonl.gz"])
def test_lhotse_supervisions_are_cut_from_the_recordings_beside_them(tmp_path, named):
    made = sound(tmp_path / "one.wav", samples=16007)
    one_channel = [{"type": "file", "channels": [0], "source": str(tmp_path / "one.wav")}]
    spoken = {"id": "s1", "recording_id": "r1", "start": 0.5, "duration": 0.25, "channel": [0], "text": "Hi."}
    for name, fields in (
        (named, recording("", sources=one_channel)),
        (named.replace("recordings", "supervisions"), spoken),
    ):
        with (gzip.open if name.endswith("gz") else open)(tmp_path / name, "wt") as file:
            file.write(json.dumps(fields) + "\n")
    for place in (tmp_path, tmp_path / named):
        clip = read_all(open_manifest(place))["s1"]
        np.testing.assert_array_equal(clip.audio, made[8000:12000].astype(np.float32))
        assert clip.text == "Hi."


def test_nemo_lines_are_cut_at_their_samples(tmp_path):
    made = sound(tmp_path / "one.wav", samples=16007)
    path = lines(
        tmp_path / "nemo.json",
        {"audio_filepath": "one.wav", "duration": None, "text": "All.", "lang": "de"},
        {"audio_filepath": "one.wav", "offset": 0.25, "duration": 0.5, "text": "", "speaker": 7},
    )
    clips = read_all(open_manifest(path))
    whole, part = clips["one.wav"], clips["one.wav@0.25"]
    np.testing.assert_array_equal(whole.audio, made.astype(np.float32))
    np.testing.assert_array_equal(part.audio, made[4000:12000].astype(np.float32))
    assert (whole.text, whole.language, whole.speaker) == ("All.", "de", None)
    assert (part.text, part.language, part.speaker) == (None, None, "7")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (cut(type="MixedCut"), "got a MixedCut, wanted a MonoCut; save the audio first"),
        (cut(supervisions=[{}, {}]), "got a cut with 2 supervisions, wanted one; split it first"),
        (cut(supervisions="none"), "got supervisions = 'none', wanted a list"),
        (cut(recording=None), "got recording = None, wanted an object with sources"),
        (cut(recording=recording("x", transforms=[{"name": "Speed"}])), "with the transforms [{'name': 'Speed'}]"),
        (cut(recording=recording("x", sources=[{"type": "url", "channels": [1], "source": "x"}])), "type 'url'"),
        (cut(recording=recording("x", transforms=5)), "with the transforms 5, wanted none"),
        (cut(recording=recording("x", sources=[{"channels": None}])), "got the channels [None] of sources"),
        (cut(channel=[0, 1]), "got channel = [0, 1], wanted one channel"),
        (cut(start=-1), "got start = -1, wanted seconds from 0"),
        (cut(id=None), "got id = None, wanted a string"),
        (cut(id="u0"), "got id 'u0' a second time"),
        ({"id": "u1"}, "got the keys id, wanted also recording"),
        ("{", "got '{', wanted one JSON object"),
    ],
)
def test_a_bad_cut_is_refused_on_opening_with_its_number(tmp_path, bad, message):
    path = lines(tmp_path / "cuts.jsonl", cut(id="u0"), bad)
    with refused(message) as error:
        open_manifest(path)
    assert f"{path}:2: " in str(error.value)


def test_a_bad_line_of_nemo_or_of_supervisions_is_refused_on_opening_with_its_number(tmp_path):
    good = {"audio_filepath": "one.wav", "duration": 1.0}
    path = lines(tmp_path / "nemo.jsonl", good, {"audio_path": "one.wav"})
    with refused(f"{path}:2: got audio_filepath = None, wanted a string"):
        open_manifest(path)
    with refused(f"{lines(path, good, good)}:2: got id 'one.wav' a second time"):
        open_manifest(path)
    lines(tmp_path / "recordings.jsonl", recording("one.wav"))
    with refused("supervisions.jsonl: got no file"):
        open_manifest(tmp_path)
    path = lines(tmp_path / "supervisions.jsonl", {"id": "s1", "recording_id": "r9", "start": 0, "duration": 1})
    with refused(f"{path}:1: got the recording 'r9', wanted one of"):
        open_manifest(tmp_path)


def test_what_is_no_manifest_is_refused(tmp_path):
    with refused("got 0 files named as"):
        open_manifest(tmp_path)
    with refused("got a first line with the keys path, wanted a cut"):
        open_manifest(lines(tmp_path / "x.jsonl", {"path": "a.wav"}))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(cut()).encode())[:-9])
    with refused("cut.jsonl.gz: got a .gz file that breaks off"):
        open_manifest(tmp_path / "cut.jsonl.gz")


def test_a_manifest_part_beyond_the_end_is_refused_when_it_is_read(tmp_path):
    sound(tmp_path / "one.wav", samples=16007)
    path = lines(tmp_path / "nemo.jsonl", {"audio_filepath": "one.wav", "offset": 0.5, "duration": 1.25})
    with refused(f"{path}:1: {tmp_path / 'one.wav'}: got 1.00 s of audio, wanted 0.5 s to 1.75 s"):
        read_one(open_manifest(path))
