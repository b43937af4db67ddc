"""Generated frames per second: our compiled generator against eager PyTorch with caches, both greedy."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from uniaudio_jax.bench.options import RoundsOptions
from uniaudio_jax.bench.synthetic import tts_example
from uniaudio_jax.bench.timing import report, side_by_side
from uniaudio_jax.config import RunConfig
from uniaudio_jax.config_files import load_config
from uniaudio_jax.decoding import Generator
from uniaudio_jax.model.uniaudio import ModelDefinition
from uniaudio_jax.pytorch.load import load_torch_model
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sequence import cut
from uniaudio_jax.tasks import get_task

PHONES, PROMPT_FRAMES = 40, 50


@dataclass(frozen=True, kw_only=True)
class Options(RoundsOptions):
    """Greedy generation of task tts, with random weights."""

    config: str = "configs/quickstart.py"
    """Config file whose model is used."""
    rows: int = 4
    """Examples that are generated together."""
    frames: int = 192
    """Frames that are generated for each example; none ends earlier."""


def run(options: Options) -> dict[str, Any]:
    """Frames of all rows per second by rival, their ratio, and the share of tokens that are equal."""
    config = load_config(options.config, RunConfig)
    model, vocabulary = config.model, config.model.ids
    params = jax.jit(ModelDefinition(model).init)(jax.random.key(0))
    examples = [
        tts_example(vocabulary, model.text_width, PHONES, PROMPT_FRAMES, 1, seed) for seed in range(options.rows)
    ]
    prefixes = [cut(example, -3) for example in examples]  # without the target's frame and the two end tokens
    generator = Generator(ModelDefinition(model), params, vocabulary)
    greedy = Sampling(temperature=0, min_frames=options.frames)
    torch, rival = load_torch_model(model, jax.device_get(params))
    prefix_tokens = torch.from_numpy(np.stack([prefix.tokens for prefix in prefixes]).astype(np.int64))
    allowed = torch.zeros(model.codebooks, model.vocabulary_size, dtype=torch.bool)
    for level in range(model.codebooks):
        allowed[level, vocabulary.level(level)] = True
    starts = np.array([vocabulary.level(level).start for level in range(model.codebooks)])
    tokens: dict[str, np.ndarray] = {}

    def compiled() -> None:
        tokens["compiled"] = np.stack(generator.generate(get_task("tts"), prefixes, greedy, options.frames))

    def eager() -> None:
        tokens["eager"] = rival.generate(prefix_tokens, options.frames, allowed).numpy() - starts

    seconds = side_by_side({"compiled": compiled, "pytorch eager": eager}, options.rounds)
    equal = float((tokens["compiled"] == tokens["eager"]).mean())
    return report(seconds, "compiled", "frames", options.rows * options.frames) | {"equal_tokens": equal}
