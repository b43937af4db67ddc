"""Laws of files that appear whole or not at all, and of the clock that counts frames."""

import hashlib
import json
import math
import sys

import pytest

from uniaudio_jax.clock import FrameClock
from uniaudio_jax.files import atomic_write, file_sha256, read_json, read_text, write_json
from uniaudio_jax.packages import load_package


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


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "got text that is not JSON"),
        (b'{"a": 3', "got text that is not JSON"),
        (b'{"a": "\xff"}', "got text that is not JSON ('utf-8' codec can't decode byte 0xff"),
        (b"[" * 100_003, "got text that is not JSON"),
        (b"[3]", "got a JSON list"),
        (b'{"b": 3}', "got JSON without a"),
    ],
)
def test_broken_json_is_told_with_its_file_and_the_remedy(content, told, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_json(path, "a passport; copy it again", keys=("a",))
    assert str(error.value).startswith(f"{path}: {told}")
    assert str(error.value).endswith(", wanted a passport; copy it again")


def test_whole_json_is_read_in_any_encoding_of_unicode(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_text('{"a": "ü"}', encoding=encoding)
        assert read_json(tmp_path / "a.json", "an object", keys=("a",)) == {"a": "ü"}


def test_a_missing_file_and_bytes_that_are_no_text_are_told_with_the_file(tmp_path):
    with pytest.raises(ValueError, match="a.json: got no file, wanted a passport"):
        read_json(tmp_path / "a.json", "a passport")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="a.txt: got bytes that are not UTF-8 .*, wanted one word a line"):
        read_text(tmp_path / "a.txt", "one word a line")


def test_a_package_that_is_missing_or_does_not_load_is_told_with_its_name_and_the_command(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_library.py").write_text("raise OSError('libsound.so.7: cannot open shared object file')")
    (tmp_path / "in_need.py").write_text("import nothing_of_the_kind")
    for name, told in {
        "nothing_of_the_kind": "songs: got no package nothing_of_the_kind, wanted it; run `pip install it`",
        "broken_library": r"broken_library is installed, but importing it fails \(OSError: libsound.so.7",
        "in_need": r"in_need is installed, but importing it fails \(ModuleNotFoundError: No module named 'nothing_of",
    }.items():
        with pytest.raises(ValueError, match=told):
            load_package(name, "songs", "pip install it")
        assert name not in sys.modules
