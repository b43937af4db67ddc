"""Laws of files that appear whole or not at all, and of the clock that counts frames."""

import hashlib
import json
import math

import pytest

from uniaudio_jax.clock import FrameClock
from uniaudio_jax.files import atomic_write, file_sha256, write_json


def test_a_written_file_appears_at_the_end_alone_in_its_folder(tmp_path):
    path = tmp_path / "new" / "a.bin"
    with atomic_write(path) as partial:
        partial.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole" and list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(path) as partial:
        partial.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_json_holds_null_for_what_is_no_number(tmp_path):
    values = {"loss": math.nan, "scores": [(0.5, 1), (-math.inf, 3)], "name": "tts"}
    write_json(tmp_path / "a.json", values)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "loss": None,
        "scores": [[0.5, 1], [None, 3]],
        "name": "tts",
    }


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"some bytes")
    assert file_sha256(tmp_path / "a.bin") == hashlib.sha256(b"some bytes").hexdigest()


def test_a_clock_counts_frames_both_ways():
    clock = FrameClock.from_passport({"sample_rate_hz": 24000, "hop_samples": 320, "codec": "any"})
    assert clock.frame_rate_hz == 75
    assert clock.frames(1.01) == 76 and clock.seconds(150) == 2 and clock.hours(270000) == 1
    assert [clock.frames_of_samples(samples) for samples in (1, 320, 321)] == [1, 1, 2]
