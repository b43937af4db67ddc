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
from tqdm import tqdm

from data_pipelines.heldout import Example, HeldOut, target_histogram
from uniaudio_jax.cli import main_guard, use_compile_cache
from uniaudio_jax.config import MeshConfig
from uniaudio_jax.decoding import Sampling
from uniaudio_jax.loss import Tally, add_tallies, empty_tally
from uniaudio_jax.metrics import waveform
from uniaudio_jax.metrics.plots import Pair, draw_evaluation
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.programs import Programs
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.sharding import make_mesh, place_batch
from uniaudio_jax.tasks import KINDS, TASK_NUMBERS, Task, get_task

METRICS: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "stoi": waveform.stoi,
    "mel_distance": waveform.mel_distance,
    "si_sdr_db": lambda reference, estimate, rate: waveform.si_sdr_db(reference, estimate),
}


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """run: folder of a training. task: tasks to evaluate, all of the run by default. count: waveforms per task."""

    run: Path
    task: tuple[str, ...] = ()
    count: int = 8
    sampling: Sampling = field(default_factory=Sampling)


def heldout_tally(programs: Programs, params: Params, heldout: HeldOut, about: str) -> Tally:
    """The tally of all held-out target items of one task."""
    tally = empty_tally(programs.model.codebooks)
    for batch in tqdm(heldout.batches(), desc=about, unit=" batches", leave=False):
        tally = add_tallies(tally, programs.evaluate(params, place_batch(batch, programs.mesh)))
    return jax.device_get(tally)


def unigram_loss(counts: np.ndarray, examples: list[np.ndarray]) -> list[float]:
    """Nats per token of each level when codes are drawn from their training frequencies (add one), [Q]."""
    chances = np.log((counts + 1) / (counts + 1).sum(axis=1, keepdims=True))
    return [float(-np.concatenate([row[codes[:, level]] for codes in examples]).mean())
            for level, row in enumerate(chances)]  # fmt: skip


def waveform_metrics(
    run: Run, task: Task, examples: list[Example], sampling: Sampling
) -> tuple[dict[str, float], Pair]:
    """Metrics, and the first reference with what was generated for it.

    The metrics are means over the examples: of what was generated, of the input (where the task has one that is
    aligned with the target), and of another example's reference, which is chance; all against the codec's resynthesis.
    """

    def decode(codes: np.ndarray) -> np.ndarray:
        return run.codec.decode(codes)

    references = [decode(example.streams[task.target.key]) for example in examples]
    estimates = {
        "": [
            decode(codes) for codes in run.generate_like(task.name, [example.streams for example in examples], sampling)
        ]
    }
    aligned = [s for s in task.conditions if KINDS[s.kind].name == "audio" and s.kind == task.target.kind]
    for stream in aligned:
        estimates["_of_input"] = [decode(example.streams[stream.key]) for example in examples]
    estimates["_of_another_reference"] = references[1:] + references[:1]
    found = {}
    for name in task.metrics:
        for of, signals in estimates.items():
            values = [METRICS[name](r, s, run.codec.sample_rate_hz) for r, s in zip(references, signals, strict=True)]
            found[name + of] = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    lengths = [len(e) / len(r) for e, r in zip(estimates[""], references, strict=True)]
    return {**found, "length_ratio": float(np.mean(lengths))}, (references[0], estimates[""][0])


def evaluate_task(
    run: Run, programs: Programs, fresh: Params, task: Task, options: EvaluateOptions
) -> tuple[dict[str, Any], Pair]:
    """The entry of one task in evaluation.json, and its first pair of waveforms."""
    heldout = HeldOut(run.config, task.name, run.codec.passport())
    row = TASK_NUMBERS[task.name]
    trained, untrained = (
        jax.tree.map(lambda field: np.asarray(field)[row], heldout_tally(programs, params, heldout, about))
        for params, about in ((run.params, f"{task.name} held out"), (fresh, f"{task.name} untrained"))
    )
    everything = [example.streams[task.target.key] for example in heldout.examples(10**9)]
    unigram = unigram_loss(target_histogram(run.config, task.name), everything)
    metrics, pair = waveform_metrics(run, task, heldout.examples(options.count), options.sampling)
    entry = {
        "loss": float(trained.loss.sum() / trained.tokens.sum()),
        "loss_per_level": (trained.loss / trained.tokens).tolist(),
        "accuracy_per_level": (trained.hits / trained.tokens).tolist(),
        "unigram_loss": float(np.mean(unigram)),
        "unigram_loss_per_level": unigram,
        "untrained_loss": float(untrained.loss.sum() / untrained.tokens.sum()),
        "heldout_examples": len(everything),
        "heldout_tokens": int(trained.tokens.sum()),
        "metrics": metrics,
        "waveforms": min(options.count, len(everything)),
    }
    return entry, pair


def to_markdown(run: Run, tasks: dict[str, dict[str, Any]]) -> str:
    """The tables of evaluation.md."""
    levels = range(1, run.config.model.codebooks + 1)
    head = ["task", "loss", "unigram", "untrained", "under unigram"]
    head += [f"loss {level}" for level in levels] + [f"accuracy {level}" for level in levels]
    lines = [f"# {run.config.name}, step {run.step}", "",
             "Held-out target codes, nats per token. Unigram: training frequencies of the task's target at each level.",
             "", _row(head), _row(["---"] * len(head))]  # fmt: skip
    for name, entry in tasks.items():
        numbers = [entry["loss"], entry["unigram_loss"], entry["untrained_loss"], entry["unigram_loss"] - entry["loss"]]
        numbers += [*entry["loss_per_level"], *entry["accuracy_per_level"]]
        lines.append(_row([name, *(f"{number:.3f}" for number in numbers)]))
    lines += ["", "Generated waveforms against the codec's resynthesis of the reference; `_of_input` is the condition "
              "itself, `_of_another_reference` is chance.", "", _row(["task", "metric", "mean", "examples"]),
              _row(["---"] * 4)]  # fmt: skip
    lines += [_row([name, metric, f"{value:.3f}", str(entry["waveforms"])])
              for name, entry in tasks.items() for metric, value in entry["metrics"].items()]  # fmt: skip
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
        pairs = {name: pair for name, (_, pair) in found.items()}
        picture = draw_evaluation(options.run, tasks, pairs, run.codec.sample_rate_hz)
        print(f"{text}\n{options.run}: evaluation.json, evaluation.md{', evaluation.png' if picture else ''}")


if __name__ == "__main__":
    main()
