"""Optional packages, imported where they are needed."""

import contextlib
import importlib
import importlib.metadata
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any


def load_package(name: str, wanted_by: str, install: str) -> Any:
    """The module of this name. Raises ValueError where its package is missing, or is there and does not load.

    wanted_by: what needs it; install: the command that installs it.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise ValueError(f"{wanted_by}: got no package {package}, wanted it; run `{install}`") from error
        raise _broken(package, wanted_by, install, error) from error
    except Exception as error:  # an import runs the package's code, such as the loading of its library
        raise _broken(package, wanted_by, install, error) from error


@contextlib.contextmanager
def stand_in(name: str, **contents: Any) -> Iterator[None]:
    """Puts a module with these contents in place of one that a package imports and, for what we use of it, does not
    need.

    Until the block ends, so that others still find that there is none. What the package warns of when it is imported is
    its own business.
    """
    before, module = sys.modules.get(name), ModuleType(name)
    module.__dict__.update(contents)
    sys.modules[name] = before or module
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if before is None:
            del sys.modules[name]


def load_world(wanted_by: str) -> Any:
    """The module pyworld, which asks pkg_resources for its own version; newer setuptools lack that."""
    if world := sys.modules.get("pyworld"):
        return world
    with stand_in("pkg_resources", get_distribution=importlib.metadata.distribution):
        return load_package("pyworld", wanted_by, "pip install --no-deps pyworld==0.3.5")


def _broken(package: str, wanted_by: str, install: str, error: Exception) -> ValueError:
    return ValueError(
        f"{wanted_by}: the package {package} is installed, but importing it fails ({type(error).__name__}: {error}); "
        f"mend it, or install it again with `{install}`"
    )
