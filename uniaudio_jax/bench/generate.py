"""Generated frames per second: our compiled generator against PyTorch with caches, all greedy."""

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from uniaudio_jax.bench.options import RoundsOptions
from uniaudio_jax.bench.synthetic import tts_example
from uniaudio_jax.bench.timing import report, side_by_side
from uniaudio_jax.codec.codec import load_codec
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
    torch_compile: bool = False
    """Whether torch.compile is a rival as well; it compiles for a minute or more."""


def run(options: Options) -> dict[str, Any]:
    """Frames of all rows per second by rival, their ratio, the share of tokens that are equal, and the seconds of
    computation for a second of audio: a real-time factor where there is one row."""
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

    rivals, missing = {"compiled": compiled, "pytorch eager": eager}, {}
    if options.torch_compile:
        fast = compiled_by_torch(rival)
        rivals["pytorch compiled"] = lambda: fast.generate(prefix_tokens, options.frames, allowed)
        if fault := fault_of(rivals["pytorch compiled"]):
            del rivals["pytorch compiled"]
            missing = {"without pytorch compiled": fault}
    seconds = side_by_side(rivals, options.rounds)
    equal = float((tokens["compiled"] == tokens["eager"]).mean())
    result = report(seconds, "compiled", "frames", options.rows * options.frames) | missing | {"equal_tokens": equal}
    spent = {} if config.codec is None else per_second_of_audio(seconds["compiled"], tokens["compiled"], config.codec)
    return result | spent


def per_second_of_audio(generation: list[float], codes: Int[np.ndarray, "B T Q"], codec_name: str) -> dict[str, float]:
    """Seconds that a second of audio takes: of `generation` of these codes, and of their decoding, as often."""
    codec = load_codec(codec_name)
    decoding = side_by_side({"codec": lambda: codec.decode(codes)}, len(generation))["codec"]
    audio_seconds = len(codes) * codec.clock.seconds(codes.shape[1])
    seconds = {"generation": generation, "decoding by the codec": decoding}
    return {
        f"seconds of {name} per second of audio": statistics.median(times) / audio_seconds
        for name, times in seconds.items()
    }


def compiled_by_torch(rival: Any) -> Any:
    """The PyTorch model with its blocks under torch.compile."""
    fast = copy.deepcopy(rival)
    for block in [*fast.g_layers, *fast.l_layers]:
        block.compile(dynamic=True)
    return fast


def fault_of(call: Callable[[], object]) -> str:
    """What a call ends with, in one line, such as a C++ compiler that torch.compile misses; empty where it works."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return ""
