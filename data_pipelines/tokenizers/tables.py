"""Tables that ship with the tokenizers, as text files of the folder `shipped`."""

from pathlib import Path

SHIPPED = Path(__file__).parent / "shipped"


def read_list(name: str) -> tuple[str, ...]:
    """The lines of a shipped file; an id is the position of a line, so that only the end of a file may grow."""
    return tuple((SHIPPED / name).read_text(encoding="utf-8").splitlines())


def read_pairs(name: str) -> dict[str, str]:
    """First → second column of a shipped file of two columns, separated by a tab."""
    pairs = {}
    for line in read_list(name):
        first, second = line.split("\t")
        pairs[first] = second
    return pairs
