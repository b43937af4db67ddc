"""Laws of the benchmarks: each measures its rivals at small sizes, and saves numbers that are strict JSON."""

import ast
import inspect
import json
import sys
from dataclasses import replace

import pytest

from tests.small_run import CONFIG, write_run
from uniaudio_jax.bench import learning, options
from uniaudio_jax.bench.__main__ import BENCHES, main
from uniaudio_jax.bench.timing import ratios, side_by_side
from uniaudio_jax.config import RunConfig
from uniaudio_jax.config_files import load_config

SMALL = {
    "train": ["--config", "small.py"],
    "generate": ["--config", "small.py", "--rows", "2", "--frames", "5"],
    "plan": ["--examples", "20011"],
    "codec": ["--filters", "2", "--seconds", "0.3"],
    "data": ["--config", "small.py", "--records", "2003", "--batches", "3"],
    "builder": ["--minutes", "0.1", "--tasks", "plain_tts"],
}
SLOW = ("train", "codec", "data", "builder")


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in SMALL]
)
def test_a_bench_prints_and_saves_the_rates_of_its_rivals(name, tmp_path, capsys, monkeypatch):
    config = tmp_path / "small.py"
    config.write_text(CONFIG.format(codec="tiny_16k", root=tmp_path, steps=3, text_width=7, layout="MODERN"))
    words = [str(config) if word == "small.py" else word for word in SMALL[name]]
    monkeypatch.setattr(sys, "argv", ["bench", name, *words, "--rounds", "1", "--out", str(tmp_path)])
    main()
    result = json.loads((tmp_path / f"{name}.json").read_text(), parse_constant=refuse)
    assert result["rounds"] == 1 and all(rate > 0 for rate in result["rates"].values())
    printed = capsys.readouterr().out
    assert result["rates"] and all(rival in printed for rival in result["rates"])
    if name == "generate":
        assert result["equal_tokens"] == 1
        assert result["seconds of decoding by the codec per second of audio"] > 0
        rate, spent = result["rates"]["compiled"], result["seconds of generation per second of audio"]
        assert rate * spent == pytest.approx(50)


@pytest.mark.slow
def test_a_variant_under_two_names_learns_the_same_in_equal_steps(tmp_path):
    config = load_config(write_run(tmp_path), RunConfig)
    config = replace(config, data=replace(config.data, rows=8))
    other = replace(config, train=replace(config.train, seed=1))
    steps = {"one": 5, "two": 5, "other": 7}
    learners = learning.learn({"one": config, "two": config, "other": other}, steps, turns=3)
    results = {name: learner.result() for name, learner in learners.items()}
    one, two, other = ({task: numbers[task] for task in config.data.tasks} for numbers in results.values())
    assert one == two and one != other
    assert [numbers["steps"] for numbers in results.values()] == list(steps.values())


@pytest.mark.slow
def test_the_learning_of_variants_is_printed_and_saved(tmp_path, capsys, monkeypatch):
    variants = [
        "plain=--data.rows 8",
        "third=--data.rows 8 --optim.name muon --train.local-share 0.3 --train.ema-decay 0.5",
    ]
    words = ["--config", str(write_run(tmp_path)), "--minutes", "0.01", "--out", str(tmp_path), "--evaluations", "2"]
    words += ["--variants", *variants]
    monkeypatch.setattr(sys, "argv", ["bench", "learning", *words])
    main()
    whole = json.loads((tmp_path / "learning.json").read_text(), parse_constant=refuse)
    result, reached = whole["variants"], whole["seconds to the last loss of plain"]
    assert reached["plain"] <= result["plain"]["seconds of training"] and (tmp_path / "learning.png").is_file()
    assert "| mean loss | " in capsys.readouterr().out and list(result) == ["plain", "third"]
    for numbers in result.values():
        tasks = [numbers[task] for task in ("tts", "enhancement", "text_to_music")]
        assert numbers["mean loss"] == pytest.approx(sum(tasks) / 3) and numbers["steps"] >= 1
        assert numbers["frames/s"] == pytest.approx(numbers["steps"] * 8 * 101 / numbers["seconds of training"])


def test_a_loss_is_reached_on_the_line_between_two_measurements():
    curve = [
        {"seconds": 10.0, "mean loss": 7.0},
        {"seconds": 30.0, "mean loss": 5.0},
        {"seconds": 40.0, "mean loss": 4.5},
    ]
    assert learning.seconds_to(6.5, curve) == 15.0 and learning.seconds_to(4.5, curve) == 40.0
    assert learning.seconds_to(8.0, curve) == 10.0 and learning.seconds_to(4.0, curve) is None


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (("muon",), "--variants: got 'muon', wanted NAME=FLAGS"),
        (("one=", "one=--train.seed 1"), "got 'one=--train.seed 1', wanted NAME=FLAGS, each name once"),
        (("one=--data.root nowhere",), "--variants one: the folder of tokens nowhere is not there; .*quickstart.sh"),
    ],
)
def test_a_variant_without_a_name_of_its_own_or_tokens_is_refused(variants, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        learning.variants_of(learning.Options(variants=variants, root=str(tmp_path)))


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_equals_one_that_is_not(tmp_path, capsys, monkeypatch):
    words = ["--kills", "5", "--steps", "61", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench", "soak", *words])
    main()
    result = json.loads((tmp_path / "soak.json").read_text(), parse_constant=refuse)
    assert result["faults"] == [] and sum(result["kills"].values()) == 5 and result["steps"] == 61
    assert result["openings by readers"] > 0 == result["failed openings"]
    assert result["largest differences"].pop("losses to one process") < 1e-5
    assert set(result["largest differences"].values()) == {0}
    assert "no fault" in capsys.readouterr().out


def test_a_bench_with_faults_saves_them_and_ends_with_exit_code_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(BENCHES["soak"], "run", lambda _: {"kills": {"step of one": 3}, "faults": ["step 7: differs"]})
    monkeypatch.setattr(sys, "argv", ["bench", "soak", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1 and json.loads((tmp_path / "soak.json").read_text())["faults"] == ["step 7: differs"]
    out = capsys.readouterr().out
    assert "kills: {'step of one': 3}" in out and "fault: step 7: differs" in out


@pytest.mark.parametrize("words", [["--kills", "2"], ["--steps", "9"]])
def test_a_soak_without_kills_or_checkpoints_is_refused(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", "soak", *words, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "wanted at least 3 kills" in capsys.readouterr().err


def test_numbers_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    result = {"unit": "frames/s", "rates": {"ours": float("nan")}, "ratios": {}, "rounds": 1}
    monkeypatch.setattr(BENCHES["train"], "run", lambda _: dict(result))
    monkeypatch.setattr(sys, "argv", ["bench", "train", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("module", [options, *BENCHES.values()], ids=lambda module: module.__name__)
def test_every_option_of_a_bench_is_explained(module):
    tree = ast.parse(inspect.getsource(module))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("Options")]
    for members in (node.body for node in classes):
        fields = [number for number, member in enumerate(members) if isinstance(member, ast.AnnAssign)]
        explained = [number - 1 for number, member in enumerate(members) if isinstance(member, ast.Expr) and number]
        assert fields and fields == explained


def test_rivals_take_turns_and_ratios_are_those_of_a_round():
    calls = []
    seconds = side_by_side({name: lambda name=name: calls.append(name) for name in "AB"}, rounds=3, warmup=2)
    assert calls == list("AB") * 5 and [len(times) for times in seconds.values()] == [3, 3]
    of_rounds = ratios({"A": [1.0, 2.0, 4.0], "B": [3.0, 2.0, 2.0]}, "A")
    assert of_rounds == {"B": {"median": 1.0, "min": 0.5, "max": 3.0}}
