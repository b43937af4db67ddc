"""Who may import whom: the base ← codec, model and the other rooms ← data_pipelines ← commands; no ring of rooms."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
BASE = {
    "config",
    "config_files",
    "checked",
    "vocab",
    "tasks",
    "sequence",
    "clock",
    "files",
    "errors",
    "packages",
    "paths",
    "copies",
}
PACKAGES = ("uniaudio_jax", "data_pipelines", "configs", "tests")
PRODUCT = sorted(path for package in PACKAGES[:3] for path in (REPO / package).rglob("*.py"))


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    return ".".join(path.relative_to(REPO).with_suffix("").parts)


def is_command(path: Path) -> bool:
    return '__name__ == "__main__"' in path.read_text()


USERS = {f"uniaudio_jax.{name}" for name in ("bench", "demo", "evaluation", "run")}
"""What stands beside the commands: it uses everything."""
COMMANDS = {name_of(path) for path in PRODUCT if path.is_relative_to(REPO / "uniaudio_jax") and is_command(path)}


@functools.cache
def imports(path: Path) -> set[str]:
    """Our own modules that a file imports, as dotted names; inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}:{node.lineno}: wanted an absolute import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in PACKAGES}


def is_in(name: str, modules: set[str]) -> bool:
    """Whether a name is that of one of these modules, or of something inside one."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def files_of(room: str) -> list[Path]:
    return [path for path in PRODUCT if is_in(name_of(path), {room})]


def imports_of(paths: list[Path], modules: set[str]) -> list[str]:
    """`file imports name` for each import of these modules."""
    assert paths
    return [f"{name_of(path)} imports {name}" for path in paths for name in imports(path) if is_in(name, modules)]


@pytest.mark.parametrize("name", sorted(BASE))
def test_the_base_imports_nothing_but_itself(name):
    base = {f"uniaudio_jax.{module}" for module in BASE}
    files = files_of(f"uniaudio_jax.{name}")
    assert files and not [imported for file in files for imported in imports(file) if not is_in(imported, base)]


@pytest.mark.parametrize("room", ["uniaudio_jax.codec", "uniaudio_jax.model"])
def test_codec_and_model_import_no_data_no_run_and_no_command(room):
    """But for a command that lies in the folder, which nothing imports."""
    files = [path for path in files_of(room) if name_of(path) not in COMMANDS]
    assert not imports_of(files, COMMANDS | USERS | {"data_pipelines"})


def test_only_commands_benches_evaluation_and_the_run_import_data_pipelines():
    others = [path for path in files_of("uniaudio_jax") if not is_in(name_of(path), COMMANDS | USERS)]
    assert not imports_of(others, {"data_pipelines"})


def test_nothing_imports_a_command_of_uniaudio_jax():
    assert "uniaudio_jax.train" in COMMANDS
    assert not imports_of(PRODUCT, {name for name in COMMANDS if not is_in(name, USERS)})


def test_data_pipelines_import_no_bench_no_run_and_no_config_file():
    assert not imports_of(files_of("data_pipelines"), USERS | {"configs"})


def test_the_product_imports_no_tests():
    assert not imports_of(PRODUCT, {"tests"})


def test_no_rooms_import_each_other_in_a_ring():
    names = [name_of(path).split(".") for path in PRODUCT]
    rooms = {f"{package}.{room}" for package, room, *inside in names if inside}
    assert {"uniaudio_jax.codec", "uniaudio_jax.model", "data_pipelines.corpora"} <= rooms
    # A command stands last wherever it lies: nothing imports it.
    files = {room: [path for path in files_of(room) if name_of(path) not in COMMANDS] for room in rooms}
    graph = {room: {other for other in rooms - {room} if imports_of(files[room], {other})} for room in rooms}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the ring


def test_only_sharding_names_a_mesh_axis():
    for path in files_of("uniaudio_jax"):
        assert path.name == "sharding.py" or "PartitionSpec" not in path.read_text(), path


def test_no_line_escapes_the_formatter():
    for path in PRODUCT:
        lines = path.read_text().splitlines()
        assert not [f"{path}:{number}" for number, line in enumerate(lines, 1) if re.search(r"fmt: *(skip|off)", line)]


def test_the_trainer_and_the_export_import_no_torch_and_no_tensorflow():
    foreign = {"torch", "tensorflow", "espeakng_loader"}
    code = f"import sys, uniaudio_jax.train, uniaudio_jax.export_torch; print({foreign} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
