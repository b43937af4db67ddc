"""`python -m tests.size` prints the size of the project: lines by folder, tests against product, lengths of functions.

A line counts unless it is blank. A function's length is that of its whole definition, docstring included.
"""

import ast
from collections import Counter
from pathlib import Path

import numpy as np

REPO = Path(__file__).parents[1]
PRODUCT = ("uniaudio_jax", "data_pipelines", "configs", "launch")
SUFFIXES = (".py", ".sh", ".sbatch")


def sources(package: str) -> list[Path]:
    return sorted(path for path in (REPO / package).rglob("*") if path.suffix in SUFFIXES)


def count_lines(path: Path) -> int:
    """The lines of a file that are not blank."""
    return sum(bool(line.strip()) for line in path.read_text().splitlines())


def function_lengths(path: Path) -> list[int]:
    """The lines of every function of a Python file, from `def` to its end."""
    functions = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in functions]


def main() -> None:
    product = [path for package in PRODUCT for path in sources(package)]
    folders: Counter[str] = Counter()
    for path in product:
        folders[str(path.parent.relative_to(REPO))] += count_lines(path)
    for folder, lines in sorted(folders.items()):
        print(f"{lines:6}  {folder}")
    total, tests = folders.total(), sum(map(count_lines, sources("tests")))
    print(f"{total:6}  product\n{tests:6}  tests, {tests / total:.2f} of the product")
    lengths = [length for path in product if path.suffix == ".py" for length in function_lengths(path)]
    most = f"90 % have at most {np.percentile(lengths, 90):.0f} lines, the longest has {max(lengths)}"
    print(f"{len(lengths):6}  functions: {most}")


if __name__ == "__main__":
    main()
