"""Laws of the locks: one process at a time, and a dead one holds nothing."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from uniaudio_jax.locks import FILE, hold

HERE = f"process {os.getpid()} on {socket.gethostname()} since 20"


def test_a_folder_that_is_held_is_refused_with_the_name_of_its_holder(tmp_path):
    with hold(tmp_path / "run", "wait"):
        with pytest.raises(ValueError, match=f"run: in use by {HERE}.*; wait$"), hold(tmp_path / "run", "wait"):
            raise AssertionError
        assert (tmp_path / "run" / FILE).read_text().startswith(HERE)
    with hold(tmp_path / "run", "wait"):
        pass


def test_a_process_that_was_killed_holds_nothing(tmp_path, capsys):
    code = (
        "import sys, time; from pathlib import Path; from uniaudio_jax.locks import hold\n"
        "with hold(Path(sys.argv[1]), ''): print('held', flush=True); time.sleep(300)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"in use by process {process.pid} on"), hold(tmp_path, "wait"):
        raise AssertionError
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with hold(tmp_path, "wait"):
        assert (tmp_path / FILE).read_text().startswith(HERE)
    assert not capsys.readouterr().err


def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold(tmp_path, "wait"), hold(tmp_path, "wait"):
        said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all(line.startswith(f"warning: {tmp_path}: no locks") for line in said)
    assert f"last used by {HERE}" in said[1]


def test_a_holder_on_another_host_is_told(tmp_path, capsys):
    (tmp_path / FILE).write_text("process 7 on elsewhere since 2023-05-03 11:13:17\n")
    with hold(tmp_path, "wait"):
        assert "last used by process 7 on elsewhere since 2023-05-03 11:13:17" in capsys.readouterr().err
