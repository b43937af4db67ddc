"""What every command shares: checked options, and how it ends."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_run import REPO, environment
from uniaudio_jax.cli import FREE_TEXT, checked, main_guard, parse, parse_with_config
from uniaudio_jax.train import TrainOptions

ADDRESS = "gs://bucket/x"
COMMANDS = [path for folder in ("uniaudio_jax", "data_pipelines") for path in (REPO / folder).rglob("*.py")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    codec: str = "tiny_16k"
    folders: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    out: Path
    text: str | None = None
    source: str = "unknown"
    inner: Inner = dataclasses.field(default_factory=Inner)


@pytest.mark.parametrize(
    "words", [["--out", ADDRESS], ["--inner.codec", ADDRESS], ["--inner.folders", "a", ADDRESS], ["--out", "file"]]
)
def test_a_place_that_cannot_be_used_ends_a_command_before_it_begins(words, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    monkeypatch.setattr(sys, "argv", ["command", "--out", "out", *words])
    with pytest.raises(SystemExit) as end, main_guard():
        parse(Options, None)
    assert end.value.code == 2 and capsys.readouterr().err.startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_address_may_stand_in_words(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["command", "--out", str(tmp_path), "--text", ADDRESS, "--source", ADDRESS])
    assert parse(Options, None).source == ADDRESS and {"text", "source"} <= FREE_TEXT


@pytest.mark.parametrize(
    "words", [["--codec", ADDRESS], ["--data.root", "hdfs://host/x"], ["--start-from", "hdfs://host/x"]]
)
def test_a_config_with_an_address_is_refused(words, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["train", str(REPO / "configs/quickstart.py"), "--out", str(tmp_path), *words])
    with pytest.raises(ValueError, match="an address of remote storage"):
        parse_with_config(TrainOptions, "run", "configs/base.py", None)


def test_every_command_checks_its_options():
    """`tyro.cli` and its like are called by cli.py alone, or their result is `checked` in the same line."""
    assert checked(Inner()) == Inner()
    lines = [line for path in COMMANDS if path.name != "cli.py" for line in path.read_text().splitlines()]
    assert [line for line in lines if "tyro." in line and "cli" in line and "checked(" not in line] == []


INTERRUPTED_IMPORT = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may ignore it

class Interrupting:
    def find_spec(name, path=None, target=None):
        if name == "numpy":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting)
"""


@pytest.mark.parametrize("command", ["uniaudio_jax.train", "uniaudio_jax.bench", "data_pipelines.builder", "mine.go"])
def test_ctrl_c_during_the_imports_of_a_command_of_ours_alone_is_one_line(command, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED_IMPORT)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import uniaudio_jax\n")
    (tmp_path / "mine" / "go.py").write_text("import numpy\n")
    path = os.pathsep.join([str(tmp_path), str(REPO)])
    words, variables = [sys.executable, "-m", command], environment() | {"PYTHONPATH": path}
    done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True)
    if command == "mine.go":
        assert done.returncode == -signal.SIGINT and "Traceback" in done.stderr
    else:
        assert done.returncode == 130 and done.stderr == "\ninterrupted before it began; run the same command again\n"


def test_ctrl_c_ends_with_one_line_and_130(capsys):
    with pytest.raises(SystemExit) as end, main_guard("the half is kept; run it again"):
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err.strip() == "interrupted: the half is kept; run it again"
