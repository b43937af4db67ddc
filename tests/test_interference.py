"""Laws of the bench of interference: its cosines are those of the gradients, its losses those of an evaluation."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipelines.heldout import HeldOut
from tests.small_run import write_untrained_run
from tests.tiny import make_programs, random_batch, start
from uniaudio_jax.bench import interference
from uniaudio_jax.bench.__main__ import main
from uniaudio_jax.bench.interference import Gradient, cosines_of, task_gradient
from uniaudio_jax.config import MeshConfig
from uniaudio_jax.evaluate import ALL, task_losses
from uniaudio_jax.programs import Programs
from uniaudio_jax.run import load_run
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.tasks import get_task

TASKS = ("tts", "enhancement", "text_to_music")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a run of three tasks, `run`, and its tokens."""
    folder = tmp_path_factory.mktemp("interference")
    write_untrained_run(folder, TASKS)
    return folder


@pytest.fixture(scope="module")
def programs() -> Programs:
    return make_programs()


def whole(gradient, stacks=("global", "local")) -> np.ndarray:
    """The arrays of these stacks, one after the other, in float64."""
    arrays = [np.asarray(array, np.float64).ravel() for stack in stacks for array in jax.tree.leaves(gradient[stack])]
    return np.concatenate(arrays)


@pytest.mark.slow
def test_the_cosine_of_a_task_with_itself_from_the_same_batches_is_one(programs):
    batch = random_batch(rows=3)
    state, _ = start(programs, batch)
    cosines = cosines_of([task_gradient(programs, state.params, [batch, batch])], ("global", "local"))
    np.testing.assert_allclose(cosines["measured"], [[1]], atol=1e-6)
    np.testing.assert_allclose(cosines["corrected"], [[1]], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("stacks", interference.PARTS.values(), ids=list(interference.PARTS))
def test_cosines_are_symmetric_and_those_of_the_summed_gradients(stacks, programs):
    batches = [[random_batch(rows=3, seed=seed + half, tasks=(TASKS[seed],)) for half in (0, 5)] for seed in (0, 1)]
    state, _ = start(programs, batches[0][0])
    halves = [[whole(programs.gradients(state.params, b)[0], stacks) for b in pair] for pair in batches]
    sums = [first + second for first, second in halves]
    lengths = [np.linalg.norm(each) for each in sums]
    across = sums[0] @ sums[1] / (lengths[0] * lengths[1])
    alone = [4 * first @ second / length**2 for (first, second), length in zip(halves, lengths, strict=True)]
    cosines = cosines_of([task_gradient(programs, state.params, pair) for pair in batches], stacks)
    np.testing.assert_allclose(cosines["measured"], [[alone[0], across], [across, alone[1]]], rtol=0, atol=1e-6)
    corrected = across / np.sqrt(alone[0] * alone[1])
    np.testing.assert_allclose(cosines["corrected"], [[1, corrected], [corrected, 1]], rtol=0, atol=1e-6)


def test_a_correction_gives_the_cosine_of_the_signals_and_none_where_noise_is_all():
    rng, signals = np.random.default_rng(0), np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 0.0]])

    def noisy(signal: np.ndarray) -> np.ndarray:
        return np.concatenate([signal, rng.normal(size=100_003) / 100_003**0.5])

    gradients = []
    for signal in signals:
        one, other = noisy(signal), noisy(signal)
        gradients.append(Gradient({"global": one + other}, {"global": float(one @ other)}))
    cosines = cosines_of(gradients, ["global"])
    assert cosines["measured"][0][1] == pytest.approx(0.4, abs=0.02)
    assert cosines["corrected"][0][1] == pytest.approx(0.6, abs=0.02)
    assert abs(cosines["measured"][2][2]) < 0.02 and np.isnan(cosines["corrected"][2]).all()


def test_tasks_that_are_made_of_the_same_clips_draw_them_in_orders_of_their_own(folder):
    run = load_run(folder / "run")
    first, again, other = (next(interference.training_batches(run, "tts", number, 1)) for number in (0, 0, 1))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert (first.tokens != other.tokens).any()


@pytest.mark.slow
def test_the_bench_tells_the_losses_of_an_evaluation_and_writes_tables_and_a_picture(
    folder, tmp_path, capsys, monkeypatch
):
    words = ["--run", str(folder / "run"), "--batches", "2", "--rows", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench", "interference", *words])
    main()
    result = json.loads((tmp_path / "interference.json").read_text())
    run = load_run(folder / "run")
    config = run.config = replace(run.config, data=replace(run.config.data, rows=2))
    programs = Programs(config.model, config.train, config.optim, make_mesh(MeshConfig(), jax.devices()[:1]))
    for name in TASKS:
        heldout = HeldOut(config, name, run.codec.passport())
        wanted = task_losses(run, programs, run.params, get_task(name), heldout, heldout.examples(ALL))
        told = result["details"]["losses"][name]
        assert told["loss"] == pytest.approx(wanted["loss"], abs=1e-6)
        np.testing.assert_allclose(told["loss_per_level"], wanted["loss_per_level"], atol=1e-6)
    assert list(result["details"]["cosines"]) == ["all weights", "global stack", "local stack"]
    printed, written = capsys.readouterr().out, (tmp_path / "interference.md").read_text()
    assert len(result["tables"]) == 4
    assert all(table in printed and table in written for table in result["tables"].values())
    assert (tmp_path / "interference.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "nowhere"], "nowhere: no folder checkpoints/ in it; --run wants the --out folder of a training"),
        (["--run", "run", "--data-root", "nowhere"], "the folder nowhere does not exist"),
        (["--run", "run", "--task", "asr"], "no corpus for task 'asr'"),
        (["--run", "run", "--task", "juggling"], "juggling"),
        (["--run", "run", "--batches", "3"], "--batches: got 3, wanted an even number"),
        (["--run", "run", "--rows", "0"], "--rows: got 0, wanted at least 1"),
    ],
)
def test_what_is_no_run_or_lacks_its_tokens_is_told(words, message, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["bench", "interference", *words, "--out", "out"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and message in " ".join(capsys.readouterr().err.split())


def test_weights_that_are_no_numbers_are_told(folder, monkeypatch):
    run = load_run(folder / "run")
    run.params = jax.tree.map(lambda weight: weight * np.nan, run.params)
    monkeypatch.setattr(interference, "load_run", lambda *_: run)
    with pytest.raises(ValueError, match="of tts at step 3 is not finite; the weights are broken"):
        interference.run(interference.Options(run=folder / "run", batches=2, rows=2))
