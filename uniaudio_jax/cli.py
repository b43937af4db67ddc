"""What every entry point shares: how a config file and its overrides are read, and how a user's mistake is told."""

import contextlib
import os
import sys
import typing
from collections.abc import Iterator
from typing import TypeVar

import jax
import tyro

from uniaudio_jax.config import CONFIGS, load_config

Options = TypeVar("Options")


@contextlib.contextmanager
def main_guard() -> Iterator[None]:
    """Turns a ValueError or an OSError into `error: …` on standard error and exit code 2.

    Set UNIAUDIO_TRACEBACK=1 to see the whole traceback.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if os.environ.get("UNIAUDIO_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def use_compile_cache() -> None:
    """Keeps compiled programs in UNIAUDIO_CACHE (default ~/.cache/uniaudio_jax), so that the next start is quick."""
    folder = os.environ.get("UNIAUDIO_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "uniaudio_jax")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def parse_with_config(options: type[Options], field: str, example: str, description: str | None) -> Options:
    """The command line as `options`, whose `field` starts from the config file that stands first on it.

    Without a config file (as with a lone --help) the help shows the defaults of `example`, a file of configs/.
    """
    kind = typing.get_type_hints(options)[field]
    words = sys.argv[1:]
    named = bool(words) and not words[0].startswith("-")
    default = load_config(words[0] if named else CONFIGS / example, kind)
    missing = tyro.MISSING_NONPROP
    start = options(**{"config": missing, "out": missing, field: default})
    return tyro.cli(options, default=start, description=description, args=words)
