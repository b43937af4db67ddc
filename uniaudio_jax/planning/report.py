"""A plan in words and as a table."""

from uniaudio_jax.clock import FrameClock
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import RunConfig
from uniaudio_jax.metrics.tables import markdown_table
from uniaudio_jax.planning.search import Plan
from uniaudio_jax.planning.step import GIB, ProgramPlan

SHORT = {"all-gather": "gather", "all-reduce": "reduce", "reduce-scatter": "scatter", "collective-permute": "permute"}


def plan_table(plan: Plan) -> str:
    """One line for each program: what it needs, moves and computes on one device."""
    head = ["program", "needs, GiB", "temporary", "collectives: number, GiB", "in loops, GiB", "TFLOP"]
    head += ["compute, ms", "memory, ms", "interconnect, ms", "bound by", "compiled in, s"]
    return markdown_table(head, [_line(plan, program) for program in plan.programs])


def _line(plan: Plan, program: ProgramPlan) -> list[str]:
    start = [program.name, f"{program.needs_gib:.2f}", f"{program.temporary_gib:.2f}"]
    work, compiled = f"{program.run_tflop:.1f}", f"{program.compile_seconds:.0f}"
    if program.refused:
        return [*start, "", "", work, "", "", "", "does not fit", compiled]
    moved = program.moved
    collectives = ", ".join(
        f"{SHORT.get(kind, kind)} {moved.counts[kind]:.0f}: {size / GIB:.2f}"
        for kind, size in sorted(moved.bytes.items())
    )
    times = [f"{1000 * seconds:.0f}" for seconds in program.seconds(plan.chip).values()]
    inside = f"{sum(moved.in_loops.values()) / GIB:.2f}"
    return [*start, collectives, inside, work, *times, program.bound(plan.chip), compiled]


def describe_plan(plan: Plan, topology: str, hours: float | None, utilisation: float) -> str:
    """What the step needs and at best takes, and what `hours` of audio take at this utilisation."""
    chips = plan.devices // plan.chip.devices
    rows = f"{plan.rows_per_device:g} rows of {plan.run.data.row_frames} frames on each device"
    lines = [f"{topology}: {plan.devices} devices ({plan.kind}), mesh {'x'.join(map(str, plan.mesh))}, {rows}"]
    if plan.run.model.global_stack.attention != "auto":
        lines.append(f"attention: {plan.run.model.global_stack.attention} (a GPU would use cuDNN's, which needs less)")
    needs = f"needs {plan.needs_gib:.2f} of {plan.chip.memory_gib} GiB"
    if not plan.fits:
        return "\n".join([*lines, f"does not fit: {needs}"])
    lines += [
        f"fits: {needs}",
        f"estimate: at least {plan.step_seconds:.3f} s a step, a utilisation of {plan.utilisation:.0%} at most",
    ]
    if hours is not None:
        days = hours * _seconds_of_hour(plan, utilisation) / 86400
        lines.append(
            f"estimate: {hours:,.0f} hours of audio at {utilisation:.0%}: {days:.1f} days, {days * 24 * chips:,.0f} "
            f"chip-hours (rows with {plan.run.data.target_frames} target frames each)"
        )
    return "\n".join(lines)


def describe_roomier(plan: Plan) -> str:
    """What a run needs that was changed to save memory."""
    train = plan.run.train
    return (
        f"with --train.global-remat {train.global_remat} --train.local-remat {train.local_remat} and "
        f"{plan.rows_per_device:g} rows on each device it needs {plan.needs_gib:.2f} of {plan.chip.memory_gib} GiB"
    )


def _seconds_of_hour(plan: Plan, utilisation: float) -> float:
    """Seconds that an hour of target audio takes at this utilisation, where all rows are full."""
    step = plan.model_tflop / plan.chip.tflops / utilisation
    frames = plan.run.data.rows * plan.run.data.target_frames * plan.run.train.accumulate
    return step * _frames_of_hour(plan.run) / frames


def _frames_of_hour(run: RunConfig) -> float:
    clock = FrameClock.from_passport(load_codec(run.codec_of_tokens()).passport())
    return 1 / clock.hours(1)
