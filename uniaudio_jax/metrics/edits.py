"""Error rates of sequences: edits over the length of the reference."""

from collections.abc import Sequence
from typing import Any


def edit_distance(reference: Sequence[Any], estimate: Sequence[Any]) -> int:
    """The fewest substitutions, deletions and insertions that make `reference` out of `estimate` (Levenshtein)."""
    row = list(range(len(estimate) + 1))
    for number, wanted in enumerate(reference, 1):
        before, row[0] = row[0], number
        for place, got in enumerate(estimate, 1):
            change = before + (wanted != got)
            before, row[place] = row[place], min(change, row[place] + 1, row[place - 1] + 1)
    return row[-1]


def error_rate(pairs: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> float:
    """Edits of all (reference, estimate) pairs over the length of all references; 0 is perfect, above 1 is possible."""
    total = sum(len(reference) for reference, _ in pairs)
    return sum(edit_distance(reference, estimate) for reference, estimate in pairs) / max(total, 1)
