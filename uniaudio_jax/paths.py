"""Places of files: paths on this machine, and addresses in buckets of Google Cloud Storage and Amazon S3.

A path on this machine is a `pathlib.Path`. gs://bucket/folder and s3://bucket/folder are `etils.epath.Path`s, which
have its methods and work through fsspec. A bucket has no folders, no locks and no appending; an object in it appears
whole.
"""

import contextlib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from etils import epath

from uniaudio_jax.errors import first_line
from uniaudio_jax.packages import load_package

Place = Path | epath.Path
AnyPlace = TypeVar("AnyPlace", Path, epath.Path, Place)
PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
"""Kinds of buckets by the scheme of their addresses, and the package that fsspec reads them with."""
IN_BUCKET = re.compile(rf"({'|'.join(PACKAGES)})://(?P<bucket>[^/]+)")
INSTALL = "bash launch/install.sh buckets"


def to_place(place: str | Place) -> Place:
    """The path on this machine, or the address in a bucket, that a text names."""
    if not isinstance(place, str):
        return place
    return epath.Path(place) if IN_BUCKET.match(place) else Path(place)


PlaceOption = Annotated[
    Place,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: to_place(words[0]),
        is_instance=lambda value: isinstance(value, Place),
        str_from_instance=lambda place: [str(place)],
    ),
]
"""An option of a command that may be in a bucket."""


def check_reachable(option: str, place: Place) -> None:
    """Raises ValueError for a place in a bucket that cannot be reached, or whose package is not installed."""
    if isinstance(place, Path):
        return
    if reason := _unreachable(option, str(place).partition("://")[0], _bucket_of(place)):
        raise ValueError(
            f"{option}: got {place}, but its bucket cannot be reached ({reason}); check its name, this machine's "
            "network and credentials"
        )


def _bucket_of(place: epath.Path) -> str:
    found = IN_BUCKET.match(str(place))
    assert found, place
    return found["bucket"]


@functools.cache
def _unreachable(option: str, scheme: str, bucket: str) -> str:
    """Why a bucket cannot be reached, or "" where it can. Raises ValueError where its package is not installed."""
    load_package(PACKAGES[scheme], f"{option}: {scheme}://", INSTALL)
    _forget_listings()
    try:
        system, path = _system(epath.Path(f"{scheme}://{bucket}"))
        return "" if system.exists(path) else "there is no such bucket, or it may not be read"
    except Exception as error:  # each package raises errors of its own for credentials and networks
        return first_line(error)


@functools.cache
def _forget_listings() -> None:
    """Makes fsspec ask anew for every listing of a bucket: TensorStore and other processes write there as well."""
    import fsspec.config

    for protocol in ("gs", "gcs", "s3"):
        fsspec.config.conf.setdefault(protocol, {})["use_listings_cache"] = False


def _system(place: epath.Path) -> tuple[Any, str]:
    """The file system of fsspec that a place is in, and its path there."""
    from fsspec.core import url_to_fs

    _forget_listings()
    return url_to_fs(str(place))


@contextlib.contextmanager
def told(place: Place, doing: str) -> Iterator[None]:
    """Turns the errors of a bucket's package, which are of many kinds, into an OSError of one line."""
    try:
        yield
    except Exception as error:
        raise OSError(
            f"{place}: {doing} failed: {type(error).__name__}: {first_line(error)}; start the command again when the "
            "bucket can be reached"
        ) from error


def absolute(place: AnyPlace) -> AnyPlace:
    """The place without links and relative parts; an address is that already."""
    return place.resolve() if isinstance(place, Path) else place


def file_sizes(folder: Place) -> dict[str, int]:
    """Bytes of each file directly in a folder, by name."""
    if isinstance(folder, Path):
        return {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    with told(folder, "listing it"):
        system, path = _system(folder)
        entries = system.ls(path, detail=True)
        return {Path(entry["name"]).name: entry["size"] for entry in entries if entry["type"] == "file"}


def upload(source: Path, place: epath.Path) -> None:
    """Copies a file of this machine into a bucket, where it appears whole."""
    with told(place, "writing it"):
        system, path = _system(place)
        system.put_file(str(source), path)


def download(place: epath.Path, target: Path) -> None:
    """Copies a file out of a bucket."""
    with told(place, "reading it"):
        system, path = _system(place)
        system.get_file(path, str(target))
