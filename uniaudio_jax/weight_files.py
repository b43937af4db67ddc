"""The weights of one model out of a file that may hold more: optimizer state, options, averages, under any prefix."""

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from uniaudio_jax.files import read_json
from uniaudio_jax.torch_files import Contents, read_torch
from uniaudio_jax.trees import SHOWN

SHARD = re.compile(r"(.+-)([0-9]+)(-of-([0-9]+)\..+)")
"""The name of a file of one part of the weights, such as model-00001-of-00003.safetensors."""
INDEX = ".index.json"
"""How the name of a JSON ends that says which tensor is in which shard beside it."""


class Weights(NamedTuple):
    """Tensors by the names that the model knows, and a sentence on where they stood and what was passed over."""

    tensors: dict[str, np.ndarray]
    note: str


def read_weights(path: Path, wanted: Collection[str]) -> Weights:
    """The tensors of a .safetensors file, or of one of torch.save, under the prefix that most `wanted` names share.

    All tensors that stand with those under the prefix are returned, also ones that are not wanted. Where several
    prefixes fit equally well, the first in the file is taken. With one of several shards the others beside it are read
    as well, with an index those that it names; float64 is rounded to float32. Raises ValueError that names the file
    where it cannot be read or has no such name.
    """
    shards = _shards(path)
    contents = Contents({}, {}, {})
    for shard in shards:
        part = _read_safetensors(shard) if shard.suffix == ".safetensors" else read_torch(shard)
        contents.tensors.update(part.tensors)
        contents.holders.update(part.holders)
        contents.kinds.update(part.kinds)
    prefixes = _prefixes(contents.tensors, frozenset(wanted))
    if not prefixes:
        raise ValueError(
            f"{path}: got {len(contents.tensors)} tensors ({_some(contents.tensors)}), wanted some of the names "
            f"{_some(wanted)}; give the weights of such a model"
        )
    prefix, *fitting = [name for name, count in prefixes.items() if count == max(prefixes.values())]
    holders = {contents.holders[f"{prefix}{name}"] for name in wanted if f"{prefix}{name}" in contents.holders}
    names = [name for name, holder in contents.holders.items() if holder in holders and name.startswith(prefix)]
    notes = [_note(contents, names, prefix, fitting)]
    if len(shards) > 1:
        notes.append(f"read with the other shards beside it, {len(shards)} in all")
    if doubles := [name for name in names if contents.tensors[name].dtype == np.float64]:
        notes.append(f"rounded {len(doubles)} of {len(names)} tensors from float64 to float32")
        with np.errstate(over="ignore"):
            contents.tensors.update({name: contents.tensors[name].astype(np.float32) for name in doubles})
    tensors = {name.removeprefix(prefix): contents.tensors[name] for name in names}
    return Weights(tensors, "; ".join(filter(None, notes)))


def _shards(path: Path) -> list[Path]:
    """The files of the weights that `path` is of: itself, or all shards. Raises ValueError where one is not there."""
    paths = [path]
    if path.name.endswith(INDEX):
        paths = _indexed(path)
    elif match := SHARD.fullmatch(path.name):
        start, number, end, count = match.groups()
        paths = [path.with_name(f"{start}{part:0{len(number)}}{end}") for part in range(1, int(count) + 1)]
    missing = [shard.name for shard in paths if not shard.is_file()]
    if len(paths) > 1 and missing:
        raise ValueError(
            f"{path}: one of {len(paths)} shards, of which {len(missing)} are not beside it ({_some(missing)}); put "
            "them there"
        )
    if missing:
        raise ValueError(f"{path}: no such file; wanted weights, a .pth, .pt, .th, .bin or .safetensors file")
    return paths


def _indexed(path: Path) -> list[Path]:
    """The shards that an index names. Raises ValueError for names that are not those of files beside it."""
    wanted = "the index of shards, with their names in weight_map; copy or download it again"
    named = read_json(path, wanted, ("weight_map",))["weight_map"]
    names = sorted(set(map(str, named.values()))) if isinstance(named, dict) else []
    if not names or any(Path(name).name != name or not name.strip(".") for name in names):
        raise ValueError(f"{path}: got a weight_map that names {names[:SHOWN] or 'no files'}, wanted {wanted}")
    return [path.with_name(name) for name in names]


def _read_safetensors(path: Path) -> Contents:
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}); copy or download it again") from error
    return Contents(tensors, dict.fromkeys(tensors, ""), {})


def _prefixes(names: Collection[str], wanted: frozenset[str]) -> Counter[str]:
    """How many of `names` are a wanted name behind each prefix, in the order of `names`; a prefix ends with a dot."""
    prefixes: Counter[str] = Counter()
    for name in names:
        starts = [0, *(at + 1 for at, letter in enumerate(name) if letter == ".")]
        prefixes.update(name[:start] for start in starts if name[start:] in wanted)
    return prefixes


def _note(contents: Contents, taken: list[str], prefix: str, fitting: list[str]) -> str:
    """Such as "taken from model; ema fits as well; passed over: ema (3 tensors), epoch (int)"."""
    inside = {ancestor for name in taken for ancestor in _ancestors(name)}
    passed: Counter[str] = Counter()
    for name in [*contents.kinds, *contents.tensors]:
        outermost = next((ancestor for ancestor in _ancestors(name) if ancestor not in inside), None)
        if name and outermost is not None:
            passed[outermost] += name in contents.tensors
    parts = [f"taken from {prefix.rstrip('.')}"] if prefix else []
    parts += [f"{name.rstrip('.') or 'what has no prefix'} fits as well" for name in fitting]
    if passed:
        shown = [_described(name, contents.kinds.get(name), count) for name, count in passed.items()]
        parts.append(f"passed over: {_some(shown)}")
    return "; ".join(parts)


def _described(name: str, kind: str | None, tensors: int) -> str:
    count = "1 tensor" if tensors == 1 else f"{tensors} tensors"
    return f"{name} ({count if tensors else kind})"


def _ancestors(name: str) -> list[str]:
    """ "a", "a.b" and "a.b.c" of "a.b.c"."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _some(names: Collection[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join([*names][:SHOWN]) + (f" and {more} more" if more > 0 else "")
