"""Random packed rows for benchmarks: the work is that of real rows, the content is noise."""

import numpy as np

from uniaudio_jax.config import RunConfig
from uniaudio_jax.sequence import Batch, Frames, pack, to_frames
from uniaudio_jax.tasks import get_task
from uniaudio_jax.vocab import PHONES, Vocabulary


def tts_example(vocabulary: Vocabulary, text_width: int, phones: int, prompt: int, target: int, seed: int) -> Frames:
    """One example of task tts with random streams of these lengths."""
    rng = np.random.default_rng(seed)

    def codes(length: int) -> np.ndarray:
        return rng.integers(0, vocabulary.entries, (length, vocabulary.codebooks))

    streams = {"phone": rng.integers(0, PHONES, phones), "speaker_prompt": codes(prompt), "audio": codes(target)}
    return to_frames(get_task("tts"), streams, vocabulary, text_width)


def tts_batch(run: RunConfig, condition_share: float, seed: int = 0) -> Batch:
    """A full batch of packed rows of task tts, `condition_share` of whose frames are conditions."""
    vocabulary, data = run.model.ids, run.data
    rows = []
    for row in range(data.rows):
        examples, left = [], data.row_frames
        while left >= 40:
            frames = left if left < 400 else 200
            conditions = round(condition_share * frames)
            phones = (conditions - 6) // 2
            prompt = conditions - 6 - phones
            examples.append(
                tts_example(
                    vocabulary,
                    run.model.text_width,
                    phones,
                    prompt,
                    frames - conditions - 3,
                    seed * 1000 + row * 10 + len(examples),
                )
            )
            left -= frames
        counted = sum(int(example.target.sum()) for example in examples)
        rows.append(pack(examples, data.row_frames, counted, data.text_frames, "target"))
    return Batch(*(np.stack(field) for field in zip(*rows, strict=True)))
