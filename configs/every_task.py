"""All eighteen formats in one run: the eleven tasks of the paper, and the other formats of the public code.

python -m uniaudio_jax.train configs/every_task.py --out runs/every_task --data.root TOKENS
"""

from dataclasses import replace

from configs import base
from uniaudio_jax.config import RunConfig
from uniaudio_jax.tasks import TASKS
from uniaudio_jax.vocab import CLASS_EVENTS, PUBLIC_TOKENS, SAME_OR_NOT, WORD_PIECES


def get_config() -> RunConfig:
    """A starting point: no result is claimed. Its ids are the public ones and three further ranges."""
    run = base.get_config()
    appended = {"text": WORD_PIECES, "class_event": CLASS_EVENTS, "sv_bool": SAME_OR_NOT}
    tasks = {task.name: 1.0 for task in TASKS.values() if task.token in PUBLIC_TOKENS}
    return replace(
        run, name="every_task", model=replace(run.model, appended=appended), data=replace(run.data, tasks=tasks)
    )
