"""The engine of espeak: a crash of it costs one text, and no text changes the phones of another."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from data_pipelines.espeak import ENGINE, phonemes, speak
from data_pipelines.tokenizers.phone import PhoneTokenizer

REPO = Path(__file__).parents[1]
CRASHES = ("s'" * 71, "n.b." * 131)


@pytest.mark.parametrize("text", CRASHES)
@pytest.mark.parametrize("use", [phonemes, PhoneTokenizer().encode, lambda text: speak(text, "en-us")])
def test_a_text_that_crashes_espeak_is_refused_by_name_and_the_next_is_spoken(text, use, capfd):
    shown = re.escape(text[:31])
    with pytest.raises(ValueError, match=f"got text .{shown}.*….* of {len(text)} characters, at which its engine"):
        use(text)
    assert phonemes("hello") == list("həlˈoʊ")


def test_a_killed_engine_costs_no_text_and_leaves_no_zombie():
    wanted = phonemes("hello")
    children = []
    for _ in range(3):
        assert ENGINE.process is not None
        children.append(ENGINE.process.pid)
        os.kill(children[-1], signal.SIGKILL)
        assert phonemes("hello") == wanted
    assert len(set(children)) == 3 and not any(map(psutil.pid_exists, children))


@pytest.mark.parametrize(
    "text", ["\n\n a \n\n b", '"\n\n你', "\n&amp;\x0cé", "5|\x0c\u2028......é", "\0", "(((", "\x01 hi"]
)
def test_no_text_changes_the_phones_of_the_next(text):
    ENGINE.stop()
    wanted = phonemes("zoo is here")
    phonemes(text)
    assert phonemes("zoo is here") == wanted


def test_no_paragraph_of_a_text_is_lost():
    assert "".join(phonemes("\n\n one \n\n two\n\nthree")) == "wˌʌn|tˈuː|θɹˈiː"


def test_threads_get_the_answers_to_their_own_texts_while_others_crash(capfd):
    texts = [f"number {number}" for number in range(31)]
    wanted = [phonemes(text) for text in texts]

    def answer(text: str) -> list[str] | None:
        try:
            return phonemes(text)
        except ValueError:
            return None

    mixed = [*texts[:13], CRASHES[0], *texts[13:]]
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(answer, mixed))
    assert answers == [*wanted[:13], None, *wanted[13:]]


FORKED = """
import os
from data_pipelines.espeak import ENGINE, phonemes
wanted = phonemes("hello")
parents = ENGINE.process.pid
with ENGINE.lock:  # as if another thread were asking
    pid = os.fork()
if pid == 0:
    assert phonemes("hello") == wanted and ENGINE.process.pid != parents
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert phonemes("hello") == wanted and ENGINE.process.pid == parents
print(parents)
"""


def test_a_forked_process_has_an_engine_of_its_own_and_none_outlives_its_process():
    command = [sys.executable, "-W", "error", "-c", FORKED]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    deadline = time.monotonic() + 10
    while psutil.pid_exists(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not psutil.pid_exists(int(done.stdout))


def test_an_interrupted_question_is_not_answered_later(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    wanted = phonemes("hello")
    assert ENGINE.connection is not None
    monkeypatch.setattr(ENGINE.connection, "recv", interrupt)
    with pytest.raises(KeyboardInterrupt):
        phonemes("Something else.")
    assert phonemes("hello") == wanted and not ENGINE.lock.locked()


def test_the_engine_needs_nothing_but_the_standard_library_and_starts_quickly():
    ENGINE.stop()
    start = time.monotonic()
    phonemes("hello")
    assert time.monotonic() - start < 1
    assert ENGINE.process is not None
    opened = Path(f"/proc/{ENGINE.process.pid}/maps").read_text()
    assert "libespeak" in opened and not {"jaxlib", "numpy", "_multiarray"} & set(opened.replace("/", " ").split())


def test_samples_do_not_change_when_the_engine_was_started_anew():
    before = speak("Judith painted.", "en-us+m3")[0]
    ENGINE.stop()
    assert np.array_equal(speak("Judith painted.", "en-us+m3")[0], before)
