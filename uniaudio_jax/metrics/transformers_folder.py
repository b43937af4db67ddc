"""Models of the package transformers out of folders that a user names."""

import functools
from typing import Any

from uniaudio_jax.packages import load_package

INSTALL = "bash launch/install.sh judges"


@functools.cache
def open_folder(folder: str, preparer: str, network: str, metric: str) -> tuple[Any, Any]:
    """What prepares the inputs of a model, and the model, by the names of their classes; nothing is downloaded."""
    package = load_package("transformers", f"metric {metric}", INSTALL)
    prepare, model = (
        getattr(package, name).from_pretrained(folder, local_files_only=True) for name in (preparer, network)
    )
    return prepare, model.eval()
