"""Files that appear whole or not at all, their hashes, and JSON that may be broken."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields the path of a partial file beside `path`, which takes that name when the block ends without an error.

    The folder is made where it is missing. After an error the partial file is removed and `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as a JSON file by `atomic_write`; JSON has no NaN and no infinity, so these become null."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path, wanted: str, keys: Collection[str] = (), kind: type = dict) -> Any:
    """The JSON value in a file, by default an object, with these keys.

    wanted: what the file should be, and what to do where it is not. Raises ValueError with it that names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: got no file, wanted {wanted}")
    return parse_json(path.read_bytes(), str(path), wanted, keys, kind)


def parse_json(text: str | bytes, where: str, wanted: str, keys: Collection[str] = (), kind: type = dict) -> Any:
    """As `read_json` for JSON text that stands at `where`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        raise ValueError(f"{where}: got text that is not JSON ({error}), wanted {wanted}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{where}: got a JSON {type(value).__name__}, wanted {wanted}")
    if missing := [key for key in keys if key not in value]:
        raise ValueError(f"{where}: got JSON without {', '.join(missing)}, wanted {wanted}")
    return value


def read_text(path: str | Path, wanted: str) -> str:
    """The text of a UTF-8 file, as `read_json`."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: got bytes that are not UTF-8 ({error}), wanted {wanted}") from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
