"""Trees of arrays as flat dicts of dotted names, and the check of such a dict against the names and shapes wanted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

SHOWN = 7
"""The most names that an error or a note lists."""
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
    """Raises one ValueError with the number and the first of the arrays that are missing, surplus, or of another shape
    or type.

    types: the types that can be read as float32.
    """
    problems = [f"{name}: missing, wanted float32 {shape}" for name, shape in wanted.items() if name not in arrays]
    for name, array in arrays.items():
        if name not in wanted:
            problems.append(f"{name}: surplus, got {array.dtype} {array.shape}")
        elif array.shape != wanted[name] or array.dtype.name not in types:
            problems.append(f"{name}: wanted float32 {wanted[name]}, got {array.dtype} {array.shape}")
    if problems:
        count, more = len(problems), [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise ValueError(f"{where}: {count} arrays do not fit; {remedy}\n  " + "\n  ".join(problems[:SHOWN] + more))
