"""The vocabulary is stated once: sizes follow from the ranges, and what is too small is refused."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from configs import base
from tests.small_run import finish, python, write_codec
from tests.tiny import MODEL as SMALL
from tests.tiny import random_batch
from uniaudio_jax import load_run, vocab
from uniaudio_jax.checkpoint import Checkpoints, check_same, describe
from uniaudio_jax.config import PAPER, MeshConfig, ModelConfig, OptimConfig, RunConfig, StackConfig, check_codec
from uniaudio_jax.config_files import from_dict, to_dict
from uniaudio_jax.convert import config_from_json, torch_shapes
from uniaudio_jax.growth import start_weights
from uniaudio_jax.model.uniaudio import ModelDefinition
from uniaudio_jax.programs import Programs
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.tasks import AUDIO, Stream, Task
from uniaudio_jax.vocab import ranges_within

MODEL = base.get_config().model


@pytest.mark.parametrize(("codebooks", "ids"), [(3, 4212), (8, 9332)])
def test_the_number_of_ids_is_what_the_ranges_need(codebooks, ids):
    model = replace(MODEL, codebooks=codebooks)
    assert model.vocabulary_size == ids
    shapes = ModelDefinition(replace(model, global_stack=TINY, local_stack=TINY)).shapes()
    assert shapes["local"]["embedding"].shape == (ids, 24)
    assert shapes["local"]["head"]["first_kernel"].shape == (24, ids - (codebooks - 1) * 1024)


TINY = StackConfig(layers=1, width=24, heads=2)


def test_a_stated_size_that_is_too_small_is_refused_with_both_numbers_and_a_larger_one_is_padding():
    with pytest.raises(ValueError, match="got 4212 ids.*need 9332"):
        replace(MODEL, codebooks=8, vocabulary=4212)
    assert replace(MODEL, vocabulary=4224).vocabulary_size == 4224


def test_an_appended_range_has_a_name_of_its_own():
    assert replace(MODEL, appended={"language": 64}).vocabulary_size == 4276
    with pytest.raises(ValueError, match="appended: got {'phone': 7}"):
        replace(MODEL, appended={"phone": 7})


def test_weights_grow_on_a_mesh_that_does_not_divide_their_old_vocabulary(tmp_path):
    old = replace(MODEL, global_stack=TINY, local_stack=TINY, context_frames=1024, vocabulary=4213)
    run = replace(base.get_config(), model=old)
    params = ModelDefinition(old).init(jax.random.key(0))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(0, {"params": params}, describe(run, None))
    checkpoints.close()
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2), jax.devices()[:4])

    def start(model: ModelConfig):
        programs = Programs(model, run.train, run.optim, mesh)
        fresh = programs.init(jax.random.key(1)).params
        meta = describe(replace(run, model=model), None)
        return fresh, start_weights(tmp_path, meta, programs, fresh)

    fresh, grown = start(replace(old, vocabulary=4224))
    heads = [tree["local"]["head"]["first_kernel"] for tree in (grown, params, fresh)]
    assert heads[0].sharding == heads[2].sharding
    np.testing.assert_array_equal(heads[0][:, : 4213 - 2048], heads[1])
    np.testing.assert_array_equal(heads[0][:, 4213 - 2048 :], heads[2][:, 4213 - 2048 :])
    with pytest.raises(ValueError, match="start_from has 4213 ids, the run wants 4212; state model.vocabulary 4213"):
        start(replace(old, vocabulary=None))


@pytest.mark.slow
def test_a_layout_that_looks_further_ahead_begins_with_the_old_logits(tmp_path):
    def model(*ahead: int) -> ModelConfig:
        return replace(SMALL, context_frames=1024, layout=replace(SMALL.layout, aligned=ahead))

    run, old, new = base.get_config(), ModelDefinition(model(0, 3)), model(0, 3, 5)
    params = old.init(jax.random.key(0))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(0, {"params": params}, describe(replace(run, model=old.config), None))
    checkpoints.close()
    programs = Programs(new, run.train, run.optim, make_mesh(MeshConfig(), jax.devices()[:1]))
    fresh = programs.init(jax.random.key(1)).params
    grown = start_weights(tmp_path, describe(replace(run, model=new), None), programs, fresh)
    batch = jax.tree.map(jnp.asarray, random_batch(rows=2))
    np.testing.assert_array_equal(ModelDefinition(new).logits(grown, batch), old.logits(params, batch))
    for other in (model(0), model(3, 0, 5), model()):
        with pytest.raises(ValueError, match="start_from has another model"):
            start_weights(tmp_path, describe(replace(run, model=other), None), programs, fresh)


def test_the_codec_must_have_the_models_levels_and_entries():
    codec = {"codec": "mine", "codebooks": 8, "entries": 1024}
    check_codec(MODEL, codec)
    for change, message in (({"codebooks": 2}, "2 codebooks of 1024.*wants 3 of 1024"), ({"entries": 512}, "of 512")):
        with pytest.raises(ValueError, match=message):
            check_codec(MODEL, codec | change)


def test_the_config_of_an_older_checkpoint_loads_and_means_the_same():
    run = base.get_config()
    run = replace(run, model=replace(run.model, layout=PAPER), optim=OptimConfig())
    now = json.loads(json.dumps(to_dict(run)))
    older = json.loads(json.dumps(now))
    for field in ("entries", "ranges", "layout"):
        del older["model"][field]
    older["model"]["vocabulary"] = 4212
    for stack in ("global_stack", "local_stack"):
        del older["model"][stack]["attention"]
    older["optim"] = {
        "peak_learning_rate": 1e-3,
        "warmup_steps": 7,
        "beta1": 0.9,
        "beta2": 0.95,
        "weight_decay": 0.1,
        "clip_norm": 2.0,
    }
    del older["train"]["sinks"]
    assert from_dict(RunConfig, older, "here").model.vocabulary_size == 4212
    metas = [{"config": config, "vocabulary": MODEL.ids.layout(), "codec": None} for config in (older, now)]
    check_same(Path(base.__file__), *metas)


def test_a_checkpoint_with_fewer_ids_keeps_its_size_and_the_ranges_within_it():
    assert ranges_within(3911, 3) == ("audio", "phone")
    assert ranges_within(4212, 3) == MODEL.ranges
    sizes = {"vocab": 3911, "context_frames": 61, "width": 24, "heads": 2, "global_layers": 1, "local_layers": 1}
    model = config_from_json(sizes | {"codebooks": 3, "text_width": 7})
    assert model.vocabulary_size == 3911 and model.ranges == ("audio", "phone")
    assert model.ids.span("phone") == range(3201, 3506)
    with pytest.raises(ValueError, match="no range 'semantic'.*it has audio, phone.*too few ids"):
        model.ids.span("semantic")


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A run imported from a checkpoint of 3911 ids, and the folder of its weights."""
    folder = tmp_path_factory.mktemp("imported")
    model = ModelConfig(
        vocabulary=3911,
        ranges=("audio", "phone"),
        context_frames=151,
        codebooks=3,
        text_width=7,
        global_stack=TINY,
        local_stack=TINY,
    )
    rng = np.random.default_rng(0)
    state = {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in torch_shapes(model).items()}
    save_file(state, folder / "model.safetensors")
    sizes = {"vocab": 3911, "context_frames": 151, "width": 24, "heads": 2, "global_layers": 1, "local_layers": 1}
    (folder / "config.json").write_text(json.dumps(sizes | {"codebooks": 3}))
    codec = write_codec(folder / "codec")
    words = ("--weights", folder / "model.safetensors", "--config", folder / "config.json", "--codec", codec)
    out, _ = finish(python("uniaudio_jax.import_torch", *words, "--out", folder / "run"))
    assert "3911 ids with the ranges audio, phone" in out
    return folder, state


def test_an_imported_run_of_fewer_ids_generates_what_its_ranges_allow(imported):
    folder, _ = imported
    run = load_run(folder / "run")
    voice = np.random.default_rng(1).normal(0, 0.1, 4000).astype(np.float32)
    wav = run.generate("tts", text="Good morning.", speaker_prompt=voice, seconds=0.2)
    assert len(wav) % 320 == 0 and len(wav) <= 3200
    with pytest.raises(ValueError, match="semantic"):
        run.generate("voice_conversion", content_audio=voice, speaker_prompt=voice, seconds=0.2)


def test_an_imported_run_of_fewer_ids_is_exported_bit_equal(imported, tmp_path):
    pytest.importorskip("torch")
    folder, state = imported
    out, _ = finish(python("uniaudio_jax.export_torch", "--run", folder / "run", "--out", tmp_path))
    assert "logits agree" in out
    exported = load_file(tmp_path / "model.safetensors")
    assert exported.keys() == state.keys()
    jax.tree.map(np.testing.assert_array_equal, exported, state)
    assert json.loads((tmp_path / "config.json").read_text())["vocab"] == 3911


def test_a_new_row_of_the_task_table_gets_the_next_reserved_slot(monkeypatch):
    before = vocab.own_tokens()
    row = Task("gender", "<gender_task>", (AUDIO,), Stream("gender", "gender", "gender"))
    monkeypatch.setitem(vocab.TASKS, row.name, row)
    assert vocab.own_tokens() == (*before, "<gender_task>", "<gender_start>", "<gender_end>")
    assert before == ("<language_task>", "<language_start>", "<language_end>")
