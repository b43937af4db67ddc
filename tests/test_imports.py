"""The import rule: config, vocab, tasks, sequence ← codec, model, sharding ← data_pipelines ← entry points."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
BASE = {"config", "vocab", "tasks", "sequence"}
ENTRY_POINTS = {"train", "generate", "evaluate", "export_torch", "import_torch", "bench", "run"}
COMMANDS = {"train", "generate", "evaluate", "export_torch", "import_torch"}


def imports(path: Path) -> set[str]:
    """Our own modules that a file imports, as dotted names; inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return {name for name in found if name.split(".")[0] in ("uniaudio_jax", "data_pipelines", "tests", "configs")}


def files(folder: str) -> list[Path]:
    return sorted((REPO / folder).rglob("*.py"))


@pytest.mark.parametrize("name", sorted(BASE))
def test_the_base_imports_nothing_but_itself(name):
    for imported in imports(REPO / "uniaudio_jax" / f"{name}.py"):
        assert imported.split(".")[1] in BASE, imported


@pytest.mark.parametrize("folder", ["uniaudio_jax/codec", "uniaudio_jax/model"])
def test_codec_and_model_import_no_data_and_no_entry_point(folder):
    for path in files(folder):
        for imported in imports(path):
            assert not imported.startswith("data_pipelines"), f"{path} imports {imported}"
            assert imported.split(".")[1] not in ENTRY_POINTS, f"{path} imports {imported}"


def test_data_pipelines_import_no_entry_point():
    for path in files("data_pipelines"):
        for imported in imports(path):
            own = imported.split(".")[0] == "data_pipelines"
            assert own or imported.split(".")[1] not in ENTRY_POINTS, f"{path} imports {imported}"


def test_nothing_imports_a_command():
    for path in files("uniaudio_jax") + files("data_pipelines"):
        for imported in imports(path):
            own = imported.split(".")[0] == "uniaudio_jax"
            assert not own or imported.split(".")[1] not in COMMANDS, f"{path} imports {imported}"


def test_only_sharding_names_a_mesh_axis():
    for path in files("uniaudio_jax"):
        if path.name != "sharding.py":
            assert "PartitionSpec" not in path.read_text(), path


def test_the_trainer_imports_no_torch_and_no_tensorflow():
    code = "import sys, uniaudio_jax.train; print({'torch', 'tensorflow', 'espeakng_loader'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
