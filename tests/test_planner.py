"""Laws of the planner: loops are counted, weights travel as often as they must, and what does not fit is told."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from tests.tiny import OPTIM, TRAIN, WIDE, make_programs, random_batch
from uniaudio_jax.config import DataConfig, MeshConfig, ModelConfig, RunConfig, StackConfig
from uniaudio_jax.flops import forward_flops
from uniaudio_jax.model.uniaudio import ModelDefinition, count_parameters
from uniaudio_jax.planning.chips import SHAPES, chip_of, find_devices
from uniaudio_jax.planning.hlo import array_bytes, read_moved
from uniaudio_jax.planning.report import describe_plan, plan_table
from uniaudio_jax.planning.search import make_plan, roomier, search_plans
from uniaudio_jax.planning.step import batch_shapes, step_tflop

needs_libtpu = pytest.mark.usefixtures("tpu_compiler")

LOOP = """HloModule made_by_hand

%begun (p: bf16[2,8]) -> bf16[16,8] {
  %p.1 = bf16[2,8]{1,0} parameter(0)
  %all-gather.8 = bf16[16,8]{1,0} all-gather(%p.1), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %c.1 = bf16[16,8]{1,0} custom-call(%all-gather.8), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.3 (p: bf16[2,8]) -> bf16[16,8] {
  %p.2 = bf16[2,8]{1,0} parameter(0)
  %begun.2 = bf16[16,8]{1,0} fusion(%p.2), kind=kCustom, calls=%begun
  ROOT %all-gather.9 = bf16[16,8]{1,0} all-gather(%p.2), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
}

%all-reduce-scatter (p: f32[16,3]) -> f32[2,3] {
  %p.3 = f32[16,3]{1,0} parameter(0)
  %all-reduce.1 = f32[16,3]{1,0} all-reduce(%p.3), channel_id=2, replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %slice = f32[2,3]{1,0} slice(%all-reduce.1), slice={[0:2], [0:3]}
}

%body (t: (s32[], bf16[2,8])) -> (s32[], bf16[2,8]) {
  %t.1 = (s32[], bf16[2,8]{1,0}) parameter(0)
  %n.1 = s32[] get-tuple-element(%t.1), index=0
  %x.1 = bf16[2,8]{1,0} get-tuple-element(%t.1), index=1
  %kernel = bf16[2,8]{1,0} custom-call(%x.1), custom_call_target="tpu_custom_call", frontend_attributes={told={
 "block_q": 512
}}, metadata={op_name="attention"}
  %begun.1 = bf16[16,8]{1,0} fusion(%x.1), kind=kCustom, calls=%begun
  %goes_on = bf16[16,8]{1,0} fusion(%x.1), kind=kOutput, calls=%async_collective_fusion.3
  ROOT %t.2 = (s32[], bf16[2,8]{1,0}) tuple(%n.1, %x.1)
}

%condition (t: (s32[], bf16[2,8])) -> pred[] {
  %t.3 = (s32[], bf16[2,8]{1,0}) parameter(0)
  %n.2 = s32[] get-tuple-element(%t.3), index=0
  %most = s32[] constant(7)
  ROOT %less = pred[] compare(%n.2, %most), direction=LT
}

ENTRY %main (a: (s32[], bf16[2,8]), b: f32[16,3]) -> f32[2,3] {
  %a = (s32[], bf16[2,8]{1,0}) parameter(0)
  %b = f32[16,3]{1,0} parameter(1)
  %loop = (s32[], bf16[2,8]{1,0}) while(%a), condition=%condition, body=%body
  ROOT %reduced = f32[2,3]{1,0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter
}
"""


def test_a_collective_in_a_loop_counts_at_each_turn_and_once_however_it_is_spread():
    moved = read_moved(LOOP)
    gathered = 7 * 2 * 16 * 8 * 2
    assert moved.counts == {"all-gather": 7 * 2, "reduce-scatter": 1}
    assert moved.bytes == {"all-gather": gathered, "reduce-scatter": 16 * 3 * 4}
    assert moved.in_loops == {"all-gather": gathered, "reduce-scatter": 0}
    kernel, gathers, scatter = 2 * 2 * 8 * 2, 2 * (2 * 8 + 16 * 8) * 2, (16 * 3 + 2 * 3) * 4
    assert moved.memory_bytes == 7 * (kernel + gathers) + scatter


def test_a_loop_without_an_end_that_can_be_read_is_refused():
    with pytest.raises(ValueError, match="cannot read how often the loop loop runs"):
        read_moved(LOOP.replace("s32[] constant(7)", "s32[] copy(%n.2)"))
    with pytest.raises(ValueError, match="no ENTRY"):
        read_moved("")


@pytest.mark.parametrize(
    ("shape", "size"),
    [("f32[3,5]{1,0}", 60), ("(bf16[7]{0}, s8[11]{0}, pred[])", 26), ("u32[]", 4), ("s4[8]", 4), ("f8e4m3fn[13]", 13)],
)
def test_bytes_of_a_shape(shape, size):
    assert array_bytes(shape) == size


def test_the_collectives_of_a_real_program_are_found():
    mesh = Mesh(np.array(jax.devices()), ("x",))

    def summed(x):
        def body(total, row):
            return total + jax.lax.psum(row, "x"), None

        return jax.lax.scan(body, jnp.zeros(x.shape[1:]), x)[0]

    run = jax.shard_map(
        summed, mesh=mesh, in_specs=PartitionSpec(None, "x"), out_specs=PartitionSpec(), check_vma=False
    )
    text = jax.jit(run).lower(jnp.ones((13, 8 * 11))).compile().as_text()
    assert text is not None
    moved = read_moved(text)
    assert moved.counts["all-reduce"] == 13 and moved.in_loops["all-reduce"] == 13 * 11 * 4


STACK = StackConfig(layers=3, width=768, heads=4)
RUN = RunConfig(
    name="planned",
    codec="tiny_16k",
    model=replace(WIDE, context_frames=512, global_stack=STACK, local_stack=replace(STACK, layers=2)),
    data=DataConfig(root="", tasks={"tts": 1.0}, row_frames=256, target_frames=131, rows=8, text_frames=17),
    train=replace(TRAIN, compute_dtype="bfloat16", local_chunk_frames=101, local_remat="dots"),
    optim=OPTIM,
    mesh=MeshConfig(fsdp=4),
)


def test_operations_of_all_programs_are_three_forward_passes_and_what_is_computed_again():
    work = step_tflop(RUN, 8)
    forward = forward_flops(RUN.model, 8 * 256, 8 * 131, 256)
    assert sum(needed for needed, _ in work.values()) == pytest.approx(3 * forward / 8 / 1e12)
    plain = replace(RUN, train=replace(RUN.train, global_remat="none", local_remat="none"))
    assert all(needed == ran for needed, ran in step_tflop(plain, 8).values())
    again = work["backward"][1] - work["backward"][0]
    assert again == pytest.approx(work["forward"][0])


@pytest.mark.slow
@needs_libtpu
def test_weights_travel_at_most_twice_as_often_as_in_ideal_sharding_on_a_tpu():
    plan = make_plan(RUN, find_devices("v5e:2x4"), None)
    counts = {name: count * 2 for name, count in parameters_of(RUN.model).items()}  # bytes of bfloat16
    programs = {program.name: program for program in plan.programs}
    wire = {
        name: sum(size * (2 if kind == "all-reduce" else 1) for kind, size in program.moved.bytes.items())
        for name, program in programs.items()
    }
    assert sum(programs["local"].moved.in_loops.values()) == 0
    assert wire["local"] < 2 * (counts["local"] + 2 * counts["local"])
    assert wire["forward"] + wire["backward"] < 2 * 3 * counts["global"]
    assert plan.fits and 0 < plan.utilisation < 1
    table = plan_table(plan)
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [
        "| forward",
        "| local",
        "| backward",
        "| update",
    ]
    told = describe_plan(plan, "v5e:2x4", 100.0, 0.4)
    assert "8 devices (TPU v5 lite), mesh 2x4x1, 1 rows of 256 frames" in told and "chip-hours" in told


def parameters_of(model: ModelConfig) -> dict[str, int]:
    return count_parameters(ModelDefinition(model).shapes())


@needs_libtpu
def test_what_does_not_fit_is_an_answer_and_names_what_would():
    large = replace(
        RUN,
        data=replace(RUN.data, row_frames=512, target_frames=512, rows=8 * 499),
        train=replace(RUN.train, local_remat="none", local_chunk_frames=499 * 512),
    )
    plan = make_plan(large, find_devices("v5e:2x4"), None)
    assert plan.fits is False
    assert f"does not fit: needs {plan.needs_gib:.2f} of 15.75 GiB" in describe_plan(plan, "v5e:2x4", None, 0.4)
    changed = roomier(plan)
    assert changed is not None and changed.train.local_remat == "full" and changed.data.rows == large.data.rows


@needs_libtpu
@pytest.mark.slow
def test_a_search_ends_with_a_plan_that_fits():
    plan = search_plans(RUN, find_devices("v5e:2x2"), 2)
    assert plan.fits and plan.devices == 4 and plan.rows_per_device == 2


@pytest.mark.parametrize("topology", ["v5e", "v5litepod-8", "v9:2x2", ""])
def test_a_topology_of_no_generation_is_refused_with_those_that_are_known(topology):
    with pytest.raises(ValueError, match=rf"--topology: got '{topology}', .* v5e: 1x1, 2x2"):
        find_devices(topology)


@needs_libtpu
@pytest.mark.parametrize(("generation", "sizes"), [pair for pair in SHAPES.items() if pair[0] != "h100"])
def test_every_size_that_an_error_names_is_known_to_the_compiler(generation, sizes):
    for size in sizes.split():
        devices = find_devices(f"{generation}:{size}")
        assert len(devices) == math.prod(map(int, size.split("x"))) * chip_of(devices).devices


def test_a_step_is_planned_for_batches_as_the_loader_makes_them():
    shapes = batch_shapes(RUN, make_programs(8, MeshConfig(fsdp=4), RUN.model))
    for name, field in random_batch(rows=8, frames=256, loss_frames=131)._asdict().items():
        planned = getattr(shapes, name)
        assert (planned.shape, planned.dtype) == (field.shape, field.dtype), name


@needs_libtpu
@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (partial(find_devices, "v5e:3x7"), "got 'v5e:3x7', which the compiler refuses .* 2x4, 4x4"),
        (lambda: make_plan(replace(RUN, mesh=MeshConfig(fsdp=3)), find_devices("v5e:2x2"), None), "got 4 devices"),
        (lambda: make_plan(replace(RUN, data=replace(RUN.data, rows=7)), find_devices("v5e:2x2"), None), "size 7 does"),
    ],
)
def test_a_plan_for_no_slice_is_refused(attempt, message):
    with pytest.raises(ValueError, match=message):
        attempt()
