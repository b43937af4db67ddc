"""The metrics: seconds that each of them needs for the clips of an evaluation."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uniaudio_jax.audio.files import read_audio
from uniaudio_jax.bench.options import BenchOptions
from uniaudio_jax.metrics.judges import Judges
from uniaudio_jax.metrics.metric import Metric, SetMetric
from uniaudio_jax.metrics.registry import make_metrics
from uniaudio_jax.metrics.sample import Sample
from uniaudio_jax.tasks import TASKS

RATE_HZ = 16000
AUDIO_METRICS = sorted({name for task in TASKS.values() if task.makes_audio for name in task.metrics})
WARM_UP = 2
"""Clips that are judged first, as programs are compiled and weights read then."""
BUDGET_SECONDS = 60.0
"""The most that a metric should need for a hundred clips of 5 s on two cores."""


@dataclass(frozen=True, kw_only=True)
class Options(BenchOptions):
    """Seconds of each installed metric, for clips beside noisy ones."""

    clips: int = 100
    """Clips that are judged."""
    seconds: float = 5.0
    """Length of a clip; a shorter file is repeated."""
    audio: Path | None = None
    """Folder of wav files to judge, by default tones with the pitch and syllables of speech."""
    judges: Judges = field(default_factory=Judges)
    """Models that judge, by path."""

    def __post_init__(self) -> None:
        for name in ("clips", "seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name}: got {getattr(self, name)}, wanted more than 0")


def run(options: Options) -> dict[str, Any]:
    """Seconds for all clips by metric, each after a warm-up, and how often they fit into the budget."""
    samples = make_samples(options)
    seconds = {}
    for name, metric in make_metrics(AUDIO_METRICS, options.judges).items():
        judge(metric, samples[:WARM_UP])
        start = time.perf_counter()
        judge(metric, samples)
        seconds[name] = time.perf_counter() - start
    budget = BUDGET_SECONDS * options.clips / 100
    return {
        "table": {name: {"seconds": each, "share of budget": each / budget} for name, each in seconds.items()},
        "clips": options.clips,
        "seconds": options.seconds,
    }


def judge(metric: Metric | SetMetric, samples: list[Sample]) -> None:
    """Measures all samples."""
    if isinstance(metric, SetMetric):
        metric.measure(samples)
    else:
        for sample in samples:
            metric.measure(sample)


def make_samples(options: Options) -> list[Sample]:
    """Clips beside the same with noise of a tenth of their amplitude. Raises ValueError for a folder without wavs."""
    count = round(options.seconds * RATE_HZ)
    paths = sorted(options.audio.rglob("*.wav"))[: options.clips] if options.audio else []
    if options.audio and not paths:
        raise ValueError(f"--audio {options.audio}: got no .wav files, wanted some; name a folder of them")
    clips = [np.resize(read_audio(path, RATE_HZ).samples, count) for path in paths] or [hum(count, 0), hum(count, 1)]
    rng = np.random.default_rng(0)
    samples = []
    for number in range(options.clips):
        clip = clips[number % len(clips)].astype(np.float32)
        noisy = clip + rng.normal(0, 0.1 * np.std(clip), count).astype(np.float32)
        samples.append(Sample(reference=clip, estimate=noisy, sample_rate_hz=RATE_HZ, text="one two three"))
    return samples


def hum(count: int, seed: int) -> np.ndarray:
    """A voice-like sound of so many samples: harmonics of a gliding pitch, four syllables a second."""
    rng, seconds = np.random.default_rng(seed), np.arange(count) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(rng.uniform(90, 200) * (1 + 0.1 * np.sin(seconds))) / RATE_HZ
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 20))
    return (0.05 * voice * (1 + np.sin(8 * np.pi * seconds))).astype(np.float32)
