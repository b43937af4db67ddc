"""The demo: what a visitor may give, and what its server answers over HTTP."""

import contextlib
import importlib.util
import io
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile

from tests.evaluation_files import RATE_HZ, tone
from tests.small_run import REPO, environment, free_address, write_untrained_run
from uniaudio_jax.conditions import Conditions
from uniaudio_jax.demo.given import Limits, fields_given, read_given
from uniaudio_jax.demo.page import playable
from uniaudio_jax.run import load_run
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.tasks import TASKS, get_task

TRIED = ("enhancement", "speech_edit", "audio_tagging")
has_gradio = importlib.util.find_spec("gradio") is not None
needs_gradio = pytest.mark.skipif(not has_gradio, reason="no gradio here (bash launch/install.sh demo)")
LIMITS = Limits(seconds=0.5, letters=11)


def write_tone(path: Path, seconds: float = 0.3) -> Path:
    soundfile.write(path, tone(seconds, 440), RATE_HZ)
    return path


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_given_by_fields_that_generate_takes(task):
    fields = fields_given(get_task(task))
    assert len(set(fields)) == len(fields) and set(fields) <= set(Conditions.__dataclass_fields__)
    assert all(stream.source in fields for stream in get_task(task).conditions)


def test_recordings_texts_and_spans_are_read_in_the_form_that_generate_takes(tmp_path):
    wav = write_tone(tmp_path / "a.wav")
    values = {"text": "  a word ", "audio": str(wav), "masked_seconds": (0.1, 0.2), "language": ""}
    given = read_given(values, LIMITS, RATE_HZ)
    assert given["text"] == "a word" and given["masked_seconds"] == (0.1, 0.2) and "language" not in given
    np.testing.assert_allclose(given["audio"], tone(0.3, 440), atol=1e-4)
    assert read_given({"language": "de"}, LIMITS, RATE_HZ) == {"language": "de"}


def test_what_is_missing_too_long_or_broken_is_told_without_a_path(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    broken, long = tmp_path / "broken.wav", write_tone(tmp_path / "long.wav", 0.7)
    for values, told in {
        ("text", "letters too many"): "text: got 16 letters, wanted at most 11; shorten it",
        ("text", " "): "text: got nothing, wanted a text; write one",
        ("noisy_audio", None): "noisy audio: got nothing, wanted a recording; add one",
        ("noisy_audio", str(long)): "noisy audio: got 0.7 s of audio, wanted at most 0.5 s; cut it",
        ("noisy_audio", str(broken)): "noisy audio: got a file that cannot be read as audio",
        ("midi", str(broken)): "midi: ",
        ("masked_seconds", (1.0, None)): "masked seconds: got nothing, wanted from where to where",
    }.items():
        with pytest.raises(ValueError) as refused:
            read_given(dict([values]), LIMITS, RATE_HZ)
        assert str(refused.value).startswith(told) and str(tmp_path) not in str(refused.value)


def test_limits_below_nothing_are_refused():
    with pytest.raises(ValueError, match=r"--limits\.seconds: got 0, wanted more than 0"):
        Limits(seconds=0)


def test_audio_is_played_piece_by_piece_or_whole_and_never_empty():
    pieces = [tone(0.1, 440), tone(0.2, 880)]
    played: list[Any] = list(playable(iter(pieces), RATE_HZ, streaming=True))
    streamed = [soundfile.read(io.BytesIO(wav)) for wav in played]
    complete: list[Any] = list(playable(iter(pieces), RATE_HZ, streaming=False))
    ((rate_hz, whole),) = complete
    assert {rate for _, rate in streamed} == {rate_hz} == {RATE_HZ} and whole.dtype == np.int16
    np.testing.assert_allclose(np.concatenate([samples for samples, _ in streamed]), np.concatenate(pieces), atol=1e-4)
    np.testing.assert_allclose(whole / 32767, np.concatenate(pieces), atol=1e-4)
    with pytest.raises(ValueError, match="made no sound this time; try another seed"):
        list(playable(iter([]), RATE_HZ, streaming=False))


class Server(NamedTuple):
    """A running `python -m uniaudio_jax.demo`: its address, the run that it serves, and the folder of its files."""

    address: str
    run: Path
    folder: Path
    process: subprocess.Popen

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.address}/{path}") as answer:
            return answer.read().decode()

    def post(self, path: str, body: bytes, kind: str = "application/json") -> Any:
        request = urllib.request.Request(f"{self.address}/gradio_api/{path}", body, {"Content-Type": kind})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def upload(self, content: bytes) -> dict[str, Any]:
        """A file in the form in which a task takes it."""
        head = b"--x\r\nContent-Disposition: form-data; name=files; filename=a.wav\r\n\r\n"
        (path,) = self.post("upload", head + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")
        return uploaded(path)

    def ask(self, task: str, *values: Any) -> tuple[str, Any]:
        """The last event that a task's endpoint sends, "complete" or "error", and its data."""
        event = self.post(f"call/{task}", json.dumps({"data": values}).encode())["event_id"]
        *_, last = [lines for lines in self.get(f"gradio_api/call/{task}/{event}").split("\n\n") if lines]
        name, data = last.split("\n")
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def uploaded(path: str | Path) -> dict[str, Any]:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    run, port, temporary = write_untrained_run(folder, TRIED), free_address().rpartition(":")[2], folder / "tmp"
    temporary.mkdir()
    words = ["--run", str(run), "--port", port, "--limits.seconds", "0.5", "--limits.letters", "11"]
    words += ["--limits.megabytes", "1", "--sampling.min-frames", "5"]
    command = [sys.executable, "-m", "uniaudio_jax.demo", *words]
    env = environment() | {"TMPDIR": str(temporary)}
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=REPO, env=env, text=True, stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 120
        while "Running on" not in log.read_text():
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        (files,) = temporary.glob("uniaudio_demo_*")
        yield Server(f"http://127.0.0.1:{port}", run, files, process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("demo")) as server:
        yield server


@needs_gradio
@pytest.mark.slow
def test_the_page_has_an_endpoint_for_each_task_with_its_fields_by_name(server):
    endpoints = json.loads(server.get("gradio_api/info"))["named_endpoints"]
    names = {name: [one["parameter_name"] for one in about["parameters"]] for name, about in endpoints.items()}
    assert names == {
        "/enhancement": ["noisy_audio", "seed"],
        "/speech_edit": ["text", "audio", "masked_seconds_from", "masked_seconds_to", "language", "seed"],
        "/audio_tagging": ["audio", "seed"],
    }


@needs_gradio
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg here, without which gradio streams no audio")
def test_audio_is_streamed_and_what_was_sent_is_deleted(server, tmp_path):
    sent = server.upload(write_tone(tmp_path / "a.wav").read_bytes())
    assert len(server.files()) == 1
    event, (output,) = server.ask("enhancement", sent, 3)
    assert event == "complete" and output["is_stream"]
    playlist = server.get(f"gradio_api/stream/{output['path']}").splitlines()
    assert "#EXT-X-ENDLIST" in playlist
    seconds = sum(float(line.removeprefix("#EXTINF:").rstrip(",")) for line in playlist if line.startswith("#EXTINF:"))
    assert 0.1 <= seconds < 0.7  # at least 5 frames of 20 ms and at most half a second, and AAC's padding
    assert server.files() == []


@needs_gradio
@pytest.mark.slow
def test_a_text_is_what_generate_gives_and_what_was_sent_is_deleted(server, tmp_path):
    wav = write_tone(tmp_path / "a.wav")
    output = server.ask("audio_tagging", server.upload(wav.read_bytes()), 5)
    run, samples = load_run(server.run), read_given({"audio": str(wav)}, LIMITS, RATE_HZ)["audio"]
    wanted = run.generate("audio_tagging", sampling=Sampling(seed=5, min_frames=5), seconds=0.5, audio=samples)
    assert output == ("complete", [wanted]) and server.files() == []


@needs_gradio
@pytest.mark.slow
def test_a_visitors_mistake_is_told_and_what_was_sent_is_deleted(server, tmp_path):
    sent = server.upload(write_tone(tmp_path / "long.wav", 0.7).read_bytes())
    event, data = server.ask("enhancement", sent, 0)
    assert event == "error" and "noisy audio: got 0.7 s of audio, wanted at most 0.5 s; cut it" in json.dumps(data)
    assert server.files() == []


@needs_gradio
@pytest.mark.slow
def test_a_file_that_was_not_sent_is_neither_read_nor_deleted(server, tmp_path):
    mine = write_tone(tmp_path / "mine.wav")
    for path in (mine, Path(__file__)):
        event, data = server.ask("enhancement", uploaded(path), 0)
        assert event == "error" and path.is_file(), data


@needs_gradio
@pytest.mark.slow
def test_a_file_over_the_limit_is_refused(server):
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.upload(bytes(2 << 20))
    refused.value.close()
    assert refused.value.code == 413 and server.files() == []


@needs_gradio
@pytest.mark.slow
def test_only_this_machine_is_served_and_all_files_go_at_the_end(tmp_path):
    """The end is SIGTERM, as a container's stop sends it."""
    with serving(tmp_path) as server:
        listening = Path("/proc/net/tcp").read_text()
        port = int(server.address.rpartition(":")[2])
        assert f"0100007F:{port:04X} 00000000:0000 0A" in listening
        assert f"00000000:{port:04X} 00000000:0000 0A" not in listening
        assert json.loads(server.get("config"))["analytics_enabled"] is False
        server.upload(b"anything")
        assert server.files()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0 and not server.folder.exists()
