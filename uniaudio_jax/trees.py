"""Trees of arrays as flat dicts of dotted names, and the check of such a dict against the names and shapes wanted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

WIDENED = ("float32", "float16", "bfloat16")
"""Types whose values are all float32 values."""


def flatten(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """Dotted name → leaf of nested dicts, such as "global.norm.scale"."""
    return {".".join(map(str, path)): leaf for path, leaf in traverse_util.flatten_dict(tree).items()}


def unflatten(flat: Mapping[str, Any]) -> dict[Any, Any]:
    """The inverse of `flatten`; a name made of digits is an index, as in a pure dict of a list of modules."""
    paths = {tuple(int(key) if key.isdigit() else key for key in name.split(".")): leaf for name, leaf in flat.items()}
    return traverse_util.unflatten_dict(paths)


def check_arrays(
    where: str,
    arrays: Mapping[str, np.ndarray],
    wanted: Mapping[str, tuple[int, ...]],
    remedy: str,
    types: tuple[str, ...] = ("float32",),
) -> None:
    """Raises one ValueError that lists every array that is missing, surplus, or of another shape or type.

    types: the types that can be read as float32.
    """
    problems = [f"{name}: missing, wanted float32 {shape}" for name, shape in wanted.items() if name not in arrays]
    for name, array in arrays.items():
        if name not in wanted:
            problems.append(f"{name}: surplus, got {array.dtype} {array.shape}")
        elif array.shape != wanted[name] or array.dtype.name not in types:
            problems.append(f"{name}: wanted float32 {wanted[name]}, got {array.dtype} {array.shape}")
    if problems:
        raise ValueError(f"{where}: {len(problems)} arrays do not fit; {remedy}\n  " + "\n  ".join(problems))
