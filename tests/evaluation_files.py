"""Run folders with a small finished evaluation, as `python -m uniaudio_jax.evaluate` writes it; shared by the tests."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from uniaudio_jax.audio.files import write_audio
from uniaudio_jax.files import write_json
from uniaudio_jax.sinks.jsonl import JsonlSink

RATE_HZ = 16000
ROLES = ("noisy_audio", "ground_truth", "codec", "generated")


def tone(seconds: float, hertz: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def cell(value: float | None, examples: int = 7) -> dict[str, Any]:
    return {
        "value": value,
        "low": None if value is None else value - 0.25,
        "high": None if value is None else value + 0.25,
        "examples": examples,
    }


def task_entry(run: Path, task: str, ids: tuple[str, ...], generated_hz: float, text: str = "") -> dict[str, Any]:
    """The entry of one task, whose wav files it writes: they differ by run in what was generated alone."""
    samples = []
    for number, name in enumerate(ids):
        files = {role: f"evaluation/{task}/{number}.{role}.wav" for role in ROLES}
        for role, file in files.items():
            hertz = generated_hz if role == "generated" else 300 + 100 * ROLES.index(role)
            write_audio(run / file, tone(0.25 + 0.03 * len(name), hertz), RATE_HZ)
        texts = {"caption": f"caption of {name}"}
        scores = {"generated": {"stoi": [0.5 * number, 1.0]}, "codec resynthesis": {"stoi": [0.0, 0.0]}}
        about = {"id": name, "text": text or f"words of {name}", "speaker": "someone", "corpus": "speech"}
        samples.append({**about, "files": files, "texts": texts, "scores": scores})
    losses = {"loss_per_level": [2.0, 3.0], "accuracy_per_level": [0.5, 0.25]}
    return losses | {
        "loss": 2.5,
        "unigram_loss": 5.0,
        "untrained_loss": 7.0,
        "heldout_examples": 7,
        "reference": "ground truth",
        "metrics": {
            "another reference": {"stoi": cell(0.125)},
            "generated": {"stoi": cell(generated_hz / 1000), "pesq": cell(None, 0)},
            "codec resynthesis": {"stoi": cell(0.875)},
        },
        "samples": samples,
    }


def write_evaluation(
    run: Path, tasks: dict[str, tuple[str, ...]], generated_hz: float = 500, text: str = ""
) -> dict[str, Any]:
    """A run folder with the evaluation of these ids of each task; returns what evaluation.json holds."""
    judge = {"library": "pystoi", "version": "0.4.1", "sample_rate_hz": 16000, "higher_is_better": True}
    record = {
        "step": 11,
        "options": {"count": 7, "sampling": {"temperature": 1.0}},
        "judges": {"stoi": judge},
        "failed": {},
        "tasks": {task: task_entry(run, task, ids, generated_hz, text) for task, ids in tasks.items()},
    }
    write_json(run / "evaluation.json", record)
    with closing(JsonlSink(run, 0)) as sink:
        for step in range(1, 12):
            sink.scalars(step, {f"loss/{task}": 7 - step / 2 for task in tasks})
    return record
