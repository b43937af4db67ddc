"""Evaluate a run on held-out data.

    python -m uniaudio_jax.evaluate --run RUN

prints and saves RUN/evaluation.md, RUN/evaluation.json and RUN/evaluation.png: per task the loss and accuracy of each
codebook level, two baselines on the same data, and metrics of what was generated. Audio is compared with the codec's
resynthesis of the reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from data_pipelines.heldout import Example, HeldOut, levels_of, target_histogram
from uniaudio_jax.cli import main_guard, use_compile_cache
from uniaudio_jax.config import MeshConfig
from uniaudio_jax.decoding import Sampling
from uniaudio_jax.files import atomic_write, write_json
from uniaudio_jax.metrics.plots import draw_evaluation
from uniaudio_jax.metrics.registry import installed_metrics, scores_of
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Scores, mean_score
from uniaudio_jax.metrics.tables import cell, markdown_table
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.programs import Programs
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.tasks import KINDS, Task, get_task
from uniaudio_jax.validation import heldout_tally, losses_of


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What to evaluate."""

    run: Path
    """Folder of a training."""
    task: tuple[str, ...] = ()
    """Tasks to evaluate, by default all of the run."""
    count: int = 8
    """Held-out examples of each task to generate for the metrics."""
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"--count: got {self.count}, wanted at least 1")


def unigram_loss(counts: np.ndarray, targets: list[np.ndarray]) -> list[float]:
    """Nats per token of each level, [Q], or [1] for ids, of tokens predicted by their training frequencies plus one."""
    log_chances = np.log((counts + 1) / (counts + 1).sum(axis=1, keepdims=True))
    tokens = np.concatenate([levels_of(target, len(counts)) for target in targets], axis=1)
    return [float(-row[column].mean()) for row, column in zip(log_chances, tokens, strict=True)]


def task_losses(run: Run, programs: Programs, untrained: Params, task: Task, heldout: HeldOut) -> dict[str, Any]:
    """Held-out losses of one task, of the run and of two baselines: training frequencies and untrained weights."""
    trained = losses_of(task, heldout_tally(programs, run.params, heldout.batches(), f"{task.name} held out"))
    fresh = losses_of(task, heldout_tally(programs, untrained, heldout.batches(), f"{task.name} untrained"))
    targets = [example.streams[task.target.key] for example in heldout.examples(10**9)]
    unigram = unigram_loss(target_histogram(run.config, task.name), targets)
    baselines = {
        "unigram_loss": float(np.mean(unigram)),
        "unigram_loss_per_level": unigram,
        "untrained_loss": fresh["loss"],
    }
    return {**trained, **baselines, "heldout_examples": len(targets)}


def generated_samples(run: Run, task: Task, examples: list[Example], sampling: Sampling) -> list[Sample]:
    """What the run generates for held-out examples, beside their references."""
    estimates = run.generate_like(task.name, [example.streams for example in examples], sampling)
    return [sample_of(run, task, *pair) for pair in zip(examples, estimates, strict=True)]


def sample_of(run: Run, task: Task, example: Example, estimate: np.ndarray) -> Sample:
    """A held-out example and an estimate of its target, for the metrics; codes become waveforms."""
    reference = example.streams[task.target.key]
    conditions = {}
    for stream in task.conditions:
        items = example.streams[stream.key]
        conditions[stream.key] = run.waveform_of(items) if KINDS[stream.kind].form == "codes" else items
    return Sample(
        id=example.id,
        reference=run.waveform_of(reference) if task.makes_audio else reference,
        estimate=run.waveform_of(estimate) if task.makes_audio else estimate,
        sample_rate_hz=run.codec.sample_rate_hz,
        text=example.text if task.makes_audio else run.text_of(task.name, reference),
        estimate_text=None if task.makes_audio else run.text_of(task.name, estimate),
        conditions=conditions,
        speaker=example.speaker,
    )


def with_baselines(task: Task, samples: list[Sample]) -> dict[str, list[Sample]]:
    """The generated samples under "", and the same with other estimates by the suffix of their metrics' names.

    "_of_input": the condition that is of the target's kind, where the task has one. "_of_another_reference": the
    reference of another sample, which is chance; a single sample has none.
    """
    variants = {"": samples}
    for stream in task.conditions:
        if stream.kind == task.target.kind:
            variants["_of_input"] = [replace(sample, estimate=sample.conditions[stream.key]) for sample in samples]
    if len(samples) > 1:
        others = samples[1:] + samples[:1]
        variants["_of_another_reference"] = [
            replace(sample, estimate=other.reference, estimate_text=other.text)
            for sample, other in zip(samples, others, strict=True)
        ]
    return variants


def task_metrics(task: Task, samples: list[Sample], names: Sequence[str]) -> dict[str, Any]:
    """The metrics of one task over its samples, and under "samples" the [total, weight] of each sample and metric."""
    all_scores: list[Scores] = [{} for _ in samples]
    for suffix, variant in with_baselines(task, samples).items():
        for scores, sample in zip(all_scores, variant, strict=True):
            scores |= {name + suffix: score for name, score in scores_of(sample, names).items()}
    return {
        "metrics": {name: mean_score(scores[name] for scores in all_scores) for name in all_scores[0]},
        "samples": [{"id": sample.id, "scores": scores} for sample, scores in zip(samples, all_scores, strict=True)],
    }


def loss_table(tasks: dict[str, dict[str, Any]], codebooks: int) -> str:
    """Losses and accuracies of every task, all levels together and each alone."""
    levels = range(1, codebooks + 1)
    head = ["task", "loss", "unigram", "untrained", "under unigram"]
    head += [f"loss {level}" for level in levels] + [f"accuracy {level}" for level in levels]
    rows = []
    for name, entry in tasks.items():
        numbers = [entry["loss"], entry["unigram_loss"], entry["untrained_loss"], entry["unigram_loss"] - entry["loss"]]
        for key in ("loss_per_level", "accuracy_per_level"):
            numbers += entry[key] + [None] * (codebooks - len(entry[key]))
        rows.append([name, *map(cell, numbers)])
    return markdown_table(head, rows)


def metric_table(tasks: dict[str, dict[str, Any]]) -> str:
    """Every metric with the number of examples that it is defined on."""
    rows = []
    for task, entry in tasks.items():
        for name, value in entry["metrics"].items():
            defined = sum(sample["scores"][name] != NO_SCORE for sample in entry["samples"])
            rows.append([task, name, cell(value), str(defined)])
    return markdown_table(["task", "metric", "value", "examples"], rows)


def to_markdown(run: Run, tasks: dict[str, dict[str, Any]]) -> str:
    """The text of evaluation.md."""
    return f"""# {run.config.name}, step {run.step}

Held-out target tokens, nats per token. Unigram: training frequencies of the task's target at each level. A target of
ids (text, labels) has one level: the other tokens of its frames repeat it.

{loss_table(tasks, run.config.model.codebooks)}

Generated audio against the codec's resynthesis of the reference, generated text against the reference. `_of_input` is
the condition itself, `_of_another_reference` is chance. Examples: those that the metric is defined on.

{metric_table(tasks)}
"""


def evaluate(run: Run, options: EvaluateOptions) -> tuple[dict[str, dict[str, Any]], dict[str, Sample]]:
    """The entries of evaluation.json by task, and the first sample of each task that makes audio."""
    tasks = [get_task(name) for name in options.task or run.config.data.tasks]
    installed = installed_metrics(sorted({name for task in tasks for name in task.metrics}))
    programs = Programs(
        run.config.model, run.config.train, run.config.optim, make_mesh(MeshConfig(), jax.devices()[:1])
    )
    untrained = programs.init(jax.random.key(run.config.train.seed)).params
    entries, shown = {}, {}
    for task in tasks:
        heldout = HeldOut(run.config, task.name, run.codec.passport())
        losses = task_losses(run, programs, untrained, task, heldout)
        samples = generated_samples(run, task, heldout.examples(options.count), options.sampling)
        metrics = task_metrics(task, samples, [name for name in task.metrics if name in installed])
        entries[task.name] = {**losses, **metrics}
        if task.makes_audio:
            shown[task.name] = samples[0]
    return entries, shown


def main() -> None:
    with main_guard():
        options = tyro.cli(EvaluateOptions, description=__doc__)
        use_compile_cache()
        run = load_run(options.run)
        tasks, shown = evaluate(run, options)
        text = to_markdown(run, tasks)
        write_json(options.run / "evaluation.json", {"step": run.step, "tasks": tasks})
        with atomic_write(options.run / "evaluation.md") as partial:
            partial.write_text(text, encoding="utf-8")
        picture = draw_evaluation(options.run, tasks, shown)
        print(f"{text}\n{options.run}: evaluation.json, evaluation.md{', evaluation.png' if picture else ''}")


if __name__ == "__main__":
    main()
