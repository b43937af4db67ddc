"""Files that appear whole or not at all, their names and hashes, and JSON that may be broken."""

import contextlib
import hashlib
import itertools
import json
import math
import os
import re
import tempfile
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from uniaudio_jax.paths import IN_BUCKET, Place, check_reachable, to_place, upload

MOST_NAME_BYTES = 100
"""Of a name made out of data: an ending and the mark of a partial file still fit beside it on every file system."""
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
"""Names that Windows gives to devices."""
ADDRESS = re.compile(r"(^|:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)
"""Of remote storage, alone or after FORMAT:."""


@contextlib.contextmanager
def atomic_write(path: str | Place) -> Iterator[Path]:
    """Yields the path of a partial file beside `path`, which takes that name when the block ends without an error.

    The folder is made where it is missing. After an error the partial file is removed and `path` is as it was. For an
    address in a bucket the partial file is on this machine.
    """
    path = to_place(path)
    if not isinstance(path, Path):
        with tempfile.TemporaryDirectory() as folder:
            yield (partial := Path(folder) / path.name)
            upload(partial, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | Place, value: Any) -> None:
    """Writes `value` as a JSON file by `atomic_write`; JSON has no NaN and no infinity, so these become null."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def read_json(path: str | Place, wanted: str, keys: Collection[str] = (), kind: type = dict) -> Any:
    """The JSON value in a file, by default an object, with these keys.

    wanted: what the file should be, and what to do where it is not. Raises ValueError with it that names the file.
    """
    path = to_place(path)
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


def safe_name(text: str, taken: Collection[str] = ()) -> str:
    """A file's name, without ending, made of any text, such as a clip's id; its `name_key` is not in `taken`.

    Letters and digits of every script, - and _ stay, any other character becomes _, so that no text leads out of a
    folder. Of a long text the end is kept. A name that is taken gets a number: clip-2.
    """
    normal = unicodedata.normalize("NFKC", text)
    plain = "".join(c if c in "-_" or unicodedata.category(c)[0] in "LMN" else "_" for c in normal)
    name = plain.encode()[-MOST_NAME_BYTES:].decode(errors="ignore").strip("-_") or "unnamed"
    name += "_" if name.lower() in RESERVED else ""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([name], numbered) if name_key(candidate) not in taken)


def name_key(name: str) -> str:
    """What is equal for two file names that, without their endings, are one name to some file system."""
    return _folded(name.split(".")[0])


def _folded(name: str) -> str:
    """What is equal for names that differ in capitals, or in the code points of a letter."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def check_name(option: str, name: str) -> None:
    """Raises ValueError unless `name` is that of a folder directly below another, and not a hidden one."""
    if not name or name.startswith(".") or not name.isprintable() or set(name) & set("/\\"):
        raise ValueError(
            f"{option}: got {name!r}, wanted the plain name of a folder, without / or \\ and with no dot in front; "
            f"give one, such as {safe_name(name)!r}"
        )


def check_local(option: str, place: str | Place, wanted: str = "a path on this machine") -> None:
    """Raises ValueError for the address of remote storage, such as gs://bucket/folder."""
    text = str(place).replace(":/", "://", 1) if isinstance(place, Path) else str(place)
    if ADDRESS.search(text):
        raise ValueError(
            f"{option}: got {text}, an address of remote storage, wanted {wanted}; copy what is there, or mount it as "
            "a folder"
        )


def check_place(option: str, place: str | Place) -> None:
    """Raises ValueError for an address of remote storage, but for that of a bucket that can be reached."""
    if not isinstance(place, Path) and IN_BUCKET.match(str(place)):
        check_reachable(option, to_place(place))
    else:
        check_local(option, place, "a path on this machine, gs://BUCKET/… or s3://BUCKET/…")


def check_folder(option: str, folder: Place) -> None:
    """Raises ValueError where `folder` is no folder and cannot become one, or cannot be written into."""
    if not isinstance(folder, Path):
        return  # a bucket has no folders, and says of a file whether it may be written
    nearest = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        got = "a folder that may not be written into" if nearest.is_dir() else "a file"
        raise ValueError(f"{option} {folder}: {nearest} is {got}, wanted a folder for the results; name another")


def output_paths(sources: Sequence[Path], out: Path, ending: str) -> list[Path]:
    """OUT/<stem><ending> for each source. Raises ValueError where two sources would be written into one file."""
    first: dict[str, Path] = {}
    paths = [out / f"{source.stem}{ending}" for source in sources]
    for source, path in zip(sources, paths, strict=True):
        key = _folded(path.name)
        if key in first:
            raise ValueError(
                f"{path}: got several files of this name, {first[key]} and {source}; wanted different names, use a "
                "different --out for each"
            )
        first[key] = source
    return paths
