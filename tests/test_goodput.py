"""Laws of where a training's time goes, and of its traces."""

import contextlib
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from data_pipelines import batches
from tests.small_run import write_run
from tests.training_in_process import NEVER, make_trainer, small_config, stopping, train_in_process
from uniaudio_jax.goodput import PARTS, Goodput
from uniaudio_jax.profiling import STEPS
from uniaudio_jax.sinks.jsonl import read_metrics


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return small_config(write_run(tmp_path_factory.mktemp("goodput")), steps=7)


@pytest.fixture
def goodput():
    goodput = Goodput()
    yield goodput
    goodput.close()


def after(seconds) -> Any:
    """What becomes ready so much later than it is waited for."""
    return SimpleNamespace(block_until_ready=lambda: time.sleep(seconds))


def test_each_moment_belongs_to_one_part(goodput):
    start = time.perf_counter()
    with goodput.part("save"):
        time.sleep(0.02)
        with goodput.part("input"):
            time.sleep(0.03)
        time.sleep(0.01)
    shares, seconds = goodput.shares(), goodput.seconds
    assert list(shares) == list(PARTS) and abs(sum(shares.values()) - 1) < 1e-6
    assert 0.03 <= seconds["save"] and 0.03 <= seconds["input"] and seconds["step"] == seconds["compile"] == 0
    assert seconds["save"] + seconds["input"] <= time.perf_counter() - start


def test_what_the_host_does_while_the_devices_work_counts_as_step(goodput):
    goodput.working_on(after(0.1))
    with goodput.part("input"):
        time.sleep(0.03)
    assert goodput.seconds["input"] == 0 and goodput.seconds["step"] >= 0.03
    with goodput.part("input"):
        time.sleep(0.2)
    assert 0.05 < goodput.seconds["input"] < 0.2 and goodput.seconds["step"] >= 0.09


def test_what_jax_compiles_is_counted_once_and_as_compile(goodput):
    start = time.perf_counter()
    with goodput.part("evaluation"):
        inner = jax.jit(lambda x: jnp.sin(x) @ x)
        jax.block_until_ready(jax.jit(lambda x: inner(inner(x) + 1))(jnp.ones((53, 53))))
    assert 0 < goodput.seconds["compile"] <= time.perf_counter() - start
    assert sum(goodput.seconds.values()) <= time.perf_counter() - start + 0.1


def slowly(row):
    time.sleep(0.03)
    return row


def test_a_slow_input_shows_as_a_wait_for_input(config, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "READERS", 1)  # rows are slow one after the other, and few are made ahead
    trainer = make_trainer(config, tmp_path, dict.fromkeys(range(2, 7), slowly))
    trainer.run(NEVER)
    slept = 5 * config.data.rows * 0.03
    assert 0.5 * slept < trainer.goodput.seconds["input"] < 2 * slept
    assert abs(sum(trainer.goodput.shares().values()) - 1) < 1e-6


def test_metrics_tell_the_shares_and_the_hours_of_audio_per_device_and_hour(config, tmp_path):
    trainer = make_trainer(config, tmp_path)
    trainer.run(NEVER)
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert sum(last[f"goodput/{part}"] for part in PARTS) == pytest.approx(1, abs=1e-6)
    hours = sum(value for name, value in last.items() if name.startswith("hours/") and name.count("/") == 2)
    rate = last["audio_hours_per_chip_hour"]
    assert rate * trainer.goodput.total_seconds / 3600 == pytest.approx(hours, rel=0.3)
    assert trainer.goodput.in_words().startswith(f"{trainer.goodput.total_seconds:.1f} s of wall time: step ")


def traces(out):
    return sorted((out / "profile").rglob("*.xplane.pb"))


def alone(function, config, out) -> str:
    """What a function prints in a process of its own: where the TPU's compiler is loaded, jax's profiler crashes."""
    printed = out / "printed"
    process = multiprocessing.get_context("spawn").Process(target=_printing, args=(function, config, out, printed))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    return printed.read_text()


def _printing(function, config, out, printed):
    with printed.open("w") as file, contextlib.redirect_stdout(file):
        function(config, out)


def train_with_a_signal(config, out):
    def before(step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return False

    handler = signal.getsignal(signal.SIGUSR1)
    make_trainer(config, out).run(stopping(before))
    assert signal.getsignal(signal.SIGUSR1) == handler


def test_a_signal_traces_the_next_steps(config, tmp_path):
    told = alone(train_with_a_signal, config, tmp_path)
    assert len(traces(tmp_path)) == 1 and f"profile up to step {1 + STEPS}: {tmp_path}/profile; open" in told


@pytest.mark.slow
def test_the_steps_of_the_config_are_traced_and_a_trace_ends_with_its_training(config, tmp_path):
    train = replace(config.train, steps=3, profile_steps=(2, 5))
    told = alone(train_in_process, replace(config, train=train), tmp_path)
    assert len(traces(tmp_path)) == 1 and f"profile up to step 5: {tmp_path}/profile" in told
