"""Laws of low-rank adapters: fresh ones change nothing, they alone learn, and what reads a run sees them merged."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.small_run import TEXT_WIDTH, write_run
from tests.test_programs import assert_trees_close
from tests.tiny import MODEL, OPTIM, TRAIN, WIDE, random_batch, start
from tests.training_in_process import NEVER, make_trainer, small_config, stopping, train_in_process
from uniaudio_jax import load_run
from uniaudio_jax.bench.fused import fused_loss_and_gradients
from uniaudio_jax.checkpoint import CheckpointReader
from uniaudio_jax.config import LoraConfig, MeshConfig, OptimConfig, RunConfig
from uniaudio_jax.convert import published_tensors
from uniaudio_jax.export_torch import ExportOptions, export_run
from uniaudio_jax.lora import merge, overlay
from uniaudio_jax.planning.step import compile_step
from uniaudio_jax.programs import Programs
from uniaudio_jax.sharding import make_mesh, place_batch
from uniaudio_jax.trees import flatten

LORA = LoraConfig(rank=3, alpha=7.0)
ALSO = ("global.embedding", "local.embedding", "local.head.kernel")
AT_ONCE = stopping(lambda _: True, "SIGTERM")
KERNELS = 2 * 6
"""Kernels of the attention and MLP of both stacks' blocks."""


def make_programs(lora: LoraConfig = LORA, devices: int = 1, mesh: MeshConfig | None = None, **changes: Any):
    model = changes.pop("model", MODEL)
    optim = changes.pop("optim", OPTIM)
    chosen = make_mesh(mesh or MeshConfig(), jax.devices()[:devices])
    return Programs(model, replace(TRAIN, **changes), optim, chosen, lora)


def base_of(params):
    return {part: params[part] for part in ("global", "local")}


def moved(params):
    """The weights with adapters that all differ from zero."""

    def move(leaf):
        return leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)

    return params | {"lora": jax.tree.map(move, params["lora"])}


def test_fresh_adapters_change_no_logit():
    programs = make_programs()
    state, batch = start(programs, random_batch(rows=2))
    merged = programs.merged(state.params)
    assert len(flatten(state.params["lora"])) == 2 * KERNELS and "lora" not in merged
    logits = jax.jit(programs.definition.logits)
    np.testing.assert_array_equal(logits(merged, batch), logits(base_of(state.params), batch))
    assert not np.array_equal(logits(programs.merged(moved(state.params)), batch), logits(merged, batch))


@pytest.mark.slow
@pytest.mark.parametrize("also", [(), ("local.head.*",)])
def test_five_updates_move_the_adapters_alone_and_moments_are_theirs(also):
    programs = make_programs(replace(LORA, also=also), ema_decay=0.9, spike_deviations=10.0)
    state, batch = start(programs, random_batch())
    before = jax.device_get(state.params)
    moments = state.optimizer[1][0]
    trained = {name for name in flatten(before) if name.startswith("lora.")} | (
        {"local.head.kernel"} if also else set()
    )
    assert set(flatten(moments.mu)) == set(flatten(moments.nu)) == trained
    for _ in range(5):
        state, metrics = programs.step(state, [batch])
    assert int(state.skipped) == 0 and state.level is not None and int(state.level.updates) == 5
    for after in (state.params, state.ema):
        changed = {name for name, leaf in flatten(after).items() if not np.array_equal(leaf, flatten(before)[name])}
        assert changed == trained
    assert float(metrics.tally.mean_loss) < 7.3


@pytest.mark.slow
def test_the_gradient_of_adapters_is_that_through_the_merged_loss():
    lora = replace(LORA, also=("local.head.kernel",))
    programs = make_programs(lora)
    state, batch = start(programs, random_batch())
    params = moved(state.params)
    gradients = programs.trained.gradients(params, programs.measure(params, state.step, [batch])[0])
    loss = fused_loss_and_gradients(MODEL).__wrapped__
    wanted = jax.grad(lambda part: loss(merge(overlay(params, part), 7 / 3), batch))(programs.trained.of(params))
    assert set(flatten(gradients)) == {*flatten({"lora": params["lora"]}), "local.head.kernel"}
    assert_trees_close(gradients, wanted, 1e-5)


@pytest.mark.slow
def test_eight_devices_train_adapters_as_one_does():
    results = []
    optim = OptimConfig(warmup_steps=3, epsilon=1e-3)  # as tests/test_programs.py: it keeps rounding errors small
    for devices, mesh in ((1, None), (8, MeshConfig(data=2, fsdp=2, tensor=2))):
        programs = make_programs(LORA, devices, mesh, model=WIDE, optim=optim)
        state, losses = programs.init(jax.random.key(0)), []
        for seed in range(3):
            state, metrics = programs.step(state, [place_batch(random_batch(seed=seed), programs.mesh)])
            losses.append(float(metrics.tally.mean_loss))
        results.append((losses, jax.device_get(state.params)))
    (one_losses, one), (losses, eight) = results
    np.testing.assert_allclose(losses, one_losses, rtol=1e-5)
    assert_trees_close(eight, one, 1e-4)
    key = state.params["lora"]["global"]["blocks"]["attention"]["key"]
    assert key["a"]["kernel"].sharding.shard_shape((3, 48, 3)) == (3, 24, 3)
    assert key["b"]["kernel"].sharding.shard_shape((3, 3, 48)) == (3, 3, 24)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            replace(LORA, targets=("global.blocks.attention.quarry.kernel",)),
            r"LoraConfig.targets: got 'global.blocks.attention.quarry.kernel', which fits none of 15 weights; .* the "
            r"nearest are global.blocks.attention.query.kernel, ",
        ),
        (replace(LORA, targets=("*.bias",)), r"LoraConfig.targets: got '\*.bias', which fits none of 15"),
        (replace(LORA, also=("local.embeddings",)), "LoraConfig.also: got 'local.embeddings'.* nearest are local.emb"),
    ],
)
def test_a_pattern_that_fits_nothing_is_refused_with_the_nearest_names(config, message):
    with pytest.raises(ValueError, match=message):
        make_programs(config)


def test_adapters_beside_the_layers_of_pytorch_give_the_logits_of_the_merged_weights():
    torch = pytest.importorskip("torch")
    from tests.test_torch import torch_model

    programs = make_programs()
    params = jax.device_get(moved(programs.init(jax.random.key(0)).params))
    flat, model = flatten(params), torch_model(MODEL, base_of(params))
    for tensor in published_tensors(MODEL):
        stem = f"lora.{tensor.path.removesuffix('.kernel')}"
        if f"{stem}.a.kernel" in flat:
            a, b = (torch.from_numpy(np.array(flat[f"{stem}.{end}.kernel"][tensor.layer])) for end in "ab")
            layer = model.get_submodule(tensor.name.removesuffix(".weight"))
            layer.register_forward_hook(lambda _, given, out, a=a, b=b: out + 7 / 3 * (given[0] @ a) @ b)
    batch = random_batch(rows=2)
    fields = {"positions": batch.positions, "segment_ids": batch.segments, "text_slots": batch.text_slots}
    tensors = {name: torch.from_numpy(value.astype(np.int64)) for name, value in fields.items()}
    tokens, vectors = torch.from_numpy(batch.tokens.astype(np.int64)), torch.from_numpy(batch.text_vectors)
    with torch.no_grad():
        beside = model(tokens, text_vectors=vectors, **tensors).numpy()
        merged = torch_model(MODEL, merge(params, 7 / 3))(tokens, text_vectors=vectors, **tensors).numpy()
    ours = np.asarray(jax.jit(programs.definition.logits)(programs.merged(params), batch))
    real = batch.segments > 0
    scale = np.abs(beside[real]).max()
    np.testing.assert_allclose(ours[real] / scale, beside[real] / scale, atol=1e-5)
    np.testing.assert_allclose(merged[real] / scale, beside[real] / scale, atol=1e-5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> SimpleNamespace:
    """A start run of two steps, the config of adapters for it, and a run of it of seven steps."""
    folder = tmp_path_factory.mktemp("lora")
    config = small_config(write_run(folder, layout="PAPER"), steps=2)
    train_in_process(config, folder / "start")
    train = replace(config.train, steps=7, save_every_steps=3, ema_decay=0.5, spike_deviations=10.0)
    tuned = replace(config, start_from=str(folder / "start"), lora=LORA, train=train)
    return SimpleNamespace(folder=folder, config=tuned, state=jax.device_get(train_in_process(tuned, folder / "whole")))


def refused(config: RunConfig, out: Path, message: str) -> None:
    """Asserts that a training does not begin, for this reason."""
    trainer = make_trainer(config, out)
    with closing(trainer.log), closing(trainer.checkpoints), pytest.raises(ValueError, match=message):
        trainer.start()


def test_a_stopped_and_resumed_training_of_adapters_equals_an_uninterrupted_one(runs):
    make_trainer(runs.config, runs.folder / "parts").run(stopping(lambda step: step > 4))
    state = make_trainer(runs.config, runs.folder / "parts").run(NEVER)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), runs.state)


def test_what_reads_a_run_sees_the_merged_weights_in_which_the_frozen_ones_are_the_start_runs(runs):
    start, run = load_run(runs.folder / "start"), load_run(runs.folder / "whole")
    jax.tree.map(np.testing.assert_array_equal, base_of(runs.state.params), jax.device_get(start.params))
    wanted = jax.jit(lambda params: merge(params, LORA.scale))(runs.state.ema)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(run.params), wanted)
    changed = {n for n, leaf in flatten(run.params).items() if not np.array_equal(leaf, flatten(start.params)[n])}
    assert len(changed) == KERNELS and all(name.endswith(".kernel") and ".blocks." in name for name in changed)
    again = replace(runs.config, start_from=str(runs.folder / "whole"), lora=LoraConfig())
    state = make_trainer(again, runs.folder / "again").run(AT_ONCE)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), wanted)


@pytest.mark.slow
def test_exported_adapters_added_to_the_exported_start_run_are_the_exported_run(runs):
    pytest.importorskip("torch")
    for name in ("start", "whole"):
        export_run(ExportOptions(run=runs.folder / name, out=runs.folder / f"{name}_torch"))
    start, whole = (load_file(runs.folder / f"{name}_torch/model.safetensors") for name in ("start", "whole"))
    assert not (runs.folder / "start_torch/adapters.safetensors").exists()
    with safe_open(runs.folder / "whole_torch/adapters.safetensors", "numpy") as file:
        assert file.metadata() == {"r": "3", "lora_alpha": "7.0"}
        adapters = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    layers = {name.rsplit(".", 2)[0] for name in adapters}
    assert len(layers) == 2 * KERNELS and all(layer.startswith("base_model.model.") for layer in layers)
    for layer in layers:
        a, b = (adapters[f"{layer}.lora_{end}.weight"] for end in "AB")
        start[f"{layer.removeprefix('base_model.model.')}.weight"] += 7 / 3 * b @ a
    assert start.keys() == whole.keys()
    for name, tensor in whole.items():
        np.testing.assert_allclose(start[name], tensor, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("lora", [replace(LORA, rank=5), replace(LORA, alpha=1.0), LoraConfig()])
def test_a_resume_with_other_adapters_is_refused_with_both_sides(lora, runs):
    refused(replace(runs.config, lora=lora), runs.folder / "whole", "this checkpoint's lora is .*, the run's is ")


def test_adapters_need_a_run_to_start_from(runs):
    with pytest.raises(ValueError, match="RunConfig.lora.rank: got 3 without start_from, wanted the run whose weights"):
        replace(runs.config, start_from=None)
    with pytest.raises(ValueError, match="LoraConfig.also: .*wanted none without a rank"):
        LoraConfig(also=("local.head.kernel",))


@pytest.mark.slow
def test_new_ids_need_their_weights_among_what_is_trained(runs):
    grown = replace(runs.config, model=replace(runs.config.model, appended={"language": 5}))
    message = f"fewer ids than the run, .* as by --lora.also {' '.join(ALSO)}"
    refused(grown, runs.folder / "refused", message)
    state = make_trainer(replace(grown, lora=replace(LORA, also=ALSO)), runs.folder / "grown").run(AT_ONCE)
    assert state.params["local"]["head"]["kernel"].shape == (30, 4212 + 5)


@pytest.mark.slow
def test_a_spike_of_adapters_leaves_an_incident_that_is_measured_again_to_the_bit(runs):
    nan = {3: lambda row: row._replace(text_vectors=np.full((13, TEXT_WIDTH), np.nan, np.float32))}
    state = train_in_process(runs.config, runs.folder / "spoilt", nan)
    assert int(state.skipped) == 1
    assert CheckpointReader(runs.folder / "spoilt").latest() == 7
    text = (runs.folder / "spoilt/incidents/step_4/incident.json").read_text()
    assert '"measured_again_to_the_bit": true' in text and '"global.blocks.mlp.up.kernel"' in text


@pytest.mark.slow
def test_a_plan_counts_the_merged_weights_beside_the_state(runs):
    needs = {}
    for lora in (LORA, LoraConfig()):
        run = replace(runs.config, lora=lora)
        programs = Programs(run.model, run.train, run.optim, make_mesh(MeshConfig(), jax.devices()[:1]), lora)
        plans = list(compile_step(run, programs, lambda _: None))
        assert [plan.name for plan in plans] == ["forward", "local", "backward", "update"]
        needs[lora.rank] = plans[0].needs_gib
    assert needs[3] != needs[None]
