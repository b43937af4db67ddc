"""Laws of files that appear whole or not at all, and of the clock that counts frames."""

import hashlib
import json
import math
import sys
import unicodedata
from pathlib import Path

import pytest

from uniaudio_jax.clock import FrameClock
from uniaudio_jax.files import (
    MOST_NAME_BYTES,
    atomic_write,
    check_folder,
    check_local,
    check_name,
    file_sha256,
    name_key,
    output_paths,
    read_json,
    read_text,
    safe_name,
    write_json,
)
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


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("LJ001-0001", "LJ001-0001"),
        ("/data/a b/u0.wav", "data_a_b_u0_wav"),
        ("../../etc/passwd", "etc_passwd"),
        ("..", "unnamed"),
        ("", "unnamed"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("C:\\nul\x00", "C__nul"),
        ("NUL", "NUL_"),
        ("com7", "com7_"),
        ("好/\ud800", "好"),
        ("हिन्दी", "हिन्दी"),
        (unicodedata.normalize("NFD", "né"), "né"),
        ("a／b", "a_b"),
    ],
)
def test_any_text_becomes_a_plain_and_readable_name(text, name):
    assert safe_name(text) == name and safe_name(name) == name


@pytest.mark.parametrize("text", ["x" * 307, "音" * 307, "é" * 307, "/" * 307])
def test_a_name_is_short_enough_for_every_file_system(text, tmp_path):
    name = safe_name(text)
    assert 1 <= len(name.encode()) <= MOST_NAME_BYTES and name.strip("x音éunamed") == ""
    with atomic_write(tmp_path / f"{name}.reverberant_audio.wav") as partial:
        assert len(partial.name.encode()) <= 143  # what an encrypted home folder allows
        partial.touch()


def test_names_that_one_file_system_takes_for_one_get_numbers():
    taken: set[str] = set()
    for text in ("clip", "Clip", "CLIP", "straße", "STRASSE", "a/b", "a_b"):
        taken.add(name_key(safe_name(text, taken)))
    assert taken == {"clip", "clip-2", "clip-3", "strasse", "strasse-2", "a_b", "a_b-2"}
    assert name_key("Clip.reference.wav") == "clip"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", ".tokens", "a\\b", "a\nb", "/x"])
def test_a_name_that_is_no_folder_directly_below_is_refused(name):
    with pytest.raises(ValueError, match="--name: got .* wanted the plain name of a folder"):
        check_name("--name", name)
    check_name("--name", "LibriTTS dev 1.0")


@pytest.mark.parametrize(
    "place",
    ["gs://b/x", "s3://b", "hdfs://h/x", "https://h/x", "folder:gs://b/x", Path("gs://b/x"), Path("http://h/x")],
)
def test_an_address_of_remote_storage_is_refused(place):
    with pytest.raises(ValueError, match=r"--out: got .*://.* wanted a path on this machine"):
        check_local("--out", place)


def test_a_path_on_this_machine_is_none():
    for place in (
        "/data/x",
        "folder:/data/x",
        "kaldi:x/y",
        "tiny_16k",
        "10.0.0.1:8476",
        Path("/data/a:b"),
        Path("C:/x"),
    ):
        check_local("--out", place)


def test_a_folder_for_results_is_one_that_is_there_or_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    check_folder("--out", tmp_path / "new" / "newer")
    check_folder("--out", tmp_path)
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"--out .*file is a file, wanted a folder"):
            check_folder("--out", place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_may_not_be_written_into_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ValueError, match="may not be written into"):
        check_folder("--out", tmp_path / "new")


def test_two_sources_are_never_written_into_one_file():
    assert output_paths([Path("x/a.wav"), Path("b.c.wav")], Path("out"), ".npz") == [
        Path("out/a.npz"),
        Path("out/b.c.npz"),
    ]
    for second in ("y/a.flac", "A.wav"):
        with pytest.raises(ValueError, match="several files of this name, x/a.wav and"):
            output_paths([Path("x/a.wav"), Path(second)], Path("out"), ".npz")
