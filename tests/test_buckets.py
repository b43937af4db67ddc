"""Laws of places in buckets, on a bucket in memory: files appear whole, logs hold each step once, copies are shared."""

import json
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import fsspec  # noqa: F401  (registers its file systems)
import numpy as np
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from data_pipelines.views import open_views
from tests.small_run import write_codec, write_tokens
from uniaudio_jax import copies, paths
from uniaudio_jax.cli import main_guard, parse_with_config
from uniaudio_jax.copies import Spool, local_copy
from uniaudio_jax.files import atomic_write, check_place, read_json, write_json
from uniaudio_jax.locks import FILE, hold
from uniaudio_jax.paths import file_sizes, to_place
from uniaudio_jax.sinks import Log
from uniaudio_jax.sinks.jsonl import read_metrics
from uniaudio_jax.train import TrainOptions


class InMemory(MemoryFileSystem):
    """`memory://` under the addresses gs://."""

    protocol = ("gs", "gcs")
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs:/"))


@pytest.fixture
def bucket(monkeypatch, tmp_path) -> Iterator[epath.Path]:
    """gs://bucket, which is empty and in memory."""
    monkeypatch.setenv("UNIAUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "gcsfs", types.ModuleType("gcsfs"))
    for protocol in InMemory.protocol:
        monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, protocol, InMemory)
    monkeypatch.setattr(InMemory, "store", {})
    monkeypatch.setattr(InMemory, "pseudo_dirs", ["", "/bucket"])
    backend.fsspec_backend._get_filesystem.cache_clear()
    paths._unreachable.cache_clear()
    yield epath.Path("gs://bucket")
    backend.fsspec_backend._get_filesystem.cache_clear()
    paths._unreachable.cache_clear()


def test_a_text_is_a_local_path_unless_it_names_a_bucket():
    for text in ("runs/mine", "/runs/mine", "hdfs://host/x", "gs:/bucket/x", "C:/x"):
        assert to_place(text) == Path(text) and isinstance(to_place(text), Path)
    for text in ("gs://bucket/runs/mine", "s3://bucket/x"):
        assert not isinstance(to_place(text), Path) and str(to_place(text)) == text
        assert str(to_place(text).parent / "y") == text.rpartition("/")[0] + "/y"


def test_a_file_appears_in_a_bucket_when_it_is_whole(bucket):
    with pytest.raises(KeyError), atomic_write(bucket / "a" / "b.txt") as partial:
        partial.write_text("half")
        raise KeyError
    assert not (bucket / "a").exists()
    write_json(bucket / "a" / "b.json", {"loss": float("nan")})
    assert read_json(bucket / "a" / "b.json", "an object") == {"loss": None}
    assert file_sizes(bucket / "a") == {"b.json": len('{\n "loss": null\n}\n')}


def log_steps(run, last_step, steps, close=True):
    log = Log(["jsonl", "tensorboard"], run, last_step)
    for step in steps:
        log.scalars(step, {"loss": step / 7})
        if step % 5 == 0:
            log.upload()
    if close:
        log.close()
    for sink in log.sinks:  # as the kernel does for a process that was killed
        sink.close()


def steps_in(run) -> list[int]:
    return [line["step"] for line in read_metrics(run / "metrics.jsonl")]


def test_a_resumed_log_in_a_bucket_holds_each_step_once_wherever_it_was_cut_off(bucket):
    run = bucket / "runs" / "mine"
    log_steps(run, 0, range(1, 14), close=False)
    assert steps_in(run) == list(range(1, 11))  # what came after the last upload, and its checkpoint, is repeated
    shutil.rmtree(copies.cache_folder())  # another host goes on
    log_steps(run, 5, range(6, 18))
    assert steps_in(run) == list(range(1, 18))
    assert list(run.glob("tensorboard/events.*"))


def test_a_fresh_run_in_a_bucket_starts_an_empty_log(bucket):
    log_steps(bucket / "run", 0, range(1, 14))
    log_steps(bucket / "run", 0, range(1, 3))
    assert steps_in(bucket / "run") == [1, 2]


def test_a_local_run_logs_into_its_own_folder(tmp_path):
    assert Spool(tmp_path).folder == tmp_path


def test_a_note_of_another_process_in_a_bucket_is_told_and_the_own_one_removed(bucket, capsys):
    (bucket / "run" / FILE).write_text("process 7 on elsewhere\n")
    with hold(bucket / "run", "wait"):
        assert "a bucket knows no locks; it was last used by process 7 on elsewhere" in capsys.readouterr().err
        assert (bucket / "run" / FILE).read_text().startswith("process ")
    with hold(bucket / "run", "wait"):
        assert not capsys.readouterr().err
    assert not (bucket / "run" / FILE).exists()


def test_tokens_in_a_bucket_are_those_on_disk_and_are_copied_once(bucket, tmp_path, monkeypatch):
    write_tokens(tmp_path / "tokens", ("tts",), write_codec(tmp_path / "codec"))
    for path in (tmp_path / "tokens").rglob("*"):
        if path.is_file():
            (bucket / "tokens" / path.relative_to(tmp_path / "tokens").as_posix()).write_bytes(path.read_bytes())
    (here,) = open_views(tmp_path / "tokens", ["tts"], "heldout")["tts"]
    (there,) = open_views(bucket / "tokens", ["tts"], "heldout")["tts"]
    assert there.passport == here.passport and len(there) == 7
    np.testing.assert_array_equal(there.tokens(5, "audio"), here.tokens(5, "audio"))
    copied = [path for path in copies.cache_folder().rglob("*.array_record*")]
    assert len(copied) == 2 and all("-heldout." in path.name for path in copied)
    monkeypatch.setattr(copies, "download", lambda *_: pytest.fail("copied again"))
    open_views(bucket / "tokens", ["tts"], "heldout")


def test_a_copy_is_renewed_where_it_is_torn_or_the_folder_has_changed(bucket):
    for text in ("seventeen letters", "SEVENTEEN LETTERS"):
        (bucket / "a.txt").write_text(text)
        copy = local_copy(bucket, {"a.txt": 17}, text)
        assert (copy / "a.txt").read_text() == text
        (copy / "a.txt").write_text("torn")
        assert (local_copy(bucket, {"a.txt": 17}, text) / "a.txt").read_text() == text
    with pytest.raises(OSError, match="a.txt: got 17 bytes, wanted 13"):
        local_copy(bucket, {"a.txt": 13}, "")


def test_a_copy_that_has_no_room_is_refused(bucket):
    (bucket / "a.txt").write_text("text")
    with pytest.raises(OSError, match="1000000000000 MB and .* MB are free; make room there, or .* UNIAUDIO_CACHE"):
        local_copy(bucket, {"a.txt": 10**18}, "")


def test_a_bucket_that_cannot_be_reached_is_one_line(bucket, monkeypatch):
    check_place("--out", bucket / "run")
    with pytest.raises(ValueError, match=r"--out: got gs://other/run, but its bucket cannot be reached \(there is no"):
        check_place("--out", epath.Path("gs://other/run"))

    def refuse(*_, **__):
        raise RuntimeError("no credentials\nwere found")

    paths._unreachable.cache_clear()
    monkeypatch.setattr(InMemory, "exists", refuse)
    with pytest.raises(ValueError, match=r"cannot be reached \(no credentials\); check"):
        check_place("root", "gs://bucket/tokens")
    monkeypatch.setattr(InMemory, "put_file", refuse)
    with pytest.raises(OSError, match="gs://bucket/a.json: writing it failed: RuntimeError: no credentials; "):
        write_json(bucket / "a.json", {})


@pytest.mark.parametrize(("scheme", "package"), paths.PACKAGES.items())
def test_a_bucket_without_its_package_says_what_to_install(scheme, package, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    words = ["train", "configs/quickstart.py", "--out", f"{scheme}://bucket/run"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end, main_guard():
        parse_with_config(TrainOptions, "run", "base.py", None)
    wanted = f"error: out: {scheme}://: got no package {package}, wanted it; run `bash launch/install.sh buckets`\n"
    assert end.value.code == 2 and capsys.readouterr().err == wanted


def test_an_address_of_another_kind_is_refused_with_the_kinds_that_are_known():
    with pytest.raises(ValueError, match="hdfs://h/x, .* wanted a path on this machine, gs://BUCKET/… or s3://"):
        check_place("root", "hdfs://h/x")
    assert json.dumps(str(to_place("gs://b/x"))) == '"gs://b/x"'
