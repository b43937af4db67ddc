"""Which tasks of a run help each other: their held-out losses by level, and the cosines between their gradients.

    python -m uniaudio_jax.bench interference --run RUN

reads the newest checkpoint of a run and its tokens, and writes interference.png, .md and .json.

A step down the gradient of one task changes the loss of another by how far their gradients point the same way. A cosine
of 1 helps the other task as much as its own examples do, 0 does not matter to it, a negative one interferes. It holds
for the weights of this checkpoint and for plain gradient steps: an optimizer that scales each weight by its own, as
AdamW does, may turn a small one around.

Gradients of a few batches are noisy, and noise makes every cosine smaller. The batches of a task are therefore dealt to
two halves, whose gradients a and b have the signal in common and not the noise. With g = a + b,

    measured      g_i·g_j / (|g_i| |g_j|)
    self-cosine   4 a_i·b_i / |g_i|², what is expected between g_i and the gradient of as many other batches of task i
    corrected     measured / sqrt(self-cosine of i × self-cosine of j), Spearman's correction for attenuation (1904)

Tables and picture have the self-cosines on the diagonal, the measured cosines below it and the corrected ones above it.
A cell above it is empty where a self-cosine is below 0.1: most of what would be read there is noise. More --batches
raise the self-cosines; the corrected cosines should stay. By chance one may be above 1. More batches than a task has
examples for bring the same examples into both halves, and the noise looks smaller than it is.

The host holds one float32 gradient for each task (eleven of the quickstart's model 0.2 GB, of the paper's 41 GB), and
the device the weights and three gradients at a time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from data_pipelines.batches import open_training_data
from data_pipelines.heldout import HeldOut
from uniaudio_jax.bench.options import BenchOptions
from uniaudio_jax.cli import use_compile_cache
from uniaudio_jax.config import MeshConfig
from uniaudio_jax.files import atomic_write
from uniaudio_jax.metrics.plots import HeatMap, draw_heat_maps
from uniaudio_jax.metrics.tables import cell, markdown_table
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.paths import PlaceOption
from uniaudio_jax.programs import Programs
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.sequence import Batch
from uniaudio_jax.sharding import make_mesh, place_batch
from uniaudio_jax.tasks import get_task
from uniaudio_jax.validation import heldout_tally, losses_of

LEAST_SELF_COSINE = 0.1
"""Where a task's self-cosine is smaller, its cosines are not corrected."""
STACKS = ("global", "local")
PARTS = {"all weights": STACKS, "global stack": STACKS[:1], "local stack": STACKS[1:]}


@dataclass(frozen=True, kw_only=True)
class Options(BenchOptions):
    """Held-out losses of a run by task and level, and the cosines between the gradients of its tasks."""

    run: PlaceOption
    """Folder of a training."""
    task: tuple[str, ...] = ()
    """Tasks to compare, by default all of the run."""
    data_root: PlaceOption | None = None
    """Folder of the tokenised corpora, where it is not that of the run's config (data.root)."""
    batches: int = 16
    """Batches of training examples that the gradient of each task is made of."""
    rows: int | None = None
    """Rows of a batch, by default as many as in the training (data.rows); here one device holds all of them."""

    def __post_init__(self):
        if self.batches < 2 or self.batches % 2:
            raise ValueError(f"--batches: got {self.batches}, wanted an even number, for two equal halves")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"--rows: got {self.rows}, wanted at least 1")


class Gradient(NamedTuple):
    """The gradient of one task, on the host, and by stack the dot product of its two halves."""

    whole: Params
    halves: dict[str, float]


def run(options: Options) -> dict[str, Any]:
    """The losses by task, the cosines by part of the model, and tables of both."""
    for name in options.task:
        get_task(name)
    use_compile_cache()
    trained = load_run(options.run, options.data_root)
    data = trained.config.data
    tasks = {name: data.tasks.get(name, 1.0) for name in options.task} or data.tasks
    trained.config = replace(trained.config, data=replace(data, tasks=tasks, rows=options.rows or data.rows))
    losses, gradients = measure(trained, options.batches)
    cosines = {part: cosines_of(gradients, stacks) for part, stacks in PARTS.items()}
    maps = heat_maps(losses, cosines)
    tables = {one.title: table_of(one) for one in maps}
    with atomic_write(options.out / "interference.md") as partial:
        partial.write_text(to_markdown(trained, options.batches, tables), encoding="utf-8")
    draw_heat_maps(options.out / "interference.png", maps)
    listed = {p: {key: [*map(with_none, matrix)] for key, matrix in both.items()} for p, both in cosines.items()}
    return {
        "run": str(options.run),
        "step": trained.step,
        "batches of each task": options.batches,
        "rows of a batch": trained.config.data.rows,
        "tables": tables,
        "details": {"losses": losses, "cosines": listed},
    }


def measure(run: Run, batches: int) -> tuple[dict[str, dict[str, Any]], list[Gradient]]:
    """The held-out losses of each task of the run's config, and its gradient from so many batches.

    All data is opened first, so that what is missing is told at once. Raises ValueError where the weights give numbers
    that are not finite.
    """
    config, mesh = run.config, make_mesh(MeshConfig(), jax.devices()[:1])
    training = {name: training_batches(run, name, number, batches) for number, name in enumerate(config.data.tasks)}
    heldout = {name: HeldOut(config, name, run.codec.passport()) for name in config.data.tasks}
    programs = Programs(config.model.canonical(), config.train, config.optim, mesh)
    losses, gradients = {}, []
    for name in tqdm(config.data.tasks, desc="interference", unit=" tasks"):
        tally = heldout_tally(programs, run.params, heldout[name].batches(), f"{name} held out")
        losses[name] = losses_of(get_task(name), tally)
        of_task = tqdm(training[name], desc=f"{name} gradients", unit=" batches", total=batches, leave=False)
        gradients.append(task_gradient(programs, run.params, of_task))
        if not np.isfinite([losses[name]["loss"], *gradients[-1].halves.values()]).all():
            raise ValueError(
                f"{run.path}: the loss or the gradient of {name} at step {run.step} is not finite; the weights are "
                "broken, train again from an earlier checkpoint or with a lower learning rate"
            )
    return losses, gradients


def training_batches(run: Run, task: str, number: int, count: int) -> Iterator[Batch]:
    """The first `count` batches of a training on this task alone.

    Each task draws with a seed of its own, as in the training: tasks that are made of the same clips would otherwise
    meet them in the same order, and their gradients would have the noise in common too.
    """
    config = run.config
    data = replace(config.data, tasks={task: 1.0}, seed=config.data.seed + number)
    passport, model = run.codec.passport(), config.model
    opened = open_training_data(data, config.train.loss_on, model.ids, model.text_width, passport, 0, 1)
    return (opened.batches[number] for number in range(count))


def task_gradient(programs: Programs, params: Params, batches: Iterable[Batch]) -> Gradient:
    """The gradient of the summed loss of all batches; every other one belongs to the second half."""
    halves: list[Params] = []
    for number, batch in enumerate(batches):
        gradient, _ = programs.gradients(params, place_batch(batch, programs.mesh))
        if number < 2:
            halves.append(gradient)
        else:
            halves[number % 2] = programs.add(halves[number % 2], gradient)
    products = {stack: dot(halves[0][stack], halves[1][stack]) for stack in STACKS}
    return Gradient(jax.device_get(programs.add(*halves)), products)


def dot(one: Params, other: Params) -> float:
    """The dot product of two trees of arrays, in float64, array by array."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return sum(float(np.vdot(np.asarray(a, np.float64), np.asarray(b, np.float64))) for a, b in pairs)


def cosines_of(gradients: Sequence[Gradient], stacks: Sequence[str]) -> dict[str, np.ndarray]:
    """The measured cosines of these stacks' weights, with the self-cosines on the diagonal, and the corrected ones,
    NaN where a self-cosine is too small for a correction."""
    products = np.zeros((len(gradients), len(gradients)))
    for row, one in enumerate(gradients):
        for column, other in enumerate(gradients[: row + 1]):
            products[row, column] = sum(dot(one.whole[stack], other.whole[stack]) for stack in stacks)
            products[column, row] = products[row, column]
    lengths = np.sqrt(np.diag(products))
    halves = np.array([sum(one.halves[stack] for stack in stacks) for one in gradients])
    self_cosines = 4 * halves / lengths**2
    measured = products / np.outer(lengths, lengths)
    np.fill_diagonal(measured, self_cosines)
    known = np.where(self_cosines < LEAST_SELF_COSINE, np.nan, self_cosines)
    corrected = measured / np.sqrt(np.outer(known, known))
    return {"measured": measured, "corrected": corrected}


def heat_maps(losses: Mapping[str, Mapping[str, Any]], cosines: Mapping[str, Mapping[str, Any]]) -> list[HeatMap]:
    """The losses by task and level, and for each part of the model the cosines."""
    levels = max(len(entry["loss_per_level"]) for entry in losses.values())
    table = np.full((len(losses), levels + 1), np.nan)
    for row, entry in zip(table, losses.values(), strict=True):
        row[: len(entry["loss_per_level"]) + 1] = entry["loss"], *entry["loss_per_level"]
    names, columns = list(losses), ["mean", *(f"level {level}" for level in range(1, levels + 1))]
    maps = [HeatMap("held-out loss, nats per token", names, columns, table)]
    for part, of_part in cosines.items():
        title = f"cosines of gradients, {part} (above the diagonal: without noise)"
        both = np.tril(of_part["measured"]) + np.triu(of_part["corrected"], 1)
        maps.append(HeatMap(title, names, names, both, signed=True))
    return maps


def table_of(one: HeatMap) -> str:
    rows = [[name, *map(cell, with_none(values))] for name, values in zip(one.rows, one.values, strict=True)]
    return markdown_table(["", *one.columns], rows)


def with_none(values: Any) -> list[float | None]:
    """The numbers, with None for NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


def to_markdown(run: Run, batches: int, tables: Mapping[str, str]) -> str:
    """The text of interference.md."""
    parts = "\n\n".join(f"## {title[0].upper()}{title[1:]}\n\n{table}" for title, table in tables.items())
    return f"""# {run.config.name}, step {run.step}

{batches} batches of {run.config.data.rows} rows of training examples of each task. On the diagonal the cosine that is
expected with as many other batches of the same task; below it the measured cosines; above it those without the noise,
measured / sqrt(the product of both self-cosines), empty where one is below {LEAST_SELF_COSINE}. 1 helps, 0 does not
matter, a negative one interferes.

{parts}
"""
