"""Evaluate a run on held-out data.

    python -m uniaudio_jax.evaluate --run RUN

prints and saves RUN/evaluation.md, RUN/evaluation.json and RUN/evaluation.png: per task the loss and accuracy of each
codebook level, two baselines on the same data, and metrics of generated waveforms against the codec's resynthesis of
the reference.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from data_pipelines.heldout import Example, HeldOut, levels_of, target_histogram
from uniaudio_jax.cli import main_guard, use_compile_cache
from uniaudio_jax.config import MeshConfig
from uniaudio_jax.decoding import Sampling
from uniaudio_jax.metrics import waveform
from uniaudio_jax.metrics.edits import error_rate
from uniaudio_jax.metrics.plots import Pair, draw_evaluation
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.programs import Programs
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.tasks import KINDS, Task, get_task
from uniaudio_jax.validation import heldout_tally, losses_of

METRICS: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "stoi": waveform.stoi,
    "mel_distance": waveform.mel_distance,
    "si_sdr_db": lambda reference, estimate, rate: waveform.si_sdr_db(reference, estimate),
}
"""Of waveforms: (reference, estimate, sample rate) → number."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """run: folder of a training. task: tasks to evaluate, all of the run by default. count: waveforms per task."""

    run: Path
    task: tuple[str, ...] = ()
    count: int = 8
    sampling: Sampling = field(default_factory=Sampling)


def unigram_loss(counts: np.ndarray, examples: list[np.ndarray]) -> list[float]:
    """Nats per token of each level when tokens are drawn from their training frequencies (add one), [Q], or [1] for
    ids."""
    chances = np.log((counts + 1) / (counts + 1).sum(axis=1, keepdims=True))
    everything = np.concatenate([levels_of(items, len(counts)) for items in examples], axis=1)
    return [float(-row[column].mean()) for row, column in zip(chances, everything, strict=True)]


def waveform_metrics(
    run: Run, task: Task, examples: list[Example], sampling: Sampling
) -> tuple[dict[str, float], Pair]:
    """Metrics, and the first reference with what was generated for it.

    The metrics are means over the examples: of what was generated, of the input (where the task has one that is
    aligned with the target), and of another example's reference, which is chance; all against the codec's resynthesis,
    and as long as it: what ended too early is silent from there on.
    """
    references = [run.waveform_of(example.streams[task.target.key]) for example in examples]
    made = run.generate_like(task.name, [example.streams for example in examples], sampling)
    estimates = {"": [run.waveform_of(codes) for codes in made]}
    aligned = [s for s in task.conditions if KINDS[s.kind].name == "audio" and s.kind == task.target.kind]
    for stream in aligned:
        estimates["_of_input"] = [run.waveform_of(example.streams[stream.key]) for example in examples]
    estimates["_of_another_reference"] = references[1:] + references[:1]
    found = {}
    for name in task.metrics:
        for of, signals in estimates.items():
            pairs = [(r, waveform.as_long(s, len(r))) for r, s in zip(references, signals, strict=True)]
            values = [METRICS[name](reference, signal, run.codec.sample_rate_hz) for reference, signal in pairs]
            found[name + of] = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    lengths = [len(e) / len(r) for e, r in zip(estimates[""], references, strict=True)]
    return {**found, "length_ratio": float(np.mean(lengths))}, (references[0], estimates[""][0])


def text_metrics(run: Run, task: Task, examples: list[Example], sampling: Sampling) -> dict[str, float]:
    """Edits over the number of reference tokens, and of words, of what was generated; and of another example's
    reference, which is chance."""

    def said(ids: np.ndarray) -> list[str]:
        return run.text_of(task.name, ids).lower().split()

    references = [example.streams[task.target.key] for example in examples]
    made = run.generate_like(task.name, [example.streams for example in examples], sampling)
    found = {}
    for of, estimates in (("", made), ("_of_another_reference", references[1:] + references[:1])):
        pairs = list(zip(references, estimates, strict=True))
        if "token_error_rate" in task.metrics:
            found["token_error_rate" + of] = error_rate([(list(one), list(other)) for one, other in pairs])
        if "word_error_rate" in task.metrics:
            found["word_error_rate" + of] = error_rate([(said(one), said(other)) for one, other in pairs])
    return found


def evaluate_task(
    run: Run, programs: Programs, fresh: Params, task: Task, options: EvaluateOptions
) -> tuple[dict[str, Any], Pair | None]:
    """The entry of one task in evaluation.json, and its first pair of waveforms."""
    heldout = HeldOut(run.config, task.name, run.codec.passport())
    trained = losses_of(task, heldout_tally(programs, run.params, heldout.batches(), f"{task.name} held out"))
    untrained = losses_of(task, heldout_tally(programs, fresh, heldout.batches(), f"{task.name} untrained"))
    everything = [example.streams[task.target.key] for example in heldout.examples(10**9)]
    unigram = unigram_loss(target_histogram(run.config, task.name), everything)
    examples, pair = heldout.examples(options.count), None
    if task.makes_audio:
        metrics, pair = waveform_metrics(run, task, examples, options.sampling)
    else:
        metrics = text_metrics(run, task, examples, options.sampling)
    baselines = {
        "unigram_loss": float(np.mean(unigram)),
        "unigram_loss_per_level": unigram,
        "untrained_loss": untrained["loss"],
    }
    return {
        **trained,
        **baselines,
        "heldout_examples": len(everything),
        "metrics": metrics,
        "generated": len(examples),
    }, pair


def to_markdown(run: Run, tasks: dict[str, dict[str, Any]]) -> str:
    """The tables of evaluation.md."""
    levels = range(1, run.config.model.codebooks + 1)
    head = ["task", "loss", "unigram", "untrained", "under unigram"]
    head += [f"loss {level}" for level in levels] + [f"accuracy {level}" for level in levels]
    lines = [
        f"# {run.config.name}, step {run.step}",
        "",
        "Held-out target tokens, nats per token. Unigram: training frequencies of the task's target at each level."
        " A target of ids (text, labels) has one level: the other tokens of its frames repeat it.",
        "",
        _row(head),
        _row(["---"] * len(head)),
    ]
    for name, entry in tasks.items():
        numbers = [entry["loss"], entry["unigram_loss"], entry["untrained_loss"], entry["unigram_loss"] - entry["loss"]]
        cells = [f"{number:.3f}" for number in numbers]
        for key in ("loss_per_level", "accuracy_per_level"):
            cells += [f"{number:.3f}" for number in entry[key]] + [""] * (len(levels) - len(entry[key]))
        lines.append(_row([name, *cells]))
    lines += [
        "",
        "Generated waveforms against the codec's resynthesis of the reference, generated text against the "
        "reference; `_of_input` is the condition itself, `_of_another_reference` is chance.",
        "",
        _row(["task", "metric", "mean", "examples"]),
        _row(["---"] * 4),
    ]
    lines += [
        _row([name, metric, f"{value:.3f}", str(entry["generated"])])
        for name, entry in tasks.items()
        for metric, value in entry["metrics"].items()
    ]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    with main_guard():
        options = tyro.cli(EvaluateOptions, description=__doc__)
        use_compile_cache()
        run = load_run(options.run)
        names = [get_task(name).name for name in options.task] or list(run.config.data.tasks)
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        programs = Programs(run.config.model, run.config.train, run.config.optim, mesh)
        fresh = programs.init(jax.random.key(run.config.train.seed)).params
        found = {name: evaluate_task(run, programs, fresh, get_task(name), options) for name in names}
        tasks = {name: entry for name, (entry, _) in found.items()}
        text = to_markdown(run, tasks)
        (options.run / "evaluation.json").write_text(json.dumps({"step": run.step, "tasks": tasks}, indent=1))
        (options.run / "evaluation.md").write_text(text)
        pairs = {name: pair for name, (_, pair) in found.items() if pair is not None}
        picture = draw_evaluation(options.run, tasks, pairs, run.codec.sample_rate_hz)
        print(f"{text}\n{options.run}: evaluation.json, evaluation.md{', evaluation.png' if picture else ''}")


if __name__ == "__main__":
    main()
