"""The page: one HTML file that holds its style, its program, its pictures and its sounds."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from uniaudio_jax.evaluation.examples import ORIGINAL, RESYNTHESIS
from uniaudio_jax.evaluation.rows import ANOTHER, GENERATED, INPUT
from uniaudio_jax.metrics.registry import higher_is_better
from uniaudio_jax.packages import load_package
from uniaudio_jax.report.curves import draw
from uniaudio_jax.report.evaluations import Evaluated, equal_across_runs
from uniaudio_jax.report.examples import examples_of, samples_by_key
from uniaudio_jax.tasks import TASKS

INSTALL = "bash launch/install.sh report"
ROWS = (ORIGINAL, RESYNTHESIS, INPUT, GENERATED, ANOTHER)
"""The rows of a table of metrics, in their order; others follow."""


def to_html(runs: Sequence[Evaluated]) -> str:
    """The page about these runs. Raises ValueError where the package jinja2 is missing or a run's audio is damaged."""
    jinja2 = load_package("jinja2", "the report", INSTALL)
    folder = resources.files("uniaudio_jax.report") / "page"
    parts = {name: (folder / name).read_text(encoding="utf-8") for name in ("style.css", "page.js", "page.html")}
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    markup = load_package("markupsafe", "the report", INSTALL).Markup
    return environment.from_string(parts["page.html"]).render(
        style=markup(parts["style.css"]),
        program=markup(parts["page.js"]),
        style_hash=_hash(parts["style.css"]),
        program_hash=_hash(parts["page.js"]),
        runs=runs,
        tasks=[_task_view(runs, name) for name in _union(run.tasks for run in runs)],
        failed=[(run.letter, *item) for run in runs for item in run.record.get("failed", {}).items()],
        judges=[(name, _agreed(runs, "judges", name)) for name in _union(run.record.get("judges", {}) for run in runs)],
        datasets=[(name, _passports(runs, name)) for name in _union(run.meta.get("datasets", {}) for run in runs)],
    )


def _hash(text: str) -> str:
    """What the page's policy lets run or style: text of this hash alone."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:#.3g}" if abs(value) < 100 else f"{value:.0f}"


def _union(groups: Any) -> list[str]:
    """Every name once, in the order in which they come."""
    return list(dict.fromkeys(name for group in groups for name in group))


def _agreed(runs: Sequence[Evaluated], part: str, name: str) -> list[tuple[str, Any]]:
    return equal_across_runs((run.letter, run.record[part][name]) for run in runs if name in run.record.get(part, {}))


def _passports(runs: Sequence[Evaluated], name: str) -> list[tuple[str, dict[str, Any], float | None]]:
    """(letters, passport, hours that a training read of it) of one dataset."""
    having = [run for run in runs if name in run.meta.get("datasets", {})]
    pairs = [(run.letter, (run.meta["datasets"][name], run.meta.get("hours_seen", {}).get(name))) for run in having]
    return [(letters, *value) for letters, value in equal_across_runs(pairs)]


def _task_view(runs: Sequence[Evaluated], name: str) -> dict[str, Any]:
    """What the page says of one task."""
    having = [run for run in runs if name in run.tasks]
    metrics, rows = _metric_rows(having, name)
    keys = [set(samples_by_key(run, name)) for run in having]
    row = TASKS.get(name)
    return {
        "name": name,
        "title": name.replace("_", " "),
        "given": [stream.key.replace("_", " ") for stream in row.conditions] if row else [],
        "made": row.target.key.replace("_", " ") if row else "",
        "entries": [(run.letter, run.tasks[name]) for run in having],
        "references": equal_across_runs((run.letter, run.tasks[name].get("reference", "")) for run in having),
        "metrics": metrics,
        "directions": {metric: _direction(metric) for metric in metrics},
        "rows": rows,
        "common": len(set.intersection(*keys)) if any(key != keys[0] for key in keys) else None,
        "figure": draw(
            (run.letter, kind, run.lines, metric)
            for run in having
            for kind, metric in (("training", f"loss/{name}"), ("held out", f"heldout/{name}"))
        ),
        "examples": examples_of(having, name),
    }


def _metric_rows(runs: Sequence[Evaluated], task: str) -> tuple[list[str], list[tuple[str, str, dict[str, Any]]]]:
    """The names of the metrics, and (row, letters of the runs that agree on it, cells by metric)."""
    tables = {run.letter: run.tasks[task].get("metrics", {}) for run in runs}
    metrics = _union(cells for table in tables.values() for cells in table.values())
    titles = sorted(_union(tables.values()), key=lambda row: ROWS.index(row) if row in ROWS else len(ROWS))
    rows = [
        (title, letters, cells)
        for title in titles
        for letters, cells in equal_across_runs(
            (letter, table[title]) for letter, table in tables.items() if title in table
        )
    ]
    return metrics, rows


def _direction(metric: str) -> str:
    """Whether more or less of a metric is better, in words; "" where neither is."""
    better = higher_is_better(metric)
    return "" if better is None else "higher is better" if better else "lower is better"
