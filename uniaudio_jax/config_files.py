"""Configs out of Python files, and configs as JSON values and back."""

import contextlib
import dataclasses
import runpy
import sys
import traceback
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from uniaudio_jax.checked import misfit

Config = TypeVar("Config")
CONFIGS = Path(__file__).parents[1] / "configs"


def load_config(path: str | Path, kind: type[Config]) -> Config:
    """What `get_config()` of the Python file at `path` returns, which must be of this `kind`.

    The file may import the package `configs` from wherever it stands. Raises ValueError that names the file, and the
    line at which the file's own code failed.
    """
    path = Path(path)
    if not path.is_file():
        near = ", ".join(sorted(str(p) for p in path.parent.glob("*.py"))) if path.parent.is_dir() else "none"
        raise ValueError(f"{path}: no such config file; beside it: {near}")
    with _config_code(path):
        content = runpy.run_path(str(path))
    if "get_config" not in content:
        raise ValueError(f"{path}: no function get_config() in it; see configs/quickstart.py for the form")
    with _config_code(path):
        config = content["get_config"]()
    if not isinstance(config, kind):
        raise ValueError(
            f"{path}: get_config() returns a {type(config).__name__}, wanted a {kind.__name__}; "
            "`python -m uniaudio_jax.train` takes a RunConfig, `python -m uniaudio_jax.codec.train` a CodecTrainConfig"
        )
    return config


@contextlib.contextmanager
def _config_code(path: Path) -> Iterator[None]:
    """Finds `configs` while the block runs; its errors become ValueErrors with the last line of the file that ran."""
    added = {str(CONFIGS.parent)} - set(sys.path)
    sys.path.extend(added)
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, SyntaxError) and error.filename:
            place = f"{error.filename}:{error.lineno}"
        else:
            frames = traceback.extract_tb(error.__traceback__)
            place = ":".join([str(path), *[str(frame.lineno) for frame in frames if frame.filename == str(path)][-1:]])
        raise ValueError(f"{place}: {type(error).__name__}: {error}; mend the config file") from error
    finally:
        for folder in added:
            sys.path.remove(folder)


def to_dict(config) -> dict:
    """The config as plain JSON values."""
    return dataclasses.asdict(config)


def from_dict(kind: type[Config], values: Any, where: str) -> Config:
    """The inverse of `to_dict` for a dataclass of plain values and dataclasses.

    Raises ValueError that says `where` the values stand, for fields that `kind` does not have, lacks or refuses.
    """
    known = [field.name for field in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    if not isinstance(values, dict) or (surplus := sorted(values.keys() - set(known))):
        got = f"the fields {', '.join(surplus)}" if isinstance(values, dict) else repr(values)
        raise ValueError(
            f"{where}: got {got}, wanted a {kind.__name__} with {', '.join(known)}; use the version of uniaudio_jax "
            "that wrote it, or a newer one"
        )
    hints, fields = typing.get_type_hints(kind), {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            value = from_dict(hints[name], value, f"{where}, {name}")
        elif isinstance(value, list):  # JSON has no tuples
            value = tuple(value)
        if wrong := misfit(name, value, hints[name]):
            raise ValueError(f"{where}: {wrong}; copy the file again")
        fields[name] = value
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}; use the version of uniaudio_jax that wrote it") from error
