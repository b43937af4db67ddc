"""Spoilt copies of files: what a broken disk, a cut download or another program's idea of a format makes of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WORDS = (
    "",
    "\x00",
    "\ud800",
    "\u2028",
    "../up",
    "/abs",
    "a/b",
    "x" * 300,
    "世界",
    "NaN",
    "con",
    "-o",
    "s' " * 7,
    "🎵",
    " ",
)
VALUES = (None, True, -1, 0, 1e300, float("nan"), float("inf"), 2**70, [], {}, [[]], {"id": {}}, [None, 3], *WORDS)


def pick(rng: np.random.Generator, items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def flip(data: bytearray, rng: np.random.Generator, first: int, last: int) -> bytearray:
    """A few bytes between two places are others."""
    for _ in range(int(rng.integers(1, 9))):
        if first < (stop := min(last, len(data))):
            data[int(rng.integers(first, stop))] = int(rng.integers(256))
    return data


def noise(data: bytearray, rng: np.random.Generator) -> bytearray:
    """2 kB of noise in its middle."""
    middle = len(data) // 2
    data[middle : middle + 2048] = rng.bytes(2048)
    return data


BYTES: tuple[Callable[[bytearray, np.random.Generator], bytearray], ...] = (
    lambda data, rng: flip(data, rng, 0, 64),
    lambda data, rng: flip(data, rng, 64, len(data)),
    lambda data, rng: data[: int(rng.integers(len(data) + 1))],
    lambda data, rng: data[:40],
    lambda data, rng: bytearray(),
    lambda data, rng: bytearray(rng.bytes(701)),
    lambda data, rng: data + rng.bytes(1009),
    lambda data, rng: data[int(rng.integers(1, 50)) :],
    noise,
)


def spoil_bytes(path: Path, rng: np.random.Generator) -> None:
    """Changes a file as a disk or a copy that broke off would."""
    path.write_bytes(pick(rng, BYTES)(bytearray(path.read_bytes()), rng))


def spoil_value(value: Any, rng: np.random.Generator) -> Any:
    """The JSON value with one of its parts exchanged, taken away or added."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = pick(rng, sorted(value))
        act = rng.random()
        if act < 0.2:
            return {name: item for name, item in value.items() if name != key}
        if act < 0.3:
            return value | {pick(rng, WORDS): pick(rng, VALUES)}
        return value | {key: spoil_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = int(rng.integers(len(value)))
        return [*value[:place], spoil_value(value[place], rng), *value[place + 1 :]]
    return pick(rng, VALUES)


def spoil_json(path: Path, rng: np.random.Generator) -> None:
    """Changes one value in a JSON file, or in one line of a JSONL file."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    place = int(rng.integers(len(lines)))
    lines[place] = json.dumps(spoil_value(json.loads(lines[place]), rng))
    path.write_text("\n".join(lines) + "\n")


def spoil_text(path: Path, rng: np.random.Generator) -> None:
    """Changes one line of a text file."""
    lines = path.read_text().split("\n")
    place = int(rng.integers(len(lines)))
    words = lines[place].split(" ")
    words[int(rng.integers(len(words)))] = str(pick(rng, VALUES))
    act = rng.random()
    lines[place : place + 1] = [" ".join(words)] if act < 0.6 else [] if act < 0.8 else [lines[place], lines[place]]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))


def spoil(path: Path, rng: np.random.Generator) -> None:
    """Changes a file in a way that suits it, or just its bytes."""
    if path.suffix in (".json", ".jsonl") and rng.random() < 0.7:
        spoil_json(path, rng)
    elif (path.suffix in (".py", ".csv", ".scp") or path.name in ("text", "utt2spk")) and rng.random() < 0.7:
        spoil_text(path, rng)
    else:
        spoil_bytes(path, rng)
