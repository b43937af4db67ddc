"""Benchmarks whose ratios are measured side by side in one process.

    python -m uniaudio_jax.bench train|generate|codec|data|plan|builder|learning|patterns|interference|soak|judges

prints a table and saves its numbers as JSON in --out. A bench that finds faults ends with exit code 1.
"""

import json
import os
import platform
from types import ModuleType
from typing import Any

import tyro

from uniaudio_jax.bench import (
    builder,
    codec,
    data,
    generate,
    interference,
    judges,
    learning,
    patterns,
    plan,
    soak,
    train,
)
from uniaudio_jax.bench.options import BenchOptions
from uniaudio_jax.cli import checked, main_guard
from uniaudio_jax.files import atomic_write, check_folder
from uniaudio_jax.metrics.tables import markdown_table

BENCHES: dict[str, ModuleType] = {
    "train": train,
    "generate": generate,
    "codec": codec,
    "data": data,
    "plan": plan,
    "builder": builder,
    "learning": learning,
    "patterns": patterns,
    "interference": interference,
    "soak": soak,
    "judges": judges,
}
"""Each has a dataclass `Options`, and a function `run` that takes it and returns the numbers."""


def to_text(name: str, result: dict[str, Any]) -> str:
    """The numbers of a benchmark as lines of a table."""
    lines = [f"bench {name}" + (f" ({result['rounds']} rounds)" if "rounds" in result else "")]
    for rival, rate in result.get("rates", {}).items():
        ratio = result["ratios"].get(rival)
        comparison = f"ours is {ratio['median']:.2f}x ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else "ours"
        lines.append(f"  {rival:<28}{rate:>12.1f} {result['unit']:<12}{comparison}")
    if variants := result.get("variants"):
        keys = next(iter(variants.values()))
        rows = [[key, *(f"{numbers[key]:.5g}" for numbers in variants.values())] for key in keys]
        lines.append(markdown_table(["", *variants], rows))
    if table := result.get("table"):
        rows = [[name, *map(_cell, numbers.values())] for name, numbers in table.items()]
        lines.append(markdown_table(["", *next(iter(table.values()))], rows))
    lines += [f"\n{title}\n\n{table}\n" for title, table in result.get("tables", {}).items()]
    in_table = {
        "unit",
        "rates",
        "ratios",
        "rounds",
        "variants",
        "table",
        "curves",
        "tables",
        "details",
        "machine",
        "faults",
    }
    lines += [f"  {key}: {value}" for key, value in result.items() if key not in in_table]
    if "faults" in result:
        lines += [f"  fault: {fault}" for fault in result["faults"]] or ["  no fault"]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    options_of = {name: bench.Options for name, bench in BENCHES.items()}
    with main_guard():
        options: BenchOptions = checked(tyro.extras.subcommand_cli_from_dict(options_of, description=__doc__))
        check_folder("--out", options.out)
        name = next(name for name, kind in options_of.items() if isinstance(options, kind))
        result = BENCHES[name].run(options)
        result["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
        print(to_text(name, result))
        with atomic_write(options.out / f"{name}.json") as path:
            path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        if result.get("faults"):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
