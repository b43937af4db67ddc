"""Benchmarks with ratios measured side by side in one run.

    python -m uniaudio_jax.bench train|generate|codec|data|plan|builder

prints a table and saves its numbers as JSON in --out.
"""

import json
import os
import platform
from importlib import import_module
from pathlib import Path
from typing import Any

import tyro

from uniaudio_jax.bench.options import (
    BenchOptions,
    BuilderBench,
    CodecBench,
    DataBench,
    GenerateBench,
    PlanBench,
    TrainBench,
)
from uniaudio_jax.cli import main_guard

KINDS: dict[str, Any] = {
    "train": TrainBench,
    "generate": GenerateBench,
    "codec": CodecBench,
    "data": DataBench,
    "plan": PlanBench,
    "builder": BuilderBench,
}


def to_text(name: str, result: dict[str, Any]) -> str:
    """The result as lines of a table."""
    lines = [f"bench {name} ({result['rounds']} rounds)"]
    for rival, rate in result["rates"].items():
        ratio = result["ratios"].get(rival)
        beside = f"ours is {ratio['median']:.2f}x ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else "ours"
        lines.append(f"  {rival:<28}{rate:>12.1f} {result['unit']:<12}{beside}")
    known = {"unit", "rates", "ratios", "rounds", "machine", "options"}
    return "\n".join(lines + [f"  {key}: {value}" for key, value in result.items() if key not in known])


def main() -> None:
    options: BenchOptions = tyro.extras.subcommand_cli_from_dict(KINDS, description=__doc__)
    name = next(name for name, kind in KINDS.items() if isinstance(options, kind))
    with main_guard():
        result = import_module(f"uniaudio_jax.bench.{name}").run(options)
        result["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.json").write_text(json.dumps(result, indent=1))
        print(to_text(name, result))


if __name__ == "__main__":
    main()
