"""evaluation.md: the losses and the metrics of every task as tables."""

from collections.abc import Mapping
from typing import Any

from uniaudio_jax.metrics.tables import cell, markdown_table


def to_markdown(name: str, record: Mapping[str, Any], codebooks: int) -> str:
    """The text of evaluation.md for a run of this name."""
    tasks = record["tasks"]
    with_losses = {task: entry for task, entry in tasks.items() if "loss" in entry}
    losses = f"""
Target tokens of the split {record["options"]["split"]}, nats per token. Unigram: training frequencies of the task's
target at each level. A target of ids (text, labels) has one level: the other tokens of its frames repeat it.

{loss_table(with_losses, codebooks)}
"""
    return f"""# {name}, step {record["step"]}
{losses if with_losses else ""}
Metrics of the same clips, from other origins. ground truth: the recording. codec resynthesis: what the codec makes of
it, as good as the model can get. input: the condition as it is. another reference: another clip, which is chance.
Each is compared with the ground truth, or with what a line above the table says. In brackets the 95 % interval of the
bootstrap over clips; clips: those that the metric is defined on.

{metric_tables(tasks)}
"""


def loss_table(tasks: Mapping[str, dict[str, Any]], codebooks: int) -> str:
    """Losses and accuracies of every task, all levels together and each alone."""
    levels = range(1, codebooks + 1)
    head = ["task", "loss", "unigram", "untrained", "under unigram"]
    head += [f"loss {level}" for level in levels] + [f"accuracy {level}" for level in levels]
    rows = []
    for name, entry in tasks.items():
        numbers = [entry["loss"], entry["unigram_loss"], entry["untrained_loss"], entry["unigram_loss"] - entry["loss"]]
        for key in ("loss_per_level", "accuracy_per_level"):
            numbers += entry[key] + [None] * (codebooks - len(entry[key]))
        rows.append([name, *map(cell, numbers)])
    return markdown_table(head, rows)


def metric_tables(tasks: Mapping[str, dict[str, Any]]) -> str:
    """A table for each task: a line for each metric, a column for each origin of the estimates."""
    parts = []
    for task, entry in tasks.items():
        rows = entry["metrics"]
        names = list(dict.fromkeys(name for values in rows.values() for name in values))
        lines = []
        for name in names:
            values = [values.get(name) for values in rows.values()]
            clips = max(value["examples"] for value in values if value)
            lines.append([name, *map(_with_interval, values), str(clips)])
        parts.append(f"## {task}, compared with the {entry['reference']}\n\n")
        parts[-1] += markdown_table(["metric", *rows, "clips"], lines)
    return "\n\n".join(parts)


def _with_interval(value: Mapping[str, Any] | None) -> str:
    if value is None or value["value"] is None:
        return ""
    ends = "" if value["low"] is None else f" [{cell(value['low'])}, {cell(value['high'])}]"
    return cell(value["value"]) + ends
