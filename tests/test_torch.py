"""Laws of the exchange with PyTorch: the same logits from the same weights, and files that come back to the bit."""

import argparse
import datetime
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.small_run import REPO, environment, finish, python, write_run
from tests.test_modern import LAYOUTS
from tests.tiny import MODEL, make_programs, random_batch, random_stream
from uniaudio_jax import load_run
from uniaudio_jax.codec.exchange import config_from_json as codec_config_from_json
from uniaudio_jax.codec.exchange import config_to_json as codec_config_to_json
from uniaudio_jax.codec.public import public_codec
from uniaudio_jax.config import MODERN, PAPER, ModelConfig, StackConfig
from uniaudio_jax.convert import config_to_json, to_torch_names, torch_shapes
from uniaudio_jax.decoding import Generator
from uniaudio_jax.export.public import public_config
from uniaudio_jax.import_torch import convert_sizes, read_model
from uniaudio_jax.model.uniaudio import ModelDefinition
from uniaudio_jax.pytorch.load import load_torch_model
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sequence import to_prefix, unscored
from uniaudio_jax.tasks import get_task

torch = pytest.importorskip("torch")
from uniaudio_jax.pytorch.modeling_uniaudio import UniAudio, UniAudioConfig  # noqa: E402


def torch_model(config, params):
    return load_torch_model(config, params)[1].eval()


@pytest.mark.parametrize(
    ("codebooks", "layout"),
    [(1, PAPER), (2, PAPER), (3, PAPER), (5, PAPER), (3, MODERN)]
    + [pytest.param(3, layout, id=name, marks=pytest.mark.slow) for name, layout in LAYOUTS.items()],
)
def test_logits_agree_with_pytorch_on_packed_rows(codebooks, layout):
    stacks = [StackConfig(layers=layers, width=30, heads=5) for layers in (3, 2)]
    config = ModelConfig(
        vocabulary=1223,
        entries=11,
        context_frames=61,
        codebooks=codebooks,
        text_width=7,
        layout=layout,
        global_stack=stacks[0],
        local_stack=stacks[1],
    )
    params = ModelDefinition(config).init(jax.random.key(1))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    batch = random_batch(rows=3)
    batch = batch._replace(tokens=np.resize(batch.tokens, (*batch.tokens.shape[:2], codebooks)))
    ours = jax.jit(ModelDefinition(config).logits)(params, batch)
    tensors = {
        name: torch.from_numpy(np.asarray(value).astype(kind))
        for name, value, kind in (
            ("tokens", batch.tokens, np.int64),
            ("positions", batch.positions, np.int64),
            ("segment_ids", batch.segments, np.int64),
            ("text_vectors", batch.text_vectors, np.float32),
            ("text_slots", batch.text_slots, np.int64),
        )
    }
    with torch.no_grad():
        theirs = torch_model(config, jax.device_get(params))(**tensors).numpy()
    real = batch.segments > 0
    np.testing.assert_allclose(np.asarray(ours)[real], theirs[real], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", [PAPER, MODERN], ids=["paper", "modern"])
def test_one_training_step_has_the_gradients_of_pytorch(layout):
    config = replace(MODEL, layout=layout)
    programs, batch = make_programs(model=config), random_batch(rows=2)
    params = programs.init(jax.random.key(0)).params
    gradients, tally = programs.gradients(params, jax.tree.map(np.asarray, batch))
    model = torch_model(config, jax.device_get(params))
    mask = np.zeros(batch.segments.shape, bool)
    for row, (frames, weights) in enumerate(zip(batch.loss_frames, batch.loss_weights, strict=True)):
        mask[row, frames[weights > 0]] = True
    model.loss(
        torch.from_numpy(batch.tokens.astype(np.int64)),
        positions=torch.from_numpy(batch.positions.astype(np.int64)),
        segment_ids=torch.from_numpy(batch.segments.astype(np.int64)),
        loss_mask=torch.from_numpy(mask),
        text_vectors=torch.from_numpy(batch.text_vectors),
        text_slots=torch.from_numpy(batch.text_slots.astype(np.int64)),
    ).backward()
    tokens = float(tally.tokens.sum())
    ours = to_torch_names(jax.device_get(gradients), config)
    for name, weight in model.named_parameters():
        theirs = np.zeros(weight.shape, np.float32) if weight.grad is None else weight.grad.numpy()
        np.testing.assert_allclose(
            ours[name] / tokens, theirs, atol=1e-4 * max(np.abs(theirs).max(), 1e-6), err_msg=name
        )


def test_greedy_generation_is_that_of_pytorch():
    config = replace(MODEL, layout=MODERN)
    definition = ModelDefinition(config)
    params = definition.init(jax.random.key(1))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    task, rng = get_task("enhancement"), np.random.default_rng(0)
    prefix = to_prefix(task, {s.key: random_stream(s, 7, rng) for s in task.streams}, config.ids, config.text_width)
    greedy = Sampling(temperature=0, min_frames=11)
    ours = Generator(definition, params, config.ids).generate(task, [prefix], greedy, 11)[0]
    allowed = torch.zeros(3, config.vocabulary_size, dtype=torch.bool)
    for level in range(3):
        allowed[level, config.ids.level(level)] = True
    theirs = torch_model(config, jax.device_get(params)).generate(torch.from_numpy(prefix.tokens[None]), 11, allowed)
    starts = np.array([config.ids.level(level).start for level in range(3)])
    np.testing.assert_array_equal(ours, theirs.numpy()[0] - starts)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    config = write_run(folder, tasks=("tts",), steps=3)
    finish(python("uniaudio_jax.train", config, "--out", folder / "run", "--data.tasks", "tts", 1))
    return folder / "run"


def test_an_export_comes_back_bit_equal_from_both_files(run, tmp_path):
    out, _ = finish(python("uniaudio_jax.export_torch", "--run", run, "--out", tmp_path / "torch"))
    assert "logits agree" in out
    sizes = json.loads((tmp_path / "torch" / "config.json").read_text())
    assert {"vocab", "context_frames", "width", "heads", "global_layers", "local_layers", "codebooks"} <= set(sizes)
    for name in ("model.pth", "model.safetensors"):
        back = tmp_path / name.replace(".", "_")
        finish(
            python(
                "uniaudio_jax.import_torch",
                "--weights",
                tmp_path / "torch" / name,
                "--config",
                tmp_path / "torch" / "config.json",
                "--out",
                back,
            )
        )
        one, other = load_run(run), load_run(back)
        jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    tokens = np.random.default_rng(0).integers(2, 4212, (2, 11, 3))
    np.testing.assert_array_equal(one.logits(tokens), other.logits(tokens))


WITHOUT_TORCH = """
import runpy, sys

class Hidden:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden)
runpy.run_module("uniaudio_jax.import_torch", run_name="__main__")
"""


def import_without_torch(*words: object, code: int = 0) -> tuple[str, str]:
    """Output and error of import_torch in a process in which PyTorch is not installed."""
    command, pipe = [sys.executable, "-c", WITHOUT_TORCH, *map(str, words)], subprocess.PIPE
    return finish(subprocess.Popen(command, cwd=REPO, env=environment(), text=True, stdout=pipe, stderr=pipe), code)


@pytest.fixture
def sizes(tmp_path):
    """The JSON of MODEL's sizes, as others write it: without the text width."""
    values = config_to_json(MODEL)
    del values["text_width"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    return tmp_path / "config.json"


def test_a_public_trainers_checkpoint_is_imported_without_pytorch(sizes, tmp_path):
    params = jax.device_get(ModelDefinition(MODEL).init(jax.random.key(3)))
    state = {f"module.{n}": torch.from_numpy(v.copy()) for n, v in to_torch_names(params, MODEL).items()}
    others = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "time": datetime.timedelta(3)}
    torch.save(others | {"model": state, "optimizer": {"state": {0: torch.ones(7)}}}, tmp_path / "a.pth")
    out, _ = import_without_torch("--weights", tmp_path / "a.pth", "--config", sizes, "--out", tmp_path / "run")
    assert "taken from model.module; passed over: epoch (int), args (argparse.Namespace)" in out
    jax.tree.map(np.testing.assert_array_equal, load_run(tmp_path / "run").params, params)


def test_a_checkpoint_as_deep_as_the_public_one_has_its_logits_after_the_import(tmp_path):
    stacks = [StackConfig(layers=layers, width=36, heads=12) for layers in (16, 8)]
    config = ModelConfig(
        vocabulary=4217, context_frames=61, codebooks=3, text_width=768, global_stack=stacks[0], local_stack=stacks[1]
    )
    rng = np.random.default_rng(0)
    state = {n: rng.normal(0, 0.2, shape).astype(np.float32) for n, shape in torch_shapes(config).items()}
    saved = {f"module.{name}": torch.from_numpy(array) for name, array in state.items()}
    torch.save({"model": saved, "args": argparse.Namespace(n_layer=16)}, tmp_path / "ep3.checkpoint")
    (tmp_path / "config.yaml").write_text(json.dumps(public_config(config)))
    model, params = read_model(tmp_path / "ep3.checkpoint", tmp_path / "config.yaml")
    assert model.canonical() == config.canonical()
    batch = random_batch(rows=2)
    tokens = torch.from_numpy(batch.tokens[:, :23].astype(np.int64))
    positions, segments = np.tile(np.arange(23, dtype=np.int32), (2, 1)), np.ones((2, 23), np.int32)
    slots, vectors = np.full((2, 23), -1, np.int32), np.zeros((2, 1, 768), np.float32)
    rows = unscored(batch.tokens[:, :23], segments, positions, slots, vectors)
    ours = jax.jit(ModelDefinition(model).logits)(params, rows)
    theirs = UniAudio(UniAudioConfig.from_json(config_to_json(config)))
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    with torch.no_grad():
        np.testing.assert_allclose(np.asarray(ours), theirs(tokens).numpy(), atol=1e-4, rtol=1e-4)


def test_half_precision_is_imported_as_float32(tmp_path, sizes):
    state = to_torch_names(jax.device_get(ModelDefinition(MODEL).init(jax.random.key(3))), MODEL)
    halves = {name: torch.from_numpy(value.copy()).bfloat16() for name, value in state.items()}
    torch.save(halves, tmp_path / "a.pth")
    _, params = read_model(tmp_path / "a.pth", sizes)
    head = params["local"]["head"]["kernel"]
    assert head.dtype == np.float32
    np.testing.assert_array_equal(head.T, halves["lm_head.weight"].float().numpy())


def test_a_broken_import_is_one_error_and_writes_nothing(sizes, tmp_path):
    words = ("--weights", __file__, "--config", sizes, "--out", tmp_path / "run")
    _, err = import_without_torch(*words, code=2)
    assert err.startswith(f"error: {__file__}: got one that begins with b'\"\"', wanted a whole file of torch.save")
    assert not (tmp_path / "run").exists()


def test_a_broken_json_of_sizes_is_told_with_its_file(tmp_path):
    with pytest.raises(ValueError, match="nothing.json: got no file, wanted a JSON of sizes"):
        read_model(tmp_path / "a.pth", tmp_path / "nothing.json")
    with pytest.raises(ValueError, match="test_torch.py: got text that is not JSON"):
        read_model(tmp_path / "a.pth", Path(__file__))


@pytest.mark.parametrize("change", [{"width": "wide"}, {"ratios": 7}, {"bins": None}])
def test_sizes_that_do_not_fit_are_told_with_their_file(change, tmp_path):
    values = codec_config_to_json(public_codec("encodec_24khz"))
    (tmp_path / "a.json").write_text(json.dumps(values | change))
    with pytest.raises(ValueError, match=f"{tmp_path / 'a.json'}: "):
        convert_sizes(tmp_path / "a.json", codec_config_from_json)
