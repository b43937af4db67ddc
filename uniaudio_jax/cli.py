"""What every entry point shares: how the command line is read and checked, and how a user's mistake is told."""

import contextlib
import dataclasses
import os
import sys
import traceback
import typing
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import jax
import tyro
from etils import epath

from uniaudio_jax.config_files import CONFIGS, load_config
from uniaudio_jax.copies import cache_folder
from uniaudio_jax.files import check_folder, check_local, check_place
from uniaudio_jax.interrupted import begin
from uniaudio_jax.leaving import leave
from uniaudio_jax.paths import Place

Options = TypeVar("Options")
FREE_TEXT = {"text", "language", "instruction", "licence", "source", "beam_options"}
"""Fields of options that hold words; every other string may name a place."""
IN_BUCKETS = {"root", "start_from"}
"""Fields of configs that hold a place, which may be in a bucket."""


@contextlib.contextmanager
def main_guard(kept: str = "files that are written stay whole; run the same command again") -> Iterator[None]:
    """Turns a ValueError or an OSError into `error: …` on standard error and exit code 2, and Ctrl-C into one line that
    says what is `kept` and exit code 130.

    Set UNIAUDIO_TRACEBACK=1 to see the whole traceback. One of several processes ends at once after any error.
    """
    try:
        begin()
        yield
    except KeyboardInterrupt:
        leave(130, f"\ninterrupted: {kept}")
    except Exception as error:
        if isinstance(error, ValueError | OSError) and not os.environ.get("UNIAUDIO_TRACEBACK"):
            leave(2, f"error: {error}")
        if jax.distributed.is_initialized():
            leave(1, traceback.format_exc())
        raise


def use_compile_cache() -> None:
    """Keeps compiled programs in UNIAUDIO_CACHE (default ~/.cache/uniaudio_jax), so that the next start is quick."""
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def parse(options: type[Options], description: str | None) -> Options:
    """The command line as `options`, checked. Raises ValueError as `checked` does, and for an --out that is no folder
    and cannot become one."""
    parsed: Any = checked(tyro.cli(options, description=description))
    if hasattr(parsed, "out"):
        check_folder("--out", parsed.out)
    return parsed


def checked(options: Options) -> Options:
    """The same options. Raises ValueError where one is the address of remote storage, at any depth, but for those that
    may be in a bucket, where that can be reached."""
    for name, place in _places(options):
        check = check_place if name in IN_BUCKETS or isinstance(place, epath.Path) else check_local
        check(name, place)
    return options


def _places(options: Any) -> Iterator[tuple[str, str | Place]]:
    """The name and value of every option that may be a place."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            yield from _places(value)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Place) or (isinstance(item, str) and field.name not in FREE_TEXT):
                yield field.name, item


def parse_with_config(options: type[Options], field: str, example: str, description: str | None) -> Options:
    """The command line as `options`, whose `field` starts from the config file that stands first on it.

    Without a config file (as with a lone --help) the help shows the defaults of `example`, a file of configs/.
    """
    kind = typing.get_type_hints(options)[field]
    words = sys.argv[1:]
    named = bool(words) and not words[0].startswith("-")
    if named:
        check_local("config", words[0])
    default = load_config(words[0] if named else CONFIGS / example, kind)
    needed = {one.name: tyro.MISSING_NONPROP for one in dataclasses.fields(cast(Any, options)) if _has_no_default(one)}
    start = options(**{**needed, field: default})
    parsed: Any = checked(tyro.cli(options, default=start, description=description, args=words))
    if hasattr(parsed, "out"):
        check_folder("--out", parsed.out)
    return parsed


def _has_no_default(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
