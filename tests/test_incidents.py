"""Laws of skipped updates: what they leave, that it can be measured again to the bit, and that nothing else changes."""

import json
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import soundfile

from tests.small_run import REPO, environment, finish, write_run
from tests.training_in_process import make_trainer, small_config, stopping, train_in_process
from uniaudio_jax import replay, spikes
from uniaudio_jax.blackbox import BATCH, FILE
from uniaudio_jax.evidence import batches_in, frames_of, worst_first
from uniaudio_jax.replay import arrays_in
from uniaudio_jax.sinks.jsonl import read_metrics

NAN, SPIKE = 4, 13
"""Updates whose batches are spoilt, counted from 1 as in the names of their folders."""
TIMED = ("frames_per_second", "model_flop_utilisation", "goodput", "audio_hours_per_chip_hour")


def with_nan(row):
    return row._replace(text_vectors=np.full_like(row.text_vectors, np.nan))


def with_unknown_tokens(row):
    """The row with an id that no other row has, which no training expects."""
    return row._replace(tokens=np.where(row.tokens > 0, 59, 0))


SPOILT = {NAN - 1: with_nan, SPIKE - 1: with_unknown_tokens}


@pytest.fixture(scope="module", autouse=True)
def soon():
    """A loss can be a spike after seven others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spikes, "LEAST_UPDATES", 7)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = small_config(
        write_run(tmp_path_factory.mktemp("incidents"), layout="PAPER"),
        steps=17,
        spike_deviations=1.5,
        keep_checkpoints=3,
    )
    return replace(config, optim=replace(config.optim, peak_learning_rate=3e-3))


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A run with two incidents, and its last state."""
    out = tmp_path_factory.mktemp("run")
    return SimpleNamespace(out=out, state=train_in_process(config, out, SPOILT))


def incident(out: Path, step: int) -> dict:
    return json.loads((out / "incidents" / f"step_{step}" / FILE).read_text(), parse_constant=pytest.fail)


def replayed(folder: Path, monkeypatch, capsys) -> tuple[int, str]:
    """The exit code and output of a replay."""
    monkeypatch.setattr(sys, "argv", ["replay", str(folder)])
    with pytest.raises(SystemExit) as end:
        replay.main()
    return int(str(end.value.code)), capsys.readouterr().out


def test_only_the_spoilt_updates_are_skipped_and_each_leaves_a_folder(run):
    assert sorted(path.name for path in (run.out / "incidents").iterdir()) == [f"step_{SPIKE}", f"step_{NAN}"]
    assert int(run.state.skipped) == 2 and int(run.state.level.updates) == 15
    nan, spike = incident(run.out, NAN), incident(run.out, SPIKE)
    assert nan["reason"] == "loss nan, gradient norm nan" and nan["loss"] is None
    assert spike["loss"] > spike["limit"] > 8 and spike["measured_again_to_the_bit"]
    lines = [line for line in read_metrics(run.out / "metrics.jsonl") if "incident/loss" in line]
    assert [(line["step"], line["incident/loss"]) for line in lines] == [(NAN, None), (SPIKE, spike["loss"])]


@pytest.mark.parametrize("step", [NAN, SPIKE])
def test_a_replay_finds_the_loss_to_the_bit(step, run, monkeypatch, capsys):
    code, table = replayed(run.out / "incidents" / f"step_{step}", monkeypatch, capsys)
    assert code == 0 and "| no |" not in table
    logged = [line.get("loss/all") for line in read_metrics(run.out / "metrics.jsonl") if line["step"] == step]
    loss = f"{logged[-1]:.9g}" if logged[-1] else "nan"
    assert f"| loss | {loss} | {loss} | yes |" in table
    assert "does not fit these devices: one of them is used" in table


def test_a_replay_of_another_batch_says_that_the_loss_differs(run, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "step_13"
    shutil.copytree(run.out / "incidents" / f"step_{SPIKE}", folder)
    arrays = arrays_in(folder / BATCH)
    arrays["0.tokens"][1, 2] = 61
    np.savez(folder / BATCH, allow_pickle=False, **arrays)
    code, said = replayed(folder, monkeypatch, capsys)
    assert code == 1 and "not equal to the bit: devices and versions are those of the training" in said


def test_an_incident_names_the_examples_whose_tokens_it_holds(config, run, tmp_path):
    trainer = make_trainer(config, tmp_path)
    trainer.run(stopping(lambda _: True, "SIGTERM"))
    data = trainer.data
    (batch,) = batches_in(arrays_in(run.out / "incidents" / f"step_{NAN}" / BATCH))
    examples = incident(run.out, NAN)["examples"]
    assert len(examples) == sum(row.max() for row in batch.segments) > len(batch.segments)
    for example in examples:
        member = data.rows.plan.row(example["row_of_data"])[example["segment"] - 1]
        view = data.views[member.source]
        assert (view.name, view.about(member.record).id) == (example["dataset"], example["id"])
        assert ("prompt_id" in example) == (view.task.name == "tts")
        at = batch.segments[example["row"]] == example["segment"]
        np.testing.assert_array_equal(batch.tokens[example["row"]][at], data.rows.example(member).tokens)


def test_the_worst_example_is_the_first_that_is_not_finite_or_has_the_largest_loss(run):
    for step in (NAN, SPIKE):
        losses = [example["loss"] for example in incident(run.out, step)["examples"]]
        bad = losses.count(None)
        assert losses[:bad] == [None] * bad and losses[bad:] == sorted(losses[bad:], reverse=True)
        assert bool(bad) == (step == NAN)


def test_the_worst_example_can_be_heard_or_the_reason_why_not_is_told(run):
    folder, worst = run.out / "incidents" / f"step_{NAN}", incident(run.out, NAN)["worst_example"]
    (batch,) = batches_in(arrays_in(folder / BATCH))
    frames = frames_of(batch, worst_first([batch], arrays_in(folder / "numbers.npz"))[0])
    assert worst["audio"][-1] == "worst_audio.wav"
    samples, rate = soundfile.read(folder / "worst_audio.wav")
    assert rate == 16000 and 0 < len(samples) <= 320 * (len(frames.tokens) - 4)
    assert "wanted <start>" in incident(run.out, SPIKE)["worst_example"]["audio"]


def test_the_norms_of_the_layers_make_up_the_gradients_norm(run):
    spike = incident(run.out, SPIKE)
    norms = spike["gradient_norms"]
    assert len(norms["global.blocks.mlp.up.kernel"]) == 2
    total = np.sqrt(sum(np.square(norm).sum() for norm in norms.values()))
    assert total == pytest.approx(spike["gradient_norm"], rel=1e-5)


def numbers_of(out: Path) -> list[dict]:
    """The metrics of a run but for those that measure time."""
    return [
        {name: value for name, value in line.items() if not name.startswith(TIMED)}
        for line in read_metrics(out / "metrics.jsonl")
    ]


def test_a_training_resumed_across_an_incident_equals_the_uninterrupted_one_to_the_bit(config, run, tmp_path):
    trainer = make_trainer(config, tmp_path, SPOILT)
    trainer.run(stopping(lambda step: step == 11, "SIGTERM"))
    state = train_in_process(config, tmp_path, SPOILT)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(run.state))
    assert numbers_of(tmp_path) == numbers_of(run.out)


@pytest.mark.slow
def test_a_training_without_incidents_writes_none_and_finds_the_same_numbers_with_and_without_the_limit(
    config, tmp_path
):
    for name, deviations in (("with", 1e3), ("without", None)):
        train = replace(config.train, steps=11, spike_deviations=deviations)
        state = train_in_process(replace(config, train=train), tmp_path / name)
        assert (state.level is None) == (deviations is None)
        assert not (tmp_path / name / "incidents").exists()
    assert numbers_of(tmp_path / "with") == numbers_of(tmp_path / "without")


@pytest.mark.slow
def test_a_training_that_kept_no_level_of_the_loss_goes_on_with_one(config, tmp_path):
    train = replace(config.train, spike_deviations=None)
    make_trainer(replace(config, train=train), tmp_path).run(stopping(lambda step: step == 3, "SIGTERM"))
    level = make_trainer(config, tmp_path).run(stopping(lambda step: step == 8, "SIGTERM")).level
    assert level is not None and int(level.updates) == 5


def test_a_loss_that_stays_above_the_limit_ends_the_training_in_words_with_few_folders(config, tmp_path):
    train = replace(config.train, most_skipped_updates=5, most_incidents=2, spike_deviations=1.0)
    spoilt = dict.fromkeys(range(SPIKE - 1, 17), with_unknown_tokens)
    with pytest.raises(ValueError, match=r"step 17: the last 5 updates were skipped.* or for a spike of the loss"):
        train_in_process(replace(config, train=train), tmp_path, spoilt)
    assert sorted(path.name for path in (tmp_path / "incidents").iterdir()) == ["step_13", "step_14"]
    steps = [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl") if "incident/loss" in line]
    assert steps == [13, 14, 15, 16, 17]


def test_a_black_box_that_cannot_be_written_does_not_end_the_training(config, tmp_path, capsys):
    (tmp_path / "incidents").write_text("in the way")
    train = replace(config.train, steps=5)
    state = train_in_process(replace(config, train=train), tmp_path, {NAN - 1: with_nan})
    assert (int(state.step), int(state.skipped)) == (5, 1)
    assert "step 4: update skipped, loss nan, gradient norm nan; the black box could not be" in capsys.readouterr().out


def test_the_host_asks_whether_an_update_was_skipped_once_the_next_gradients_are_computed(config, tmp_path):
    trainer, calls = make_trainer(replace(config, train=replace(config.train, log_every_steps=100)), tmp_path), []

    def note(owner, name):
        work = getattr(owner, name)
        setattr(owner, name, lambda *given: calls.append(name) or work(*given))

    for owner, name in ((trainer.programs, "measure"), (trainer.box, "is_due"), (trainer.programs, "apply")):
        note(owner, name)
    trainer.run(stopping(lambda step: step == 5, "SIGTERM"))
    assert calls[4:13] == ["measure", "is_due", "apply"] * 3


@pytest.mark.slow
def test_without_black_boxes_bad_updates_are_still_skipped(config, tmp_path):
    train = replace(config.train, steps=5, most_incidents=0, accumulate=2)
    state = train_in_process(replace(config, train=train), tmp_path, {2 * NAN - 1: with_nan})
    assert int(state.skipped) == 1 and not (tmp_path / "incidents").exists()


@pytest.mark.slow
def test_drawn_frames_of_several_batches_are_replayed_to_the_bit(config, tmp_path, monkeypatch, capsys):
    train = replace(config.train, steps=5, accumulate=2, local_share=0.3, spike_deviations=None)
    train_in_process(replace(config, train=train), tmp_path, {2 * NAN - 1: with_nan})
    code, table = replayed(tmp_path / "incidents" / "step_4", monkeypatch, capsys)
    assert code == 0 and "| no |" not in table
    assert {example["batch"] for example in incident(tmp_path, 4)["examples"]} == {0, 1}


SPOIL_IN_EACH_PROCESS = """
import sys
import numpy as np
from data_pipelines.batches import Rows
from uniaudio_jax import train

row = Rows.row

def spoilt(rows, members):
    made = row(rows, members)
    if members in [rows.plan.row(number) for number in range(8, 12)]:
        made.text_vectors[:] = np.nan
    return made

Rows.row = spoilt
train.main()
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
def test_two_processes_write_one_incident_that_two_replay_to_the_bit(tmp_path):
    path, out = write_run(tmp_path), tmp_path / "run"
    for program, *words in (
        (["-c", SPOIL_IN_EACH_PROCESS], path, "--out", out, "--train.steps", 5),
        (["-m", "uniaudio_jax.replay"], out / "incidents" / "step_3"),
    ):
        address = f"127.0.0.1:{free_port()}"
        flags = ["--distributed.coordinator", address, "--distributed.processes", 2, "--distributed.process"]
        processes = [
            subprocess.Popen(
                [sys.executable, *program, *map(str, [*words, *flags, number])],
                cwd=REPO,
                env=environment(),
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for number in range(2)
        ]
        said = [finish(process)[0] for process in processes]
    assert "| loss | nan | nan | yes |" in said[0] and "| no |" not in said[0] and "loss" not in said[1]
    facts = incident(out, 3)["facts"]
    assert (facts["devices"], facts["processes"]) == (2, 2)
