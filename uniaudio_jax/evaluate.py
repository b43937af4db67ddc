"""Evaluate a run on held-out data.

    python -m uniaudio_jax.evaluate --run RUN

prints and saves RUN/evaluation.md, RUN/evaluation.json and RUN/evaluation.png: per task the loss and accuracy of each
codebook level, two baselines on the same data, and metrics of what was generated. Audio is compared with the codec's
resynthesis of the reference; the first of each task is in RUN/evaluation/. Each task is saved when it is finished: an
evaluation that was cut off, or in which a task failed, goes on with what is missing when it is run again.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from data_pipelines.heldout import Example, HeldOut, levels_of, target_histogram
from uniaudio_jax.audio.files import write_audio
from uniaudio_jax.cli import main_guard, parse, use_compile_cache
from uniaudio_jax.config import MeshConfig
from uniaudio_jax.files import atomic_write, check_folder, write_json
from uniaudio_jax.metrics.plots import draw_evaluation, shown_files
from uniaudio_jax.metrics.registry import installed_metrics, scores_of
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Scores, mean_score
from uniaudio_jax.metrics.tables import cell, markdown_table
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.paths import PlaceOption
from uniaudio_jax.programs import Programs
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.sinks.jsonl import FILE as METRICS_FILE
from uniaudio_jax.sinks.jsonl import read_metrics
from uniaudio_jax.tasks import KINDS, Task, get_task
from uniaudio_jax.validation import heldout_tally, losses_of

ALL = 10**9
"""More examples than any held-out split has."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What to evaluate."""

    run: PlaceOption
    """Folder of a training."""
    task: tuple[str, ...] = ()
    """Tasks to evaluate, by default all of the run."""
    data_root: PlaceOption | None = None
    """Folder of the tokenised corpora, where it is not that of the run's config (data.root)."""
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


def task_losses(
    run: Run, programs: Programs, untrained: Params, task: Task, heldout: HeldOut, examples: list[Example]
) -> dict[str, Any]:
    """Held-out losses of one task, of the run and of two baselines: training frequencies and untrained weights."""
    trained = losses_of(task, heldout_tally(programs, run.params, heldout.batches(), f"{task.name} held out"))
    fresh = losses_of(task, heldout_tally(programs, untrained, heldout.batches(), f"{task.name} untrained"))
    targets = [example.streams[task.target.key] for example in examples]
    unigram = unigram_loss(target_histogram(run.config, task.name), targets)
    baselines = {
        "unigram_loss": float(np.mean(unigram)),
        "unigram_loss_per_level": unigram,
        "untrained_loss": fresh["loss"],
    }
    return {**trained, **baselines, "heldout_examples": len(targets)}


def generated_samples(run: Run, task: Task, examples: list[Example], sampling: Sampling) -> list[Sample]:
    """What the run generates for held-out examples, beside their references."""
    estimates = dict(run.results_like(task.name, [example.streams for example in examples], sampling))
    return [sample_of(run, task, example, estimates[number]) for number, example in enumerate(examples)]


def other_clips(task: Task, examples: list[Example], count: int) -> list[int]:
    """The number of an example of another clip for each of the first `count`, below `count` if there is such a one.

    None at all where an example has no other. A clip may come twice: equal ids, or equal codes, are one clip; equal
    labels are not.
    """
    others = []
    for number, example in enumerate(examples[:count]):
        target = example.streams[task.target.key]
        first = len(examples[:count])
        for candidate in (*range(number + 1, first), *range(number), *range(first, len(examples))):
            other = examples[candidate]
            same = task.makes_audio and np.array_equal(other.streams[task.target.key], target)
            if other.id != example.id and not same:
                others.append(candidate)
                break
    return others if len(others) == len(examples[:count]) else []


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


def with_baselines(task: Task, samples: list[Sample], others: list[Sample]) -> dict[str, list[Sample]]:
    """The generated samples under "", and the same with other estimates by the suffix of their metrics' names.

    "_of_input": the condition that is of the target's kind, where the task has one. "_of_another_reference": the
    reference of another clip, which is chance, where there are others.
    """
    variants = {"": samples}
    for stream in task.conditions:
        if stream.kind == task.target.kind:
            variants["_of_input"] = [replace(sample, estimate=sample.conditions[stream.key]) for sample in samples]
    if others:
        variants["_of_another_reference"] = [
            replace(sample, estimate=other.reference, estimate_text=other.text)
            for sample, other in zip(samples, others, strict=True)
        ]
    return variants


def task_metrics(task: Task, samples: list[Sample], others: list[Sample], names: Sequence[str]) -> dict[str, Any]:
    """The metrics of one task over its samples, and under "samples" the [total, weight] of each sample and metric."""
    all_scores: list[Scores] = [{} for _ in samples]
    for suffix, variant in with_baselines(task, samples, others).items():
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
            defined = sum(tuple(sample["scores"][name]) != NO_SCORE for sample in entry["samples"])
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


class Evaluator:
    """A run and what its tasks are judged with."""

    def __init__(self, run: Run, options: EvaluateOptions):
        names = dict.fromkeys(options.task or run.config.data.tasks)
        self.run, self.options, self.tasks = run, options, [get_task(name) for name in names]
        self.heldout = {task.name: HeldOut(run.config, task.name, run.codec.passport()) for task in self.tasks}
        self.metrics = installed_metrics(sorted({name for task in self.tasks for name in task.metrics}))
        self.path = options.run / "evaluation.json"

    @cached_property
    def programs(self) -> Programs:
        config, mesh = self.run.config, make_mesh(MeshConfig(), jax.devices()[:1])
        return Programs(config.model, config.train, config.optim, mesh)

    @cached_property
    def untrained(self) -> Params:
        return self.programs.init(jax.random.key(self.run.config.train.seed)).params

    def evaluate(self) -> dict[str, Any]:
        """Evaluates the tasks that evaluation.json does not hold yet, and returns what it holds then.

        It is written after each task, with the reason in place of a task that failed.
        """
        _ = self.run.params  # reading them settles which step is evaluated
        record = self._begun()
        for task in self.tasks:
            if task.name in record["tasks"]:
                continue
            try:
                record["tasks"][task.name] = self._entry(task)
            except Exception as error:  # of whatever kind, it costs this task alone
                if os.environ.get("UNIAUDIO_TRACEBACK"):
                    raise
                record["failed"][task.name] = f"{type(error).__name__}: {error}"
                print(f"{task.name} failed: {record['failed'][task.name]}")
            write_json(self.path, record)
        return record

    def _begun(self) -> dict[str, Any]:
        """The evaluation in evaluation.json where it is of this step and these options and lacks tasks, else an empty
        one."""
        options = {
            "task": [task.name for task in self.tasks],
            "count": self.options.count,
            "sampling": asdict(self.options.sampling),
            "metrics": self.metrics,
        }
        empty = {"step": self.run.step, "options": options, "tasks": {}, "failed": {}}
        try:
            before = json.loads(self.path.read_text())
            same = all(before[key] == empty[key] for key in ("step", "options"))
            finished = [task.name for task in self.tasks if task.name in before["tasks"]]
        except (OSError, ValueError, KeyError, TypeError):
            return empty
        if not same or not finished or len(finished) == len(self.tasks):
            return empty
        print(f"{self.path}: goes on with what is missing; of step {self.run.step} it has {', '.join(finished)}")
        return before | {"failed": {}}

    def _entry(self, task: Task) -> dict[str, Any]:
        """The entry of one task; its first sample, where it is audio, is written beside as wav files."""
        run, heldout, count = self.run, self.heldout[task.name], self.options.count
        examples = heldout.examples(ALL)
        if not examples:
            raise ValueError("none of its held-out examples fits a row of the run; see data.row_frames")
        losses = task_losses(run, self.programs, self.untrained, task, heldout, examples)
        if not np.isfinite([losses["loss"], *losses["loss_per_level"]]).all():
            raise ValueError(
                f"the held-out loss at step {run.step} is {losses['loss']}, wanted a finite one; the weights are "
                "broken, train again from an earlier checkpoint or with a lower learning rate"
            )
        samples = generated_samples(run, task, examples[:count], self.options.sampling)
        known = dict(enumerate(samples))
        for number in (numbers := other_clips(task, examples, count)):
            if number not in known:
                known[number] = sample_of(run, task, examples[number], examples[number].streams[task.target.key])
        others = [known[number] for number in numbers]
        if task.makes_audio:
            for signal, path in zip(
                (samples[0].reference, samples[0].estimate), shown_files(run.path, task.name), strict=True
            ):
                write_audio(path, signal, samples[0].sample_rate_hz)
        return losses | task_metrics(task, samples, others, [name for name in task.metrics if name in self.metrics])


def main() -> None:
    with main_guard("the tasks that are finished are in evaluation.json; the same command goes on with the others"):
        options = parse(EvaluateOptions, __doc__)
        for name in options.task:
            get_task(name)
        check_folder("--run", options.run)
        use_compile_cache()
        run = load_run(options.run, options.data_root)
        record = Evaluator(run, options).evaluate()
        tasks, failed = record["tasks"], record["failed"]
        text = to_markdown(run, tasks)
        with atomic_write(options.run / "evaluation.md") as partial:
            partial.write_text(text, encoding="utf-8")
        picture = draw_evaluation(options.run, tasks, read_metrics(options.run / METRICS_FILE)) if tasks else None
        print(f"{text}\n{options.run}: evaluation.json, evaluation.md{', evaluation.png' if picture else ''}")
        if failed:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
            raise ValueError(
                f"{len(failed)} of {len(tasks) + len(failed)} tasks could not be evaluated ({reasons}); the others are "
                "kept, and the same command tries these again"
            )


if __name__ == "__main__":
    main()
