"""Laws of the configs: every file loads, judges itself, survives JSON, and the paper's sizes are the paper's."""

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import MODEL
from uniaudio_jax.cli import main_guard, parse_with_config
from uniaudio_jax.codec.config import CodecTrainConfig
from uniaudio_jax.codec.train import CodecTrainOptions
from uniaudio_jax.config import MeshConfig, OptimConfig, RunConfig, StackConfig, TrainConfig
from uniaudio_jax.config_files import from_dict, load_config, to_dict
from uniaudio_jax.generate import GenerateOptions
from uniaudio_jax.model.uniaudio import ModelDefinition, count_parameters
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.train import TrainOptions

REPO = Path(__file__).parents[1]
CONFIGS = sorted(path for path in (REPO / "configs").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_says_what_to_expect(path):
    config = load_config(path, CodecTrainConfig if path.stem.startswith("codec") else RunConfig)
    tree = ast.parse(path.read_text())
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "get_config")
    assert ast.get_docstring(tree) and ast.get_docstring(function)
    if isinstance(config, RunConfig):
        assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config))), "here") == config
        assert config.model.vocabulary_size == config.model.ids.size


def test_the_paper_config_has_the_papers_parameters():
    config = load_config(REPO / "configs" / "paper.py", RunConfig)
    counts = count_parameters(ModelDefinition(config.model).shapes())
    for part, millions in {"global": 694.4, "local": 240.4, "text": 1.2}.items():
        assert abs(counts[part] / 1e6 - millions) <= max(0.001 * millions, 0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StackConfig(layers=2, width=30, heads=7), "multiple of heads"),
        (lambda: StackConfig(layers=0, width=30, heads=5), "StackConfig.layers"),
        (lambda: replace(MODEL, codebooks=7), "multiple of codebooks"),
        (lambda: MeshConfig(fsdp=0), "positive sizes"),
        (lambda: TrainConfig(steps=0), "TrainConfig.steps"),
        (lambda: TrainConfig(steps=3, local_share=0.0), "TrainConfig.local_share: got 0.0, wanted more than 0"),
        (lambda: TrainConfig(steps=3, spike_deviations=0.0), "TrainConfig.spike_deviations: got 0.0, wanted None, or"),
        (lambda: TrainConfig(steps=3, most_incidents=-1), "TrainConfig.most_incidents: got -1, wanted at least 0"),
        (lambda: TrainConfig(steps=7, profile_steps=(5, 3)), "TrainConfig.profile_steps: got 5 3, wanted 1 <= FIRST"),
        (lambda: TrainConfig(steps=3, ema_decay=1.0), "TrainConfig.ema_decay: got 1.0, wanted None, or between"),
        (lambda: OptimConfig(decay_share=1.1), "OptimConfig.decay_share: got 1.1, wanted more than 0, at most 1"),
        (lambda: load_config("configs/quickstrat.py", RunConfig), "no such config file; beside it: .*quickstart.py"),
        (
            lambda: from_dict(StackConfig, {"layers": 1, "wide": 3}, "here"),
            "here: got the fields wide, wanted a StackConfig",
        ),
    ],
)
def test_a_config_judges_itself(make, message):
    with pytest.raises(ValueError, match=message):
        make()


GOOD = "from configs import base\n\n\ndef get_config():\n    return base.get_config()\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refusal(path: Path, kind: type = RunConfig) -> str:
    with pytest.raises(ValueError) as error:
        load_config(path, kind)
    return str(error.value)


def test_a_config_outside_of_the_checkout_imports_the_configs_beside_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elsewhere = [place for place in sys.path if place and Path(place) != REPO]
    monkeypatch.setattr(sys, "path", list(elsewhere))
    for name in ("configs", "configs.base"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    config = load_config(write(tmp_path / "mine.py", "print('hello')\n" + GOOD), RunConfig)
    assert config == load_config(REPO / "configs" / "base.py", RunConfig)
    assert sys.path == elsewhere


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import nothing_of_the_kind\n" + GOOD, ":1: ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("a = 3\nb = a +\n" + GOOD, ":2: SyntaxError: invalid syntax"),
        ("def get_config():\n    a = 3\n    return a / 0\n", ":3: ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)\n" + GOOD, ":1: SystemExit: 0"),
        (
            "from uniaudio_jax.config import StackConfig\nSTACK = StackConfig(layers=2, width=30, heads=7)\n" + GOOD,
            ":2: ValueError: StackConfig.heads: got width=30, heads=7, wanted a width that is a multiple of heads",
        ),
        (
            "from dataclasses import replace\nfrom configs import base\n\n\ndef get_config():\n"
            "    return replace(\n        base.get_config(), tasks={})\n",
            ":6: TypeError: RunConfig.__init__() got an unexpected keyword argument 'tasks'",
        ),
        ("a = 3\n", ": no function get_config() in it"),
        ("get_config = 3\n", ": TypeError: 'int' object is not callable"),
        ("def get_config():\n    pass\n", ": get_config() returns a NoneType, wanted a RunConfig"),
        (
            "from configs.codec_tiny_16k import get_config\n",
            ": get_config() returns a CodecTrainConfig, wanted a RunConfig; `python -m uniaudio_jax.train` takes a",
        ),
        ("a = '\0'\n", ""),
    ],
)
def test_a_config_that_fails_is_told_with_the_line_that_failed(text, told, tmp_path):
    path = write(tmp_path / "mine.py", text)
    assert refusal(path).startswith(f"{path}{told}")


def test_a_config_of_bytes_that_are_no_text_is_told_with_its_file(tmp_path):
    (tmp_path / "mine.py").write_bytes(b"a = '\xff'\n")
    assert refusal(tmp_path / "mine.py").startswith(f"{tmp_path / 'mine.py'}:")


def test_a_config_for_the_codec_is_wanted_by_the_codecs_training(tmp_path):
    told = refusal(write(tmp_path / "mine.py", GOOD), CodecTrainConfig)
    assert "returns a RunConfig, wanted a CodecTrainConfig" in told


@pytest.mark.parametrize("options", [TrainOptions, CodecTrainOptions])
@pytest.mark.parametrize("words", [[], ["--help"], ["--out", "runs/a", "--train.steps", "7"]])
def test_a_broken_config_is_one_error_with_any_words_behind_it(options, words, tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "mine.py", "raise RuntimeError('no such luck')\n")
    monkeypatch.setattr(sys, "argv", ["train", str(path), *words])
    field = "run" if options is TrainOptions else "train"
    with pytest.raises(SystemExit) as exit_, main_guard():
        parse_with_config(options, field, "base.py", None)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"error: {path}:1: RuntimeError: no such luck; mend the config file\n"


def test_the_help_without_a_config_works_outside_of_the_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", "--help"])
    with pytest.raises(SystemExit) as exit_:
        parse_with_config(TrainOptions, "run", "base.py", None)
    assert exit_.value.code == 0 and "--model.context-frames" in capsys.readouterr().out


def test_fields_of_another_version_are_named_with_where_they_stand_and_what_is_known():
    values = json.loads(json.dumps(to_dict(load_config(REPO / "configs" / "base.py", RunConfig))))
    values["train"]["warp"] = 3
    with pytest.raises(
        ValueError, match=r"^runs/a, config, train: got the fields warp, wanted a TrainConfig with steps"
    ):
        from_dict(RunConfig, values, "runs/a, config")
    values["train"] = {"accumulate": 1}
    with pytest.raises(ValueError, match="^runs/a, config, train: .*missing 1 required .*'steps'"):
        from_dict(RunConfig, values, "runs/a, config")
    values["train"] = [7]
    with pytest.raises(ValueError, match=r"^runs/a, config, train: got \[7\], wanted a TrainConfig"):
        from_dict(RunConfig, values, "runs/a, config")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("train=None", "RunConfig: got train = None, wanted TrainConfig"),
        ("data=replace(run.data, root=None)", "DataConfig: got root = None, wanted str"),
        ('optim={"lr": 1}', "RunConfig: got optim = {'lr': 1}, wanted OptimConfig"),
        ('data=replace(run.data, tasks=["tts"])', "DataConfig: got tasks = ['tts'], wanted dict[str, float]"),
        ('train=replace(run.train, steps="many")', "TrainConfig: got steps = 'many', wanted int"),
        ("train=replace(run.train, steps=10.5)", "TrainConfig: got steps = 10.5, wanted int"),
        ('train=replace(run.train, sinks="jsonl")', "TrainConfig: got sinks = 'jsonl', wanted tuple[str, ...]"),
        ("name=5", "RunConfig: got name = 5, wanted str"),
        ('optim=replace(run.optim, beta1=float("nan"))', "OptimConfig: got beta1 = nan, wanted finite numbers"),
        (
            'data=replace(run.data, tasks={"tts": float("inf")})',
            "DataConfig: got tasks = {'tts': inf}, wanted finite numbers",
        ),
    ],
)
def test_a_value_of_another_type_is_told_with_its_line_and_field(change, told, tmp_path):
    text = "from dataclasses import replace\nfrom configs import base\n\n\ndef get_config():\n"
    path = write(tmp_path / "mine.py", text + f"    run = base.get_config()\n    return replace(run, {change})\n")
    assert refusal(path) == f"{path}:7: ValueError: {told}; mend the config file"


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan"), 0.0, -1.5])
def test_what_is_generated_lasts_a_finite_time_at_a_finite_temperature(number):
    options = {"run": Path("a"), "task": ("tts",), "out": Path("b")}
    with pytest.raises(ValueError, match=f"seconds.*{number}, wanted"):
        GenerateOptions(**options, seconds=number)
    if number != 0:
        with pytest.raises(ValueError, match=f"temperature ?= ?{number}"):
            Sampling(temperature=number)
