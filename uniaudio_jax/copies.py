"""Folders of this machine that stand for folders in buckets, for packages that read and write local files alone."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from etils import epath
from tqdm import tqdm

from uniaudio_jax.files import atomic_write
from uniaudio_jax.paths import Place, download, upload

AT_ONCE = 8
"""Files that are copied at the same time."""


def cache_folder() -> Path:
    """UNIAUDIO_CACHE (default ~/.cache/uniaudio_jax): compiled programs, and copies of what lies in buckets."""
    return Path(os.environ.get("UNIAUDIO_CACHE") or Path.home() / ".cache" / "uniaudio_jax")


def local_copy(folder: Place, sizes: Mapping[str, int], version: str) -> Path:
    """`folder` itself, or the copy of one in a bucket, made now of the files that are not there yet.

    sizes: bytes of each file that is needed, by its name relative to `folder`. version: a text that is another one when
    the folder holds other files. A copied file appears whole; the processes of one host share the copies. Raises
    OSError where there is no room, or the bucket cannot be read.
    """
    if isinstance(folder, Path):
        return folder
    digest = hashlib.sha256(f"{folder} {version}".encode()).hexdigest()[:16]
    copy = cache_folder() / "buckets" / digest
    with _alone(copy):
        missing = {name: size for name, size in sizes.items() if not _is_whole(copy / name, size)}
        needed, free = sum(missing.values()), shutil.disk_usage(copy).free
        if needed > free:
            raise OSError(
                f"{folder}: its copy in {copy} needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free; make room "
                "there, or name another folder with UNIAUDIO_CACHE"
            )
        _fetch(folder, copy, missing)
    return copy


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process of this host fills `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(folder: epath.Path, copy: Path, sizes: Mapping[str, int]) -> None:
    """Copies these files, several at once, under a progress bar."""

    def fetch(name: str) -> int:
        with atomic_write(copy / name) as partial:
            download(folder / name, partial)
            if (got := partial.stat().st_size) != sizes[name]:
                raise OSError(f"{folder / name}: got {got} bytes, wanted {sizes[name]}; start the command again")
        return sizes[name]

    bar = tqdm(total=sum(sizes.values()), unit="B", unit_scale=True, desc=f"copying {folder}", disable=not sizes)
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        with bar:
            for size in pool.map(fetch, sizes):
                bar.update(size)
    finally:
        pool.shutdown(cancel_futures=True)


def folder_here(run: Place) -> Path:
    """The folder of a run, or one on this machine that stands for it where it is in a bucket."""
    if isinstance(run, Path):
        return run
    digest = hashlib.sha256(str(run).encode()).hexdigest()[:16]
    return cache_folder() / "buckets" / digest / run.name


class Spool:
    """A run's folder for what its metric sinks write: `folder` is that of the run, or stands for one in a bucket.

    There `upload` must be called, as files of a bucket cannot grow: it copies those that have changed. What the bucket
    holds of SHARED is there from the beginning, but for event files of TensorBoard, which each start has its own of;
    whatever else a sink writes stays on this machine, in UNIAUDIO_CACHE.
    """

    FILES = ("metrics.jsonl", "sinks/*.json")
    GROWING = (*FILES, "tensorboard/*")

    def __init__(self, run: Place):
        self.run, self.folder = run, folder_here(run)
        if isinstance(run, Path):
            return
        self._uploaded: dict[Path, tuple[int, int]] = {}
        for path in self._growing():
            path.unlink()
        for place in [place for pattern in self.FILES for place in run.glob(pattern)]:
            with atomic_write(self.folder / place.relative_to(run).as_posix()) as partial:
                download(place, partial)

    def upload(self) -> None:
        """Copies what has changed since the last time into the bucket. Raises OSError where that fails."""
        if isinstance(self.run, Path):
            return
        for path in self._growing():
            stat = path.stat()
            state = stat.st_size, stat.st_mtime_ns
            if self._uploaded.get(path) != state:
                upload(path, self.run / path.relative_to(self.folder).as_posix())
                self._uploaded[path] = state

    def _growing(self) -> list[Path]:
        return [path for pattern in self.GROWING for path in self.folder.glob(pattern) if path.is_file()]
