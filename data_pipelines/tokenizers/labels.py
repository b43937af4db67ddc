"""Names of sounds, instruments and moods as ids: the shipped list, or one of the user such as AudioSet's."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from data_pipelines.tokenizers.tables import read_list
from uniaudio_jax.errors import did_you_mean
from uniaudio_jax.vocab import CLASS_EVENTS

LABELS = read_list("labels.txt")
"""Sounds of people, machines, things, nature and animals, instruments, moods, and further ones."""


class LabelTokenizer:
    """Ids of class labels, at most 527, the slots of AudioSet's classes.

    names: a text file with one name a line, whose id is the line's position; by default `LABELS`.
    """

    name = "labels"
    size = CLASS_EVENTS

    def __init__(self, names: Path | None = None) -> None:
        self.names = LABELS if names is None else _read_names(names)
        self.sha256 = hashlib.sha256("\n".join(self.names).encode()).hexdigest()
        self._ids = {_key(name): number for number, name in enumerate(self.names)}

    def encode(self, labels: Sequence[str]) -> Int16[np.ndarray, " n"]:
        """The ids of labels, sorted and without repeats; capitals do not matter.

        Raises ValueError for an empty list, and for labels without an id.
        """
        if isinstance(labels, str) or not labels:
            raise ValueError(f"LabelTokenizer.encode: got labels {labels!r}, wanted a list of at least one name")
        for label in labels:
            if _key(label) not in self._ids:
                raise ValueError(
                    f"LabelTokenizer.encode: got label {label!r}, wanted one of the {len(self.names)} "
                    f"names{did_you_mean(_key(label), self._ids)}"
                )
        return np.array(sorted({self._ids[_key(label)] for label in labels}), np.int16)

    def decode(self, ids: Sequence[int] | Int16[np.ndarray, " n"]) -> list[str]:
        """The names of `ids`. Raises ValueError for an id that has no name."""
        if bad := [int(number) for number in ids if not 0 <= number < len(self.names)]:
            raise ValueError(f"LabelTokenizer.decode: got ids {bad[:5]}, wanted 0 to {len(self.names) - 1}")
        return [self.names[number] for number in ids]


def _key(name: str) -> str:
    return " ".join(name.casefold().split())


def _read_names(path: Path) -> tuple[str, ...]:
    """The names in a file. Raises ValueError for an empty file, too many names, an empty line, and a repeated name."""
    try:
        text = path.read_text(encoding="utf-8-sig").rstrip()
        lines = text.split("\n") if text else []
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: got a file that cannot be read ({error}), wanted a UTF-8 text with one name a line"
        ) from error
    if not 1 <= len(lines) <= CLASS_EVENTS:
        raise ValueError(f"{path}: got {len(lines)} names, wanted 1 to {CLASS_EVENTS}, one a line")
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if (first := seen.setdefault(_key(line), number)) != number or not _key(line):
            raise ValueError(
                f"{path}:{number}: got {line!r}{f' again (line {first})' if _key(line) else ''}, wanted "
                "another name on each line"
            )
    return tuple(line.strip() for line in lines)
