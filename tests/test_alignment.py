"""Laws against faults of a trainer that stay silent: what a model learns is the frame that it is asked for, at every
level."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from tests.tiny import APPENDED, MODEL, TEXT_WIDTH, VOCABULARY, make_programs, stack_rows
from uniaudio_jax.config import MODERN, PAPER, OptimConfig
from uniaudio_jax.sequence import Batch, pack, to_frames
from uniaudio_jax.sharding import place_batch
from uniaudio_jax.tasks import TASK_NUMBERS, get_task

TASK = get_task("plain_tts")
FRAMES, STEPS = 17, 70


def counting_batch(seed: int, rows: int = 7) -> Batch:
    """Rows of two clips, each of whose codes is its level and 1 more than the one before it, from a random start."""
    rng, packed = np.random.default_rng(seed), []
    for _ in range(rows):
        examples = []
        for _ in range(2):
            start, phones = rng.integers(0, 11, 3), rng.integers(0, 305, 5)
            codes = (start + np.arange(FRAMES)[:, None] * (1 + np.arange(3))) % VOCABULARY.entries
            examples.append(to_frames(TASK, {"phone": phones, "audio": codes}, VOCABULARY, TEXT_WIDTH))
        packed.append(pack(examples, 61, 43, 1, "target"))
    return stack_rows(packed)


def shifted_losses(logits: np.ndarray, batch: Batch, shift: int) -> np.ndarray:
    """Nats per token and level, [Q], of the logits of each frame of codes for the codes `shift` frames later."""
    codes, starts = batch.tokens, [VOCABULARY.level(level).start for level in range(3)]
    is_code = np.all((codes >= starts) & (codes < np.array(starts) + VOCABULARY.entries), axis=-1)
    inner = is_code & np.roll(is_code, 1, axis=1) & np.roll(is_code, -1, axis=1)
    rows, frames = np.nonzero(inner)
    probabilities = np.asarray(jax.nn.log_softmax(logits[rows, frames]))
    targets = codes[rows, frames + shift]
    return -np.take_along_axis(probabilities, targets[..., None], axis=-1)[..., 0].mean(0)


@pytest.mark.parametrize("layout", [MODERN, pytest.param(PAPER, marks=pytest.mark.slow)], ids=["modern", "paper"])
def test_every_level_learns_the_frame_that_it_is_asked_for_and_neither_neighbour(layout):
    model = replace(MODEL, layout=layout, appended=APPENDED)
    programs = make_programs(model=model, optim=OptimConfig(warmup_steps=7, peak_learning_rate=1e-2))
    state, levels = programs.init(jax.random.key(0)), []
    for step in range(STEPS):
        state, metrics = programs.step(state, [place_batch(counting_batch(step), programs.mesh)])
        tally = jax.device_get(metrics.tally)
        row = TASK_NUMBERS[TASK.name]
        levels.append(tally.loss[row] / tally.tokens[row])
    assert (levels[-1] < 0.6 * levels[0]).all()
    heldout = counting_batch(STEPS)
    logits = np.asarray(jax.jit(programs.definition.logits)(state.params, heldout))
    losses = np.stack([shifted_losses(logits, heldout, shift) for shift in (-1, 0, 1)])
    assert (losses.argmin(0) == 1).all()
    assert (losses[1] < 0.5 * np.log(VOCABULARY.entries)).all() and (losses[[0, 2]] > 2 * losses[1]).all()
    # The measure itself: logits that are one frame late or early have their minimum there.
    for late in (-1, 1):
        planted = [shifted_losses(np.roll(logits, late, axis=1), heldout, shift) for shift in (-1, 0, 1)]
        assert (np.argmin(planted, axis=0) == 1 - late).all()
