"""A training step compiled ahead of time: what each program holds, moves and computes on one device."""

import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from uniaudio_jax.config import RunConfig
from uniaudio_jax.flops import global_flops, local_flops, recomputed_flops
from uniaudio_jax.planning.chips import Chip
from uniaudio_jax.planning.hlo import Moved, read_moved
from uniaudio_jax.programs import Programs
from uniaudio_jax.sequence import Batch
from uniaudio_jax.sharding import rows_sharding

GIB = 2**30


@dataclass
class ProgramPlan:
    """One program on one device. Sizes in GiB; operations in 1e12, those of the model alone and those that are run."""

    name: str
    compile_seconds: float
    needs_gib: float
    """All that lies in memory while it runs: arguments, results and temporaries, and what waits beside them."""
    temporary_gib: float
    model_tflop: float
    run_tflop: float
    moved: Moved = field(default_factory=Moved)
    refused: bool = False
    """Whether the compiler found no way to fit it into the chip; then only its needs are known."""

    def seconds(self, chip: Chip) -> dict[str, float]:
        """The least time that each of compute, memory and interconnect takes; they overlap at best."""
        wire = sum(size * (2 if kind == "all-reduce" else 1) for kind, size in self.moved.bytes.items())
        return {
            "compute": self.run_tflop / chip.tflops,
            "memory": self.moved.memory_bytes / (chip.memory_gb_s * 1e9),
            "interconnect": wire / (chip.link_gb_s * 1e9),
        }

    def bound(self, chip: Chip) -> str:
        """What takes longest."""
        seconds = self.seconds(chip)
        return max(seconds, key=seconds.__getitem__)


def compile_step(run: RunConfig, programs: Programs, say: Callable[[str], None]) -> Iterator[ProgramPlan]:
    """The programs of a step in their order, each as soon as it is compiled; ends after one that does not fit.

    say: is told what is being compiled.
    """
    state, batch = programs.state_shapes(), batch_shapes(run, programs)
    params = {part: state.params[part] for part in ("global", "local")}
    held = {name: _gib(tree) for name, tree in {"state": state, "batch": batch, **params}.items()}
    if run.lora.rank is not None:
        held["state"] += _gib(params)  # merged weights lie beside those of the state until the update
    work = step_tflop(run, programs.mesh.size)

    def plan(name: str, function: Any, arguments: tuple, beside_gib: float) -> tuple[ProgramPlan, Any]:
        say(f"compiling {name}")
        return _compile(name, function, arguments, beside_gib, work[name])

    beside = held["state"] - held["global"]
    forward, compiled = plan("forward", programs.global_forward, (params["global"], batch), beside)
    yield forward
    if compiled is None:
        return
    vectors, pullback = _with_shardings(programs.global_forward, compiled, (params["global"], batch))
    kept = _gib(pullback)
    local, compiled = plan(
        "local", programs.local_loss, (params["local"], vectors, batch), held["state"] - held["local"] + kept
    )
    yield local
    if compiled is None:
        return
    arguments = (pullback, params["global"], vectors)
    backward, compiled = plan("backward", programs.global_backward, arguments, beside + held["local"])
    yield backward
    if compiled is None:
        return
    tally = jax.eval_shape(programs.local_loss, params["local"], vectors, batch)[0]
    update, _ = plan("update", programs.update, (state, params, tally), held["batch"])
    yield update


def step_tflop(run: RunConfig, devices: int) -> dict[str, tuple[float, float]]:
    """By program, 1e12 operations of one device that the model needs, and that are run."""
    model, data, train = run.model, run.data, run.train
    frames = data.rows * data.row_frames
    counted = data.rows * train.local_frames(data.row_frames if train.loss_on == "all" else data.target_frames)
    whole, inside = global_flops(model, frames, data.row_frames), local_flops(model, counted)
    tokens, levels = counted * model.codebooks, (model.codebooks + 1) / 2
    again = recomputed_flops(model.global_stack, frames, (data.row_frames + 1) / 2, train.global_remat)
    inside_again = recomputed_flops(model.local_stack, tokens, levels, train.local_remat)
    work = {
        "forward": (whole, whole),
        "local": (3 * inside, 3 * inside + inside_again),
        "backward": (2 * whole, 2 * whole + again),
        "update": (0.0, 0.0),
    }
    scale = train.accumulate / devices / 1e12
    return {name: (needed * scale, ran * scale) for name, (needed, ran) in work.items()}


def batch_shapes(run: RunConfig, programs: Programs) -> Batch:
    """A batch of the run as shapes with their places."""
    data, rows = run.data, rows_sharding(programs.mesh)

    def shape(*sizes: int, kind: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((data.rows, *sizes), kind, sharding=rows)

    frames = data.row_frames
    counted = run.train.local_frames(frames if run.train.loss_on == "all" else data.target_frames)
    return Batch(
        tokens=shape(frames, run.model.codebooks),
        segments=shape(frames),
        positions=shape(frames),
        loss_frames=shape(counted),
        loss_weights=shape(counted, kind=jnp.float32),
        task=shape(counted),
        text_slots=shape(frames),
        text_vectors=shape(data.text_frames, run.model.text_width, kind=jnp.float32),
        audio_frames=shape(len(data.tasks)),
    )


def _compile(
    name: str, function: Any, arguments: tuple, beside_gib: float, work: tuple[float, float]
) -> tuple[ProgramPlan, Any]:
    start = time.perf_counter()
    try:
        compiled, text = _compile_and_dump(function.lower(*arguments))
    except jax.errors.JaxRuntimeError as error:
        needed = re.search(r"\(([\d.]+)G\) exceeds available|Used ([\d.]+)G of", str(error))
        if "RESOURCE_EXHAUSTED" not in str(error) or needed is None:
            raise
        gib = float(needed.group(1) or needed.group(2))
        seconds = time.perf_counter() - start
        return ProgramPlan(name, seconds, gib + beside_gib, gib, *work, refused=True), None
    temporary = compiled.memory_analysis().temp_size_in_bytes / GIB
    needs = used_bytes(compiled) / GIB + beside_gib
    seconds = time.perf_counter() - start
    return ProgramPlan(name, seconds, needs, temporary, *work, read_moved(text)), compiled


def used_bytes(compiled: Any) -> int:
    """What a compiled program holds while it runs: arguments, results and temporaries."""
    sizes = compiled.memory_analysis()
    used = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    return used - sizes.alias_size_in_bytes


def _compile_and_dump(lowered: Any) -> tuple[Any, str]:
    """The compiled program, and its text as the compiler itself writes it: `as_text` has to understand what may be a
    newer compiler's program (libtpu 0.0.52 for v5p), and then fails."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = lowered.compile(compiler_options={"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
        texts = [path.read_text() for path in Path(folder).glob("*after_optimizations.txt")]
    return compiled, max(texts, key=len)


def _with_shardings(function: Any, compiled: Any, arguments: tuple) -> Any:
    """The shapes of a program's results, with the places that its compiled form gives them."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(function, *arguments))
    places = jax.tree.leaves(compiled.output_shardings, is_leaf=lambda node: isinstance(node, NamedSharding))
    placed = [
        jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place) for leaf, place in zip(leaves, places, strict=True)
    ]
    return jax.tree.unflatten(tree, placed)


def _gib(tree: Any) -> float:
    """GiB of one device's parts of a tree of shapes."""
    parts = [(leaf.sharding.shard_shape(leaf.shape), leaf.dtype.itemsize) for leaf in jax.tree.leaves(tree)]
    return sum(math.prod(shape) * size for shape, size in parts) / GIB
