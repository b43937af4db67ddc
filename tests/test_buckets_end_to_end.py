"""A run whose folder and tokens lie in a bucket, by all commands, against servers on this machine.

The bucket of Google is `fake_gcs`, that of Amazon moto's server; both need `bash launch/install.sh buckets`, the latter
`pip install moto[server]` as well.
"""

import importlib.util
import json
import logging
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fake_gcs import FakeGcs
from tests.small_run import REPO, environment, write_run

pytestmark = pytest.mark.slow


class Bucket(NamedTuple):
    """An empty bucket: its address, what makes a process ask its server, and its file system."""

    address: str
    variables: dict[str, str]
    system: Any

    def run(self, *words: object, code: int = 0) -> str:
        """What a command of ours prints, which must exit with `code`."""
        variables = environment() | self.variables
        done = subprocess.run(
            [sys.executable, "-m", *map(str, words)],
            cwd=REPO,
            env=variables,
            text=True,
            capture_output=True,
            timeout=300,
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if code == 0 else done.stderr

    def lines(self, name: str) -> list[str]:
        return self.system.cat(f"{self.address}/{name}").decode().splitlines()


def google(patch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # read when gcsfs is imported
    gcsfs = pytest.importorskip("gcsfs", reason="needs `bash launch/install.sh buckets`")
    with FakeGcs("bucket") as server:
        system = gcsfs.GCSFileSystem(endpoint_url=server.url, token="anon", use_listings_cache=False)
        yield Bucket("gs://bucket", server.environment(), system)


def amazon(patch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    patch.setattr(logging.getLogger("werkzeug"), "disabled", True)
    s3fs = pytest.importorskip("s3fs", reason="needs `bash launch/install.sh buckets`")
    moto = pytest.importorskip("moto.server", reason="needs `pip install moto[server]`")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    url, key = f"http://{host}:{port}", "fake"
    variables = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": key,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
    system = s3fs.S3FileSystem(endpoint_url=url, key=key, secret=key, use_listings_cache=False)
    system.mkdir("bucket")
    yield Bucket("s3://bucket", variables, system)
    server.stop()


@pytest.fixture(params=[google, amazon])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    yield from request.param(monkeypatch)


def test_a_run_in_a_bucket_is_trained_resumed_evaluated_and_exported_like_one_on_disk(bucket: Bucket, tmp_path: Path):
    config, cache = write_run(tmp_path, ("tts",), steps=23), tmp_path / "cache"
    bucket.system.put(str(tmp_path / "tokens"), f"{bucket.address}/tokens", recursive=True)
    shutil.rmtree(tmp_path / "tokens")
    bucket.variables["UNIAUDIO_CACHE"] = str(cache)
    run, tokens = f"{bucket.address}/runs/mine", f"{bucket.address}/tokens"
    train = ("uniaudio_jax.train", config, "--out", run, "--data.root", tokens, "--data.tasks", "tts", "1")
    bucket.run(*train, "--train.steps", "19")
    for name in ("commit_success.txt", "params/commit_success.txt"):  # as a process that was killed leaves a step
        bucket.system.rm(f"{run}/checkpoints/19/{name}")
    bucket.system.pipe(f"{run}/.lock", b"process 7 on elsewhere")
    assert "resuming after step 17" in bucket.run(*train)
    lines = [json.loads(line) for line in bucket.lines("runs/mine/metrics.jsonl")]
    assert [line["step"] for line in lines] == list(range(1, 24))
    assert len(bucket.system.ls(f"{run}/tensorboard")) == 2 and not bucket.system.exists(f"{run}/.lock")

    report = bucket.run("uniaudio_jax.evaluate", "--run", run, "--count", "1")
    assert "step 23" in report and bucket.lines("runs/mine/evaluation.md")[0] == "# small, step 23"
    assert bucket.system.exists(f"{run}/evaluation/tts/0.generated.wav")
    out = tmp_path / "out"
    bucket.run("uniaudio_jax.generate", "--run", run, "--task", "tts", "--split", "heldout", "--out", out)
    assert json.loads((out / "samples.json").read_text())[0]["task"] == "tts"
    if importlib.util.find_spec("torch"):
        bucket.run("uniaudio_jax.export_torch", "--run", run, "--out", tmp_path / "torch")
        assert (tmp_path / "torch" / "model.safetensors").is_file()
    again = ("--start-from", run, "--train.steps", "2")
    assert "a fresh start" in bucket.run(*train[:3], f"{run}-again", *train[4:], *again)

    shards = list((cache / "buckets").rglob("*.array_record*"))
    assert {path.name.split(".")[0].rpartition("-")[2] for path in shards} == {"train", "heldout"}


def test_a_bucket_that_is_not_there_is_one_line(bucket: Bucket, tmp_path: Path):
    config = write_run(tmp_path, ("tts",))
    missing = bucket.address.replace("bucket", "nobody")
    for words in (["--out", missing + "/run"], ["--out", tmp_path / "run", "--data.root", missing]):
        error = bucket.run("uniaudio_jax.train", config, *words, code=2)
        (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
        assert "its bucket cannot be reached" in line and line == error.splitlines()[-1]
