"""Weights as files: safetensors, whole or in shards with an index as Hugging Face has them, and torch.save's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from uniaudio_jax.files import write_json
from uniaudio_jax.weight_files import read_weights

State = Mapping[str, np.ndarray]
METADATA = {"format": "pt"}
"""What readers of Hugging Face want to see in a file of a PyTorch model."""


def save_tensors(state: State, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file that others may read as any new file; the package leaves it to its owner alone."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(state), path, metadata or METADATA)
    path.chmod(mode)


def write_safetensors(state: State, folder: Path, shard_megabytes: int | None = None) -> None:
    """Writes model.safetensors, or several of at most `shard_megabytes` and model.safetensors.index.json; a larger
    tensor has a file of its own."""
    shards = [state] if shard_megabytes is None else _shards(state, shard_megabytes * 1_000_000)
    if len(shards) == 1:
        save_tensors(state, folder / "model.safetensors")
        read_back(folder / "model.safetensors", state)
        return
    names = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_tensors(shard, folder / file)
        names |= dict.fromkeys(shard, file)
    total = sum(array.nbytes for array in state.values())
    index = folder / "model.safetensors.index.json"
    write_json(index, {"metadata": {"total_size": total}, "weight_map": names})
    read_back(index, state)


def _shards(state: State, most_bytes: int) -> list[dict[str, np.ndarray]]:
    """The tensors in their order, as many in a shard as its size allows."""
    shards, size = [{}], 0
    for name, array in state.items():
        if shards[-1] and size + array.nbytes > most_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = array
        size += array.nbytes
    return shards


def write_torch(torch: Any, state: State, path: Path, key: str | None = None) -> None:
    """Writes a file of torch.save: the tensors, or a dict of them below `key`."""
    tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
    torch.save(tensors if key is None else {key: tensors}, path)
    read_back(path, state)


def read_back(path: Path, state: State) -> None:
    """Raises ValueError unless the file holds these tensors to the bit."""
    tensors = read_weights(path, state).tensors
    if tensors.keys() != state.keys() or any(not np.array_equal(tensors[name], state[name]) for name in state):
        raise ValueError(f"{path}: read back, its tensors are not those that were written; export again")
