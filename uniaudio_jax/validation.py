"""Held-out losses, while a run trains and afterwards."""

import itertools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from uniaudio_jax.loss import Tally, add_tallies, empty_tally
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.programs import Programs
from uniaudio_jax.sequence import Batch
from uniaudio_jax.sharding import place_batch
from uniaudio_jax.tasks import TASK_NUMBERS, Task


def heldout_tally(
    programs: Programs, params: Params, batches: Iterable[Batch], about: str = "", most_batches: int | None = None
) -> Tally:
    """The tally of the counted tokens of host batches, of the first `most_batches` or of all.

    about: title of a progress bar; no bar without one.
    """
    params, tally = programs.merged(params), empty_tally(programs.model.codebooks)
    batches = itertools.islice(batches, most_batches)
    for batch in tqdm(batches, desc=about, unit=" batches", leave=False, disable=not about):
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
