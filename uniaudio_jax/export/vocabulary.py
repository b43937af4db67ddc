"""What each id of a model means, as the JSON that prompts are made with where JAX is not."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from uniaudio_jax.config import ModelConfig
from uniaudio_jax.tasks import KINDS, TASKS, Task
from uniaudio_jax.vocab import SPECIAL_IDS, Vocabulary


def is_possible(task: Task, vocabulary: Vocabulary) -> bool:
    """Whether a vocabulary has the ranges of all streams of a task."""
    spans = {KINDS[stream.kind].span for stream in task.streams}
    return spans - {None} <= vocabulary.ranges.keys()


def vocabulary_json(model: ModelConfig, symbols: Sequence[str], arpabet: Mapping[str, str]) -> dict[str, Any]:
    """Special tokens, ranges as (first id, size), the tasks that they allow, and phones: symbols in the order of their
    ids, and how ARPABET is written with them."""
    tasks = {
        name: {
            "token": task.token,
            "conditions": {stream.key: stream.kind for stream in task.conditions},
            "target": task.target.kind,
        }
        for name, task in TASKS.items()
        if is_possible(task, model.ids)
    }
    return {
        "size": model.vocabulary_size,
        "codebooks": model.codebooks,
        "entries": model.entries,
        "special": SPECIAL_IDS,
        "ranges": {name: (span.start, len(span)) for name, span in model.ids.ranges.items()},
        "kinds": {name: asdict(kind) for name, kind in KINDS.items()},
        "tasks": tasks,
        "phones": {"symbols": list(symbols), "arpabet": dict(arpabet)},
    }
