"""Metrics as lines of strict JSON in RUN/metrics.jsonl."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uniaudio_jax.files import atomic_write
from uniaudio_jax.paths import Place
from uniaudio_jax.sinks.base import Sink

FILE = "metrics.jsonl"


class JsonlSink(Sink):
    """One JSON object a line, with its step; a value that is not finite is null. Lines after `last_step` go."""

    def __init__(self, run: Path, last_step: int):
        path = run / FILE
        kept = [line for line in read_metrics(path) if line["step"] <= last_step] if last_step else []
        with atomic_write(path) as partial:
            partial.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in kept))
        self._lines = path.open("a")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        numbers = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **numbers}, allow_nan=False) + "\n")
        self._lines.flush()

    def close(self) -> None:
        self._lines.close()


def read_metrics(path: Place) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, in order; one that a kill has torn is left out, and what is no number is None."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_bytes().split(b"\n"):
        try:
            lines.append(json.loads(line, parse_constant=lambda _: None))
        except ValueError:  # no JSON, or cut within a character
            continue
    return lines
