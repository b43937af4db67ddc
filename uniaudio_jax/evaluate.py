"""Evaluate a run on held-out data, or compare two evaluations.

    python -m uniaudio_jax.evaluate --run RUN
    python -m uniaudio_jax.evaluate --compare RUN_A RUN_B

The first prints and saves RUN/evaluation.md, RUN/evaluation.json and RUN/evaluation.png: per task the loss and accuracy
of each codebook level beside two baselines, and metrics with intervals of what was generated, beside the same for the
ground truth, the codec's resynthesis and chance. The first clips of each task are in RUN/evaluation/. Each task is
saved when it is finished: an evaluation that was cut off, or in which a task failed, goes on with what is missing when
it is run again. All devices of this machine work on it.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from data_pipelines.corpora import Split
from data_pipelines.heldout import Example, HeldOut, levels_of, target_histogram
from uniaudio_jax.cli import main_guard, parse, use_compile_cache
from uniaudio_jax.config import MeshConfig
from uniaudio_jax.evaluation.clips import keep_clip
from uniaudio_jax.evaluation.comparison import compare, comparison_table
from uniaudio_jax.evaluation.examples import judged_examples
from uniaudio_jax.evaluation.rows import judge, rows_of
from uniaudio_jax.evaluation.tables import to_markdown
from uniaudio_jax.files import atomic_write, check_folder, write_json
from uniaudio_jax.metrics.judges import Judges
from uniaudio_jax.metrics.plots import draw_evaluation
from uniaudio_jax.metrics.registry import make_metrics
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.paths import Place, PlaceOption
from uniaudio_jax.programs import Programs
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.shipped import place_of_run
from uniaudio_jax.sinks.jsonl import FILE as METRICS_FILE
from uniaudio_jax.sinks.jsonl import read_metrics
from uniaudio_jax.tasks import Task, get_task, metrics_of
from uniaudio_jax.validation import heldout_tally, losses_of

ALL = 10**9
"""More examples than any split has."""
UNTRAINED_BATCHES = 8
"""Batches for the loss of untrained weights: it is about the same for any."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What to evaluate, or to compare."""

    run: PlaceOption | None = None
    """Folder of a training."""
    compare: tuple[PlaceOption, PlaceOption] | None = None
    """Folders of two evaluated trainings, instead of --run: prints which is better by each metric, and whether that may
    be chance."""
    task: tuple[str, ...] = ()
    """Tasks to evaluate, by default all of the run."""
    split: Split = "heldout"
    """Which examples: heldout, or train to see what was learned by heart."""
    checkpoint: int | None = None
    """Step of the checkpoint, by default the newest."""
    data_root: PlaceOption | None = None
    """Folder of the tokenised corpora, where it is not that of the run's config (data.root)."""
    count: int = 8
    """Examples of each task to generate for the metrics."""
    keep: int = 3
    """Examples of each task whose audio and texts stay in the folder evaluation of the run."""
    reference_only: bool = False
    """Judges the references alone, without the model: what the data and the codec allow."""
    sampling: Sampling = field(default_factory=Sampling)
    judges: Judges = field(default_factory=Judges)

    def __post_init__(self):
        for name, least in (("count", 1), ("keep", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name}: got {getattr(self, name)}, wanted at least {least}")
        if (self.run is None) == (self.compare is None):
            raise ValueError("evaluate: wanted --run RUN or --compare RUN_A RUN_B, one of them")


def unigram_loss(counts: np.ndarray, targets: list[np.ndarray]) -> list[float]:
    """Nats per token of each level, [Q], or [1] for ids, of tokens predicted by their training frequencies plus one."""
    log_chances = np.log((counts + 1) / (counts + 1).sum(axis=1, keepdims=True))
    tokens = np.concatenate([levels_of(target, len(counts)) for target in targets], axis=1)
    return [float(-row[column].mean()) for row, column in zip(log_chances, tokens, strict=True)]


def task_losses(
    run: Run, programs: Programs, untrained: Params, task: Task, heldout: HeldOut, examples: Sequence[Example]
) -> dict[str, Any]:
    """Losses of one task, of the run and of two baselines: training frequencies, and untrained weights on the first
    batches."""
    losses, fresh = (
        losses_of(task, heldout_tally(programs, params, heldout.batches(), f"{task.name} {about}", most))
        for params, about, most in (
            (programs.place(run.params), heldout.split, None),
            (untrained, "untrained", UNTRAINED_BATCHES),
        )
    )
    targets = [example.streams[task.target.key] for example in examples]
    unigram = unigram_loss(target_histogram(run.config, task.name), targets)
    baselines = {
        "unigram_loss": float(np.mean(unigram)),
        "unigram_loss_per_level": unigram,
        "untrained_loss": fresh["loss"],
    }
    return {**losses, **baselines, "heldout_examples": len(targets)}


def generate_like(run: Run, task: Task, examples: Sequence[Example], sampling: Sampling) -> dict[int, np.ndarray]:
    """What the run generates for examples, as raw items by their numbers."""
    made = run.results_like(task.name, [example.streams for example in examples], sampling)
    return dict(tqdm(made, total=len(examples), desc=f"{task.name} generated", unit=" clips", leave=False))


class Evaluator:
    """A run and what its tasks are judged with."""

    def __init__(self, run: Run, options: EvaluateOptions):
        names = dict.fromkeys(options.task or run.config.data.tasks)
        self.run, self.options, self.tasks = run, options, [get_task(name) for name in names]
        passport = run.codec.passport()
        self.heldout = {task.name: HeldOut(run.config, task.name, passport, split=options.split) for task in self.tasks}
        self.metrics = make_metrics(metrics_of(self.tasks), options.judges)
        self.path = run.path / "evaluation.json"

    @cached_property
    def programs(self) -> Programs:
        config, devices = self.run.config, jax.local_devices()
        mesh = make_mesh(MeshConfig(), devices[: math.gcd(config.data.rows, len(devices))])
        return Programs(config.model, config.train, config.optim, mesh)

    @cached_property
    def untrained(self) -> Params:
        return self.programs.init(jax.random.key(self.run.config.train.seed)).params

    def evaluate(self) -> dict[str, Any]:
        """Evaluates the tasks that evaluation.json does not hold yet, and returns what it holds then.

        It is written after each task, with the reason in place of a task that failed.
        """
        if not self.options.reference_only:
            _ = self.run.params  # reading them settles which step is evaluated
        record = self._begun()
        missing = [task for task in self.tasks if task.name not in record["tasks"]]
        for task in tqdm(missing, desc="evaluate", unit="task"):
            try:
                record["tasks"][task.name] = self._entry(task)
            except Exception as error:  # of whatever kind, it costs this task alone
                if os.environ.get("UNIAUDIO_TRACEBACK"):
                    raise
                record["failed"][task.name] = f"{type(error).__name__}: {error}"
                tqdm.write(f"{task.name} failed: {record['failed'][task.name]}")
            write_json(self.path, record)
        return record

    def _begun(self) -> dict[str, Any]:
        """The evaluation in evaluation.json where it is of this step and these options and lacks tasks, else an empty
        one."""
        options = {
            name: value for name, value in asdict(self.options).items() if name not in ("run", "compare", "data_root")
        }
        options |= {"task": [task.name for task in self.tasks]}
        options = json.loads(json.dumps(options))
        empty = {
            "step": self.run.step,
            "options": options,
            "judges": {name: asdict(metric.about) for name, metric in self.metrics.items()},
            "tasks": {},
            "failed": {},
        }
        try:
            before = json.loads(self.path.read_text())
            same = all(before[key] == empty[key] for key in ("step", "options", "judges"))
            finished = [task.name for task in self.tasks if task.name in before["tasks"]]
        except (OSError, ValueError, KeyError, TypeError):
            return empty
        if not same or not finished or len(finished) == len(self.tasks):
            return empty
        print(f"{self.path}: goes on with what is missing; of step {self.run.step} it has {', '.join(finished)}")
        return before | {"failed": {}}

    def _entry(self, task: Task) -> dict[str, Any]:
        """The entry of one task; audio and texts of its first clips are written into the folder beside."""
        run, heldout, options = self.run, self.heldout[task.name], self.options
        examples = heldout.examples(ALL)
        if not examples:
            raise ValueError(f"none of its {heldout.split} examples fits a row of the run; see data.row_frames")
        losses, generated, sampling = {}, None, None
        if not options.reference_only:
            losses = task_losses(run, self.programs, self.untrained, task, heldout, examples)
            if not np.isfinite([losses["loss"], *losses["loss_per_level"]]).all():
                raise ValueError(
                    f"the {heldout.split} loss at step {run.step} is {losses['loss']}, wanted a finite one; the "
                    "weights are broken, train again from an earlier checkpoint or with a lower learning rate"
                )
            sampling = run.sampling_of(task.name, options.sampling)
            generated = generate_like(run, task, examples[: options.count], sampling)
        judged = judged_examples(run, task, heldout, examples, options.count)
        rows = rows_of(run, task, judged, generated)
        metrics = {name: metric for name, metric in self.metrics.items() if name in task.metrics}
        values, scores = judge(rows, metrics)
        samples = []
        for number, example in enumerate(judged.examples):
            kept = keep_clip(run.path, task, number, judged, rows) if number < options.keep else {}
            about = {"id": example.id, "text": example.text, "speaker": example.speaker, "corpus": example.corpus}
            samples.append({**about, **kept, "scores": scores[number]})
        drawn = {"sampling": sampling and asdict(sampling)}
        return {**losses, **drawn, "reference": judged.reference, "metrics": values, "samples": samples}


def evaluate_run(options: EvaluateOptions, path: Place) -> None:
    """Evaluates, writes the files and prints the tables. Raises ValueError at the end where tasks failed."""
    for name in options.task:
        get_task(name)
    check_folder("--run", path)
    run = load_run(path, options.data_root, options.checkpoint)
    record = Evaluator(run, options).evaluate()
    tasks, failed = record["tasks"], record["failed"]
    text = to_markdown(run.config.name, record, run.config.model.codebooks)
    with atomic_write(path / "evaluation.md") as partial:
        partial.write_text(text, encoding="utf-8")
    picture = draw_evaluation(path, tasks, read_metrics(path / METRICS_FILE)) if tasks else None
    print(f"{text}\n{path}: evaluation.json, evaluation.md{', evaluation.png' if picture else ''}")
    if failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise ValueError(
            f"{len(failed)} of {len(tasks) + len(failed)} tasks could not be evaluated ({reasons}); the others are "
            "kept, and the same command tries these again"
        )


def main() -> None:
    with main_guard("the tasks that are finished are in evaluation.json; the same command goes on with the others"):
        options = parse(EvaluateOptions, __doc__)
        use_compile_cache()
        if options.compare is not None:
            print(comparison_table(options.compare, compare(options.compare)))
        elif options.run is not None:
            evaluate_run(options, place_of_run(options.run))


if __name__ == "__main__":
    main()
