"""`--help` of every command explains every option: each field has a docstring under it, which tyro shows."""

import ast
import dataclasses
import importlib
import inspect
import subprocess
import sys
import textwrap
import typing
from pathlib import Path

import pytest

BENCHES = ("train", "generate", "codec", "data", "plan", "builder", "soak")
REPO = Path(__file__).parents[1]
COMMANDS = {
    "uniaudio_jax.train": ("TrainOptions",),
    "uniaudio_jax.replay": ("ReplayOptions",),
    "uniaudio_jax.generate": ("GenerateOptions",),
    "uniaudio_jax.evaluate": ("EvaluateOptions",),
    "uniaudio_jax.export_torch": ("ExportOptions",),
    "uniaudio_jax.import_torch": ("ImportOptions",),
    "uniaudio_jax.demo.__main__": ("DemoOptions",),
    "uniaudio_jax.report.__main__": ("ReportOptions",),
    "uniaudio_jax.codec.train": ("CodecTrainOptions",),
    "uniaudio_jax.codec.encode": ("Arguments",),
    "uniaudio_jax.codec.decode": ("Arguments",),
    **{f"uniaudio_jax.bench.{name}": ("Options",) for name in BENCHES},
    "data_pipelines.builder": ("BuilderOptions",),
    "data_pipelines.synthetic.corpus": ("SyntheticOptions",),
    "data_pipelines.synthetic.codec_training": ("TrainingAudioOptions",),
    "data_pipelines.tokenizers.fit_semantic": ("FitOptions",),
}


def dataclasses_in(kind: type) -> set[type]:
    """A dataclass and those among its fields, at any depth."""
    kinds = {kind}
    for hint in typing.get_type_hints(kind).values():
        for part in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                kinds |= dataclasses_in(part)
    return kinds


def fields_without_help(kind: type) -> list[str]:
    """Fields of a dataclass that a user can set and that no docstring follows; a group of options needs none."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # pyright: ignore
    hints, unexplained = typing.get_type_hints(kind), []
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            name = ast.unparse(statement.target)
            explained = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if not explained and not dataclasses.is_dataclass(hints[name]):
                unexplained.append(f"{kind.__name__}.{name}")
    return unexplained


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in COMMANDS.items() for name in names])
def test_every_option_of_a_command_is_explained(module, name):
    kinds = dataclasses_in(getattr(importlib.import_module(module), name))
    assert [field for kind in kinds for base in kind.__mro__[:-1] for field in fields_without_help(base)] == []


def test_help_shows_the_explanations_of_nested_options():
    command = [sys.executable, "-m", "uniaudio_jax.train", "--help"]
    shown = " ".join(subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout.split())
    assert "--train.accumulate" in shown and "Batches of one update." in shown
    assert "Length that a longer gradient" in shown and "A Python file whose get_config()" in shown
