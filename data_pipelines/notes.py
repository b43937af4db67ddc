"""Notes: what a tokenizer leaves out of a clip without refusing it, counted, for the passport of the column."""

from collections import Counter

Notes = Counter[str]
"""What happened, in words that follow a number ("captions cut") → how often."""


def note(notes: Notes | None, what: str, count: int) -> None:
    """Adds to `notes`, if somebody takes any; what did not happen leaves no trace."""
    if notes is not None and count:
        notes[what] += count
