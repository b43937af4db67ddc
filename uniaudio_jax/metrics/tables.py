"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The lines of a table; a row that is shorter than the head ends in empty cells."""
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [_line([*row, *[""] * (len(head) - len(row))]) for row in rows]
    return "\n".join(lines)


def cell(value: float | None, digits: int = 3) -> str:
    """A number with so many digits after the point; an empty cell for None."""
    return "" if value is None else f"{value:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
