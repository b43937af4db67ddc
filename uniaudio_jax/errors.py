"""What errors about a user's input share."""

import difflib
from collections.abc import Iterable


def require(where: str, good: bool, got: str, wanted: str) -> None:
    """Raises ValueError with these words unless `good`."""
    if not good:
        raise ValueError(f"{where}: got {got}, wanted {wanted}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """An ending for an error about an unknown `name`: "; did you mean 'tts'?", or nothing when none is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else ""
