"""Plans of a whole step, and the choice among meshes, rows and ways to compute again."""

import itertools
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

from uniaudio_jax.config import MeshConfig, ModelConfig, Remat, RunConfig
from uniaudio_jax.model.uniaudio import ModelDefinition, count_parameters
from uniaudio_jax.planning.chips import Chip, chip_of, plan_mesh
from uniaudio_jax.planning.step import GIB, ProgramPlan, compile_step, step_tflop
from uniaudio_jax.programs import Programs
from uniaudio_jax.sharding import check_rows, mesh_shape

TENSOR = (1, 2)
"""Parts of heads and MLP that a search tries; more of them make each product small, and vectors travel more."""
REMATS: tuple[Remat, ...] = ("none", "dots", "full")


@dataclass
class Plan:
    """A step of a run on some devices; `programs` ends with the first that does not fit, if one does not."""

    run: RunConfig
    kind: str
    chip: Chip
    mesh: tuple[int, int, int]
    programs: list[ProgramPlan]

    @property
    def devices(self) -> int:
        return self.mesh[0] * self.mesh[1] * self.mesh[2]

    @property
    def rows_per_device(self) -> float:
        return self.run.data.rows / (self.mesh[0] * self.mesh[1])

    @property
    def needs_gib(self) -> float:
        """Of the program that needs most."""
        return max(program.needs_gib for program in self.programs)

    @property
    def fits(self) -> bool:
        return self.needs_gib <= self.chip.memory_gib and not any(program.refused for program in self.programs)

    @property
    def step_seconds(self) -> float:
        """The least time of a step: of each program, what bounds it."""
        passes = self.run.train.accumulate
        return sum(
            max(program.seconds(self.chip).values()) * (1 if program.name == "update" else passes)
            for program in self.programs
        )

    @property
    def model_tflop(self) -> float:
        """1e12 operations that the model needs of a device in a step."""
        return sum(tflop for tflop, _ in step_tflop(self.run, self.devices).values())

    @property
    def utilisation(self) -> float:
        """Share of the chip's peak that the model's own operations reach at the least time."""
        return self.model_tflop / self.chip.tflops / self.step_seconds

    def as_json(self) -> dict[str, Any]:
        programs = [asdict(one) | {"seconds": one.seconds(self.chip)} for one in self.programs]
        return {
            "device": self.kind,
            "chip": self.chip._asdict(),
            "mesh": self.mesh,
            "rows": self.run.data.rows,
            "fits": self.fits,
            "needs_gib": self.needs_gib,
            "step_seconds": self.step_seconds if self.fits else None,
            "utilisation": self.utilisation if self.fits else None,
            "programs": programs,
        }


def make_plan(run: RunConfig, devices: list[Any], rows_per_device: int | None) -> Plan:
    """The plan of a run on these devices. Raises ValueError for a mesh or rows that do not fit their number."""
    shape = mesh_shape(run.mesh, len(devices))
    if rows_per_device is not None:
        run = replace(run, data=replace(run.data, rows=rows_per_device * shape[0] * shape[1]))
    if devices[0].platform != "tpu" and run.model.global_stack.attention == "auto":
        run = replace(run, model=with_attention(run.model, "blocked"))
    mesh = plan_mesh(run.mesh, devices)
    check_rows(mesh, run.data.rows, "data.rows")
    programs = Programs(run.model, run.train, run.optim, mesh, run.lora)
    plan = Plan(run, devices[0].device_kind, chip_of(devices), shape, [])
    plan.programs += compile_step(run, programs, lambda text: print(text, "…", file=sys.stderr, flush=True))
    return plan


def with_attention(model: ModelConfig, kernel: str) -> ModelConfig:
    """The model with this attention in its global stack: cuDNN's cannot be compiled without a GPU."""
    return replace(model, global_stack=replace(model.global_stack, attention=kernel))


def roomier(plan: Plan) -> RunConfig | None:
    """The run with the next thing that saves memory: everything computed again, or half of the rows."""
    train, data = plan.run.train, plan.run.data
    if train.global_remat != "full" or train.local_remat != "full":
        return replace(plan.run, train=replace(train, global_remat="full", local_remat="full"))
    if data.rows % (2 * plan.mesh[0] * plan.mesh[1]) == 0:
        return replace(plan.run, data=replace(data, rows=data.rows // 2))
    return None


def search_plans(run: RunConfig, devices: list[Any], rows_per_device: int | None) -> Plan:
    """The plan with the most utilisation: for each number of tensor parts and each way to compute again, the most
    promising mesh and rows by a rough estimate are compiled.

    Raises ValueError when none of those that were compiled fits.
    """
    tried = []
    for candidate in _most_promising(run, devices, rows_per_device):
        plan = make_plan(candidate, devices, None)
        tried.append(plan)
        verdict = f"utilisation {plan.utilisation:.2f}" if plan.fits else "does not fit"
        print(
            f"mesh {'x'.join(map(str, plan.mesh))}, {plan.rows_per_device:g} rows a device, global_remat "
            f"{candidate.train.global_remat}: needs {plan.needs_gib:.1f} of {plan.chip.memory_gib} GiB, {verdict}",
            file=sys.stderr,
            flush=True,
        )
    fitting = [plan for plan in tried if plan.fits]
    if not fitting:
        least = min((plan.needs_gib for plan in tried), default=float("nan"))
        raise ValueError(
            f"--search: none of {len(tried)} candidates fits {chip_of(devices).memory_gib} GiB; the smallest needs "
            f"{least:.1f}; choose fewer rows (--rows-per-device), shorter rows or more devices"
        )
    return max(fitting, key=lambda plan: plan.utilisation)


def _most_promising(run: RunConfig, devices: list[Any], rows_per_device: int | None) -> list[RunConfig]:
    """Of the runs that may fit by a rough estimate of memory, the one with the best rough estimate of utilisation, and
    then with the least to send, for each number of tensor parts and each way to compute again."""
    chip, count = chip_of(devices), len(devices)
    sizes = [2**power for power in range(count.bit_length()) if count % 2**power == 0]
    best: dict[tuple[int, str], tuple[tuple[float, float], RunConfig]] = {}
    all_rows = [rows_per_device] if rows_per_device else [2, 4, 8, 16]
    for fsdp, tensor, rows, remat in itertools.product(sizes, TENSOR, all_rows, REMATS):
        if count % (fsdp * tensor) or not _divides(run.model, fsdp, tensor):
            continue
        data = count // (fsdp * tensor)
        candidate = replace(
            run,
            data=replace(run.data, rows=rows * data * fsdp),
            train=replace(run.train, global_remat=remat),
            mesh=MeshConfig(data=data, fsdp=fsdp, tensor=tensor),
        )
        if _rough_gib(candidate, fsdp, tensor, rows) > 1.1 * chip.memory_gib:
            continue
        utilisation, sending = _rough_time(candidate, chip, (data, fsdp, tensor), rows)
        worth = round(utilisation, 2), -sending
        if (tensor, remat) not in best or worth > best[tensor, remat][0]:
            best[tensor, remat] = worth, candidate
    return [candidate for _, candidate in best.values()]


def _divides(model: ModelConfig, fsdp: int, tensor: int) -> bool:
    return (
        model.token_width % fsdp == 0
        and model.global_stack.heads % tensor == 0
        and model.vocabulary_size % tensor == 0
        and model.first_ids % tensor == 0
    )


def _rough_gib(run: RunConfig, fsdp: int, tensor: int, rows: int) -> float:
    """State and gradients, what the forward pass keeps, a layer at work, and the whole local weights."""
    counts = count_parameters(ModelDefinition(run.model.canonical()).shapes())
    stack, means = run.model.global_stack, 2 if run.optim.state_dtype == "bfloat16" else 4
    stored = sum(counts.values()) * (8 + 2 * means) / (fsdp * tensor)
    vector = rows * run.data.row_frames * stack.width * 2
    kept = {"none": 24 / tensor, "dots": 1 + 8 / tensor, "full": 1}[run.train.global_remat]
    return (stored + vector * (kept * stack.layers + 24) + 6 * counts["local"]) / GIB


def _rough_time(run: RunConfig, chip: Chip, mesh: tuple[int, int, int], rows: int) -> tuple[float, float]:
    """The model's share of the time in which it computes, or weights and, between tensor parts, vectors travel; and the
    time of travelling by that of computing."""
    (data, fsdp, tensor), stack = mesh, run.model.global_stack
    counts = count_parameters(ModelDefinition(run.model.canonical()).shapes())
    work = step_tflop(run, data * fsdp * tensor).values()
    vectors = 2 * 4 * stack.layers * rows * run.data.row_frames * stack.width * 2 if tensor > 1 else 0
    reduced = 1 if data > 1 or tensor > 1 else 2  # over a whole slice libtpu reduces to all, not to parts
    copies = 4 * 2 * sum(counts.values()) / fsdp if data > 1 else 0
    sent = ((4 + 2 * reduced) * counts["global"] / tensor + (2 + 4 * reduced) * counts["local"]) * (fsdp > 1)
    seconds = (sent + copies + vectors) / (chip.link_gb_s * 1e9)
    compute = sum(ran for _, ran in work) / chip.tflops
    return sum(needed for needed, _ in work) / chip.tflops / max(compute, seconds), seconds / compute
