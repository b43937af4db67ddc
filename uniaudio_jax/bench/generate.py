"""Generated frames per second: our compiled generator against eager PyTorch with caches, both greedy."""

from typing import Any

import jax
import numpy as np

from uniaudio_jax.bench.options import GenerateBench
from uniaudio_jax.bench.synthetic import tts_example
from uniaudio_jax.bench.timing import report, side_by_side
from uniaudio_jax.config import RunConfig, load_config
from uniaudio_jax.decoding import Generator, Sampling
from uniaudio_jax.model.uniaudio import ModelDefinition
from uniaudio_jax.pytorch.load import load_torch_model
from uniaudio_jax.sequence import cut
from uniaudio_jax.tasks import get_task
from uniaudio_jax.vocab import SPECIAL_IDS


def run(options: GenerateBench) -> dict[str, Any]:
    """Frames/s (frames of all rows) by rival, their ratios, and whether both made the same tokens."""
    config: RunConfig = load_config(options.config)
    model, vocabulary, task = config.model, config.model.ids, get_task("tts")
    params = jax.jit(ModelDefinition(model).init)(jax.random.key(0))
    whole = [tts_example(vocabulary, model.text_width, 40, 50, 1, seed) for seed in range(options.rows)]
    prefixes = [cut(example, -3) for example in whole]
    generator = Generator(ModelDefinition(model), params, vocabulary)
    greedy = Sampling(temperature=0, min_frames=options.frames)
    torch, rival = load_torch_model(model, jax.device_get(params))
    allowed = np.zeros((model.codebooks, model.vocabulary_size), bool)
    for level in range(model.codebooks):
        allowed[level, vocabulary.level(level)] = True
    tokens = torch.from_numpy(np.stack([p.tokens for p in prefixes]).astype(np.int64))
    made: dict[str, np.ndarray] = {}

    def ours() -> None:
        made["ours"] = np.concatenate(list(generator.blocks(task, prefixes, greedy, options.frames)), axis=1)

    def theirs() -> None:
        made["theirs"] = rival.generate(tokens, options.frames, torch.from_numpy(allowed)).numpy()

    seconds = side_by_side({"compiled": ours, "pytorch eager": theirs}, options.rounds)
    same = float((made["ours"] == made["theirs"]).mean())
    assert SPECIAL_IDS["<audio_end>"] not in made["ours"]
    return report(seconds, "compiled", "frames", options.rows * options.frames) | {"equal_tokens": same}
