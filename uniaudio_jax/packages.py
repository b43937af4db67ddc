"""Optional packages, imported where they are needed."""

import importlib
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


def _broken(package: str, wanted_by: str, install: str, error: Exception) -> ValueError:
    return ValueError(
        f"{wanted_by}: the package {package} is installed, but importing it fails ({type(error).__name__}: {error}); "
        f"mend it, or install it again with `{install}`"
    )
