"""Random packed rows for benchmarks: the work is that of real rows, the content is noise."""

import numpy as np

from uniaudio_jax.config import RunConfig
from uniaudio_jax.sequence import Batch, Frames, pack, to_frames
from uniaudio_jax.tasks import get_task
from uniaudio_jax.vocab import PHONES, Vocabulary

EXAMPLE_FRAMES, SHORTEST_FRAMES = 200, 40
"""Frames of an example, and the fewest that are worth one more in a row."""


def tts_example(vocabulary: Vocabulary, text_width: int, phones: int, prompt: int, target: int, seed: int) -> Frames:
    """An example of task tts with random streams of these lengths."""
    rng = np.random.default_rng(seed)

    def codes(length: int) -> np.ndarray:
        return rng.integers(0, vocabulary.entries, (length, vocabulary.codebooks))

    streams = {"phone": rng.integers(0, PHONES, phones), "speaker_prompt": codes(prompt), "audio": codes(target)}
    return to_frames(get_task("tts"), streams, vocabulary, text_width)


def tts_batch(run: RunConfig, condition_share: float) -> Batch:
    """A full batch of packed rows of task tts, `condition_share` of whose frames are conditions."""
    rows = [tts_row(run, condition_share, seed=1000 * row) for row in range(run.data.rows)]
    return Batch(*(np.stack(field) for field in zip(*rows, strict=True)))


def tts_row(run: RunConfig, condition_share: float, seed: int) -> Batch:
    """A row of such examples: each of EXAMPLE_FRAMES, and the last of what is left."""
    examples, left = [], run.data.row_frames
    while left >= SHORTEST_FRAMES:
        frames = EXAMPLE_FRAMES if left >= 2 * EXAMPLE_FRAMES else left
        conditions = round(condition_share * frames)
        phones = (conditions - 6) // 2  # 6 tokens start the example and stand around its two conditions
        lengths = (phones, conditions - 6 - phones, frames - conditions - 3)
        examples.append(tts_example(run.model.ids, run.model.text_width, *lengths, seed + len(examples)))
        left -= frames
    counted = sum(int(example.target.sum()) for example in examples)
    return pack(examples, run.data.row_frames, counted, run.data.text_frames, "target")
