"""Held-out losses of a run's tasks, while it trains and afterwards."""

from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from data_pipelines.heldout import HeldOut
from uniaudio_jax.loss import Tally, add_tallies, empty_tally
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.programs import Programs
from uniaudio_jax.sharding import place_batch
from uniaudio_jax.tasks import TASK_NUMBERS, Task


def heldout_tally(
    programs: Programs, params: Params, heldout: HeldOut, about: str = "", most_batches: int | None = None
) -> Tally:
    """The tally of the held-out target items of one task, of the first `most_batches` batches or of all."""
    tally = empty_tally(programs.model.codebooks)
    for number, batch in enumerate(
        tqdm(heldout.batches(), desc=about, unit=" batches", leave=False, disable=not about)
    ):
        if number == most_batches:
            break
        tally = add_tallies(tally, programs.evaluate(params, place_batch(batch, programs.mesh)))
    return jax.device_get(tally)


def losses_of(task: Task, tally: Tally) -> dict[str, Any]:
    """Loss and accuracy of one task per level; of ids one level counts, as the other tokens of a frame repeat it."""
    row = TASK_NUMBERS[task.name]
    levels = len(tally.loss[row]) if task.makes_audio else 1
    loss, hits, tokens = (np.asarray(field, np.float64)[row, :levels] for field in tally)
    return {
        "loss": float(loss.sum() / tokens.sum()),
        "loss_per_level": (loss / tokens).tolist(),
        "accuracy_per_level": (hits / tokens).tolist(),
        "heldout_tokens": int(tokens.sum()),
    }
