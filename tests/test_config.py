"""Laws of the configs: every file loads, judges itself, survives JSON, and the paper's sizes are the paper's."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import MODEL
from uniaudio_jax.codec.config import CodecTrainConfig
from uniaudio_jax.config import MeshConfig, RunConfig, StackConfig, TrainConfig, from_dict, load_config, to_dict
from uniaudio_jax.model.uniaudio import ModelDefinition, count_parameters

REPO = Path(__file__).parents[1]
CONFIGS = sorted(path for path in (REPO / "configs").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_says_what_to_expect(path):
    config = load_config(path)
    assert isinstance(config, RunConfig | CodecTrainConfig)
    tree = ast.parse(path.read_text())
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "get_config")
    assert ast.get_docstring(tree) and ast.get_docstring(function)
    if isinstance(config, RunConfig):
        assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config
        assert config.model.vocabulary_size == config.model.ids.size


def test_the_paper_config_has_the_papers_parameters():
    config = load_config(REPO / "configs" / "paper.py")
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
        (lambda: load_config("configs/quickstrat.py"), "no such config file; beside it: .*quickstart.py"),
        (lambda: from_dict(StackConfig, {"layers": 1, "wide": 3}), "got fields"),
    ],
)
def test_a_config_judges_itself(make, message):
    with pytest.raises(ValueError, match=message):
        make()
