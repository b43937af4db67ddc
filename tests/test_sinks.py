"""Laws of the metric sinks: each step stands once, JSON is strict, and an unknown name is refused."""

import json
import sys
import types
from typing import Any

import numpy as np
import pytest

from uniaudio_jax.sinks import SINKS, Log, check_sinks
from uniaudio_jax.sinks.jsonl import read_metrics
from uniaudio_jax.sinks.tensorboard import TensorboardSink


def log_steps(names, run, last_step, steps) -> None:
    log = Log(names, run, last_step)
    for step in steps:
        log.scalars(step, {"loss": step / 7})
    log.close()


def test_a_resumed_jsonl_holds_each_step_once_and_drops_a_torn_line(tmp_path):
    log_steps(["jsonl"], tmp_path, 0, range(1, 14))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 14, "lo')
    log_steps(["jsonl"], tmp_path, 7, range(8, 18))
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 18))
    assert lines[11]["loss"] == 12 / 7


def test_a_line_of_an_older_version_with_nan_is_read_and_kept_as_null(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n')
    Log(["jsonl"], tmp_path, 1).close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": null}\n'


def test_a_fresh_run_starts_an_empty_jsonl(tmp_path):
    log_steps(["jsonl"], tmp_path, 0, range(1, 4))
    log_steps(["jsonl"], tmp_path, 0, range(1, 3))
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]


def test_values_that_are_not_finite_are_null_in_strict_json(tmp_path):
    log = Log(["jsonl"], tmp_path, 0)
    log.scalars(1, {"loss": float("nan"), "norm": float("inf"), "rate": 0.5})
    log.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert line == {"step": 1, "loss": None, "norm": None, "rate": 0.5}


def test_tensorboard_purges_what_came_after_the_checkpoint_and_everything_before_a_fresh_start(tmp_path, monkeypatch):
    from uniaudio_jax.sinks import tensorboard

    opened = []
    monkeypatch.setattr(tensorboard, "open_writer", lambda folder, purge_step: opened.append((folder, purge_step)))
    TensorboardSink(tmp_path, 0)
    TensorboardSink(tmp_path, 7)
    assert opened == [(tmp_path / "tensorboard", 0), (tmp_path / "tensorboard", 8)]


class Recorder(types.ModuleType):
    """Stands for wandb, aim and trackio alike, and records what is logged to it."""

    def __init__(self, name: str):
        super().__init__(name)
        self.opened: list[dict] = []
        self.logged: list[tuple[int, str, Any]] = []
        self.id = self.hash = "unopened"
        self.Run = self.init
        self.Audio = lambda wav, **options: ("audio", wav.shape, *options.values())
        self.Image = lambda pixels: ("image", pixels.shape)

    def init(self, **options):
        self.opened.append(options)
        self.id = self.hash = f"run{len(self.opened)}"
        return self

    def log(self, values, step):
        self.logged += [(step, name, value) for name, value in values.items()]

    def track(self, value, name, step):
        self.logged.append((step, name, value))

    def finish(self):
        pass

    close = finish


RUN_ID = {"wandb": "id", "aim": "run_hash", "trackio": "name"}
"""By package: the argument that says which of its runs to go on with."""


@pytest.mark.parametrize("name", RUN_ID)
def test_a_sink_that_cannot_take_back_logs_each_step_once_and_goes_on_with_the_same_run(name, tmp_path, monkeypatch):
    module = Recorder(name)
    monkeypatch.setitem(sys.modules, name, module)
    log_steps([name], tmp_path / "mine", 0, range(1, 14))
    known = json.loads((tmp_path / "mine" / "sinks" / f"{name}.json").read_text())["id"]
    log_steps([name], tmp_path / "mine", 7, range(8, 18))
    assert module.logged == [(step, "loss", step / 7) for step in range(1, 18)]
    assert module.opened[1][RUN_ID[name]] == known


@pytest.mark.parametrize("name", RUN_ID)
def test_a_fresh_start_in_an_old_folder_is_a_new_run_that_logs_all_its_steps(name, tmp_path, monkeypatch):
    module = Recorder(name)
    monkeypatch.setitem(sys.modules, name, module)
    log_steps([name], tmp_path / "mine", 0, range(14))
    known = json.loads((tmp_path / "mine" / "sinks" / f"{name}.json").read_text())["id"]
    log_steps([name], tmp_path / "mine", 0, range(3))
    assert [step for step, *_ in module.logged] == [*range(14), *range(3)]
    assert module.opened[1][RUN_ID[name]] != known


@pytest.mark.parametrize("name", RUN_ID)
def test_audio_and_pictures_go_to_the_package_as_its_own_objects(name, tmp_path, monkeypatch):
    module = Recorder(name)
    monkeypatch.setitem(sys.modules, name, module)
    log = Log([name], tmp_path, 0)
    log.audio(3, "voice", np.zeros(11), 16000)
    log.image(3, "mel", np.zeros((5, 7), np.uint8))
    (_, _, audio), picture = module.logged
    assert audio[:2] == ("audio", (11,)) and 16000 in audio
    assert picture == (3, "mel", ("image", (5, 7)))


def test_a_package_that_cannot_open_a_run_is_one_clear_error(tmp_path, monkeypatch):
    module = Recorder("wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(module, "init", lambda **_: 1 / 0)
    with pytest.raises(ValueError, match="sink 'wandb': wandb could not open a run: division by zero"):
        Log(["wandb"], tmp_path, 0)


@pytest.mark.parametrize("name", RUN_ID)
def test_a_sink_without_its_package_says_how_to_install_it(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=f"sink '{name}'.*run `bash launch/install.sh {name}`"):
        Log([name], tmp_path, 0)


def test_an_unknown_sink_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="got 'tensorbord'.*did you mean 'tensorboard'"):
        check_sinks(["jsonl", "tensorbord"])


def test_only_the_first_process_writes(tmp_path):
    log = Log(list(SINKS), tmp_path, 0, active=False)
    log.scalars(1, {"loss": 1.0})
    log.close()
    assert not list(tmp_path.iterdir())
