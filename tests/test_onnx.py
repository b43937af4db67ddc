"""Laws of exports to ONNX: the graph's logits and ids are JAX's, and its program needs numpy and onnxruntime alone."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from data_pipelines.tokenizers.phone import ARPABET, SYMBOLS
from tests.small_run import write_untrained_run
from tests.test_modern import LAYOUTS, params_of
from tests.tiny import APPENDED, MODEL, TEXT_WIDTH, random_batch, random_stream
from uniaudio_jax.config import PAPER, ModelConfig, RunConfig, StackConfig
from uniaudio_jax.config_files import load_config
from uniaudio_jax.convert import config_to_json
from uniaudio_jax.decoding import Generator
from uniaudio_jax.export import certificate
from uniaudio_jax.export.card import onnx_example
from uniaudio_jax.export.staging import CERTIFICATE
from uniaudio_jax.export.vocabulary import vocabulary_json
from uniaudio_jax.export_torch import ExportOptions, export_run, verify
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sequence import Frames, to_prefix
from uniaudio_jax.tasks import TASKS, get_task

for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="an export to ONNX needs the extra onnx: bash launch/install.sh onnx")
import onnx  # noqa: E402  # pyright: ignore[reportMissingImports]

from uniaudio_jax.export.onnx_folder import GRAPH, PACKAGES, PROGRAM, OnnxFolder, write_onnx  # noqa: E402
from uniaudio_jax.pytorch import onnx_generate  # noqa: E402

FILES = {"README.md", "config.json", "vocabulary.json", GRAPH, f"{GRAPH}.data", PROGRAM, CERTIFICATE}


def made_graph(folder: Path, layout) -> SimpleNamespace:
    """A model with this layout, its weights, and its graph in `folder`."""
    model = replace(MODEL, layout=layout, local_stack=StackConfig(layers=1, width=30, heads=5))
    params = jax.device_get(params_of(model))
    (folder / "config.json").write_text(json.dumps(config_to_json(model)))
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary_json(model, SYMBOLS, ARPABET)))
    write_onnx(model, params, folder)
    return SimpleNamespace(model=model, params=params, exported=OnnxFolder(folder))


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> SimpleNamespace:
    """A graph of all modern choices."""
    return made_graph(tmp_path_factory.mktemp("graph"), LAYOUTS["every"])


def assert_logits_are_those_of_jax(made: SimpleNamespace) -> None:
    batch = random_batch(rows=2)
    ours = np.asarray(jax.jit(ModelDefinition(made.model).logits)(made.params, batch))
    real = batch.segments > 0
    np.testing.assert_allclose(made.exported.logits(batch)[real], ours[real], atol=certificate.TOLERANCE, rtol=0)


def test_cached_logits_of_padded_rows_equal_the_full_forward_of_packed_ones(graph):
    assert_logits_are_those_of_jax(graph)


@pytest.mark.parametrize(
    "layout",
    [pytest.param(PAPER, id="paper")]
    + [pytest.param(each, id=name, marks=pytest.mark.slow) for name, each in LAYOUTS.items() if name != "every"],
)
def test_every_layout_has_a_graph_with_the_logits_of_jax(layout, tmp_path):
    assert_logits_are_those_of_jax(made_graph(tmp_path, layout))


def prefix_of(task: str, seed: int, items: int) -> Frames:
    """A random prompt."""
    rng, row = np.random.default_rng(seed), get_task(task)
    return to_prefix(row, {s.key: random_stream(s, items, rng) for s in row.conditions}, MODEL.ids, TEXT_WIDTH)


def step(graph: SimpleNamespace, inputs: dict, caches=None):
    """The most likely next frame, its logits, and the caches."""
    shape = (len(inputs["before"]), 3, MODEL.vocabulary_size)
    free = {"allowed": np.ones(shape, bool), "noise": np.zeros(shape), "temperature": 0, "top_k": 0}
    return graph.exported.model.step(inputs, caches, **free)


def test_a_prompt_read_at_once_leaves_the_caches_of_one_read_frame_by_frame(graph):
    prompt = prefix_of("enhancement", 0, 7).tokens
    inputs = graph.exported.model.first_inputs([prompt], None)
    _, logits, caches = step(graph, inputs)
    others = None
    for frame in range(len(prompt) + 1):
        one = {name: inputs[name][:, frame : frame + 1] for name in ("before", "aligned")}
        one["padding"] = inputs["padding"]
        _, other, others = step(graph, one, others)
    np.testing.assert_allclose(other, logits, atol=1e-5)
    assert others is not None and caches[0].shape() == [1, 5, len(prompt) + 1, 6]
    for cache, other in zip(caches, others, strict=True):
        np.testing.assert_allclose(other.numpy(), cache.numpy(), atol=1e-5)


def test_a_prompt_of_parts_is_that_of_a_training(graph):
    model, task, rng = graph.exported.model, get_task("tts"), np.random.default_rng(0)
    phone, voice = (random_stream(stream, 5, rng) for stream in task.conditions)
    parts = ["<start>", task.token, "<phone_start>", model.ids("phone", phone), "<phone_end>"]
    parts += ["<audio_prompt_start>", model.tokens(voice), "<audio_prompt_end>", "<audio_start>"]
    wanted = to_prefix(task, {"phone": phone, "speaker_prompt": voice}, MODEL.ids, TEXT_WIDTH)
    np.testing.assert_array_equal(model.prompt(*parts), wanted.tokens)


@pytest.mark.parametrize("task", ["enhancement", "text_to_music"])
def test_greedy_codes_are_those_of_jax(graph, task):
    prefix = prefix_of(task, 1, 5)
    generator = Generator(ModelDefinition(graph.model), graph.params, graph.model.ids)
    ours = generator.generate(get_task(task), [prefix], Sampling(temperature=0, min_frames=11), 11)[0]
    np.testing.assert_array_equal(graph.exported.greedy(get_task(task), {}, prefix, 11), ours)


def test_prompts_of_different_lengths_generate_together_what_they_generate_alone(graph):
    prefixes = [prefix_of(task, 2, items) for task, items in (("text_to_music", 3), ("text_to_music", 7))]
    prompts, texts = [each.tokens for each in prefixes], [each.text_vectors for each in prefixes]
    together = graph.exported.model.generate(prompts, 13, texts=texts, temperature=0)
    for prompt, text, row in zip(prompts, texts, together, strict=True):
        (alone,) = graph.exported.model.generate([prompt], 13, texts=[text], temperature=0)
        np.testing.assert_array_equal(row, alone)


def test_a_prompt_that_does_not_fit_the_context_is_refused(graph):
    with pytest.raises(ValueError, match="got a prompt of 53 and 11 frames, wanted at most context_frames=61 together"):
        graph.exported.model.generate([np.zeros((53, 3), np.int64)], 11)


def test_draws_follow_the_chances_of_the_top_k_at_their_temperature_and_their_seed(graph):
    rows, model = 1009, graph.exported.model
    prompts = [prefix_of("enhancement", 3, 2).tokens] * rows
    draw = {"frames": 1, "temperature": 0.7, "top_k": 5, "end": -1}
    codes = np.concatenate([model.codes(row) for row in model.generate(prompts, seed=0, **draw)])
    _, logits, _ = step(graph, model.first_inputs(prompts[:1], None))
    scaled = logits[0, 0, MODEL.ids.level(0)] / 0.7
    scaled[np.argsort(scaled)[:-5]] = -np.inf
    chances = np.exp(scaled - scaled.max()) / np.exp(scaled - scaled.max()).sum()
    np.testing.assert_allclose(np.bincount(codes[:, 0], minlength=11) / rows, chances, atol=0.05)
    again, other = (np.concatenate(model.generate(prompts, seed=seed, **draw)) for seed in (0, 1))
    np.testing.assert_array_equal(model.codes(again), codes)
    assert (other != again).any()


def test_a_row_ends_with_the_chance_of_its_end_beside_all_that_is_allowed():
    logits = np.tile(np.log(np.array([0.5, 0.3, 0.2, 1.0])), (10007, 1))
    allowed, rng = np.array([True, True, True, False]), np.random.default_rng(0)
    assert onnx_generate.ends(logits, allowed, 3, 1.0, 0, rng).mean() == pytest.approx(0.5, abs=0.02)
    unlikely = logits - np.array([0, 0, 0, 1.0])  # 0.37, which is less likely than the first alone
    assert (
        onnx_generate.ends(logits, allowed, 3, 0, 0, rng).all()
        and not onnx_generate.ends(unlikely, allowed, 3, 0, 0, rng).any()
    )
    assert not onnx_generate.ends(unlikely, allowed, 3, 1.0, 1, rng).any()
    assert onnx_generate.ends(unlikely, allowed, 3, 1.0, 2, rng).mean() == pytest.approx(0.269, abs=0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a run of two tasks, `run`, its tokens, and its export, `out`."""
    folder = tmp_path_factory.mktemp("onnx")
    write_untrained_run(folder, ("tts", "text_to_music"))
    export_run(ExportOptions(run=folder / "run", out=folder / "out", format="onnx"))
    return folder


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A copy of the export, to spoil."""
    return Path(shutil.copytree(folder / "out", tmp_path / "copy"))


def test_a_certificate_of_a_graph_covers_sequences_generation_versions_and_every_file(folder):
    made = json.loads((folder / "out" / CERTIFICATE).read_text())
    assert made["runtime"] == "onnxruntime" and made["logits_of_heldout_examples"]["tasks"] == ["tts", "text_to_music"]
    for name in ("logits_of_random_sequences", "logits_of_heldout_examples"):
        assert 0 <= made[name]["largest_difference"] < 1e-4
    assert made["greedy"]["frames"] > 20 and made["greedy"]["equal_tokens"] == 1
    assert {"torch", "onnx", "onnxscript", "onnxruntime", "jax"} < made["versions"].keys()
    assert made["sha256"].keys() | {CERTIFICATE} == FILES == {path.name for path in (folder / "out").iterdir()}


def test_the_program_of_the_model_card_runs_by_numpy_and_onnxruntime_alone(copy):
    (program,) = re.findall(r"```python\n(.*?)```", (copy / "README.md").read_text(), re.DOTALL)
    blocked = (
        "import sys\nfor name in ('uniaudio_jax', 'jax', 'torch', 'onnx', 'safetensors'): sys.modules[name] = None\n"
    )
    (copy / "example.py").write_text(f"{blocked}{program}\nprint(codes.shape)\n")
    done = subprocess.run([sys.executable, "example.py"], cwd=copy, env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\(\d+, 3\)\n", done.stdout)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.makes_audio])
def test_the_program_of_the_model_card_makes_codes_by_every_task(folder, name, monkeypatch):
    model = load_config(folder / "config.py", RunConfig)
    run = replace(model, model=replace(model.model, appended=APPENDED), data=replace(model.data, tasks={name: 1.0}))
    program = onnx_example(run).replace("frames=50", "frames=3")
    monkeypatch.setitem(sys.modules, "onnx_generate", onnx_generate)
    monkeypatch.chdir(folder / "out")
    made: dict = {}
    exec(program, made)
    assert made["codes"].shape[1] == 3 and len(made["codes"]) <= 3


def test_a_tampered_weight_is_found_by_its_hash_and_by_the_logits_of_the_run(folder, copy, monkeypatch):
    monkeypatch.setattr(certificate, "compare_greedy", lambda *_: {"absent": "left out"})
    verify(ExportOptions(verify=copy, run=folder / "run"))
    graph = onnx.load(copy / GRAPH)
    (weight,) = [each for each in graph.graph.initializer if each.name == "model.l_emb.weight"]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + np.float32(0.1), weight.name))
    (copy / f"{GRAPH}.data").unlink()
    onnx.save(graph, copy / GRAPH, save_as_external_data=True, location=f"{GRAPH}.data")
    with pytest.raises(ValueError, match=r"frame.onnx\S*: got sha256 \w+…, the certificate was made of"):
        verify(ExportOptions(verify=copy))
    made = json.loads((copy / CERTIFICATE).read_text())
    made["sha256"] |= {name: certificate.file_sha256(copy / name) for name in (GRAPH, f"{GRAPH}.data")}
    (copy / CERTIFICATE).write_text(json.dumps(made))
    with pytest.raises(ValueError, match="is not the run within 0.0001: logits of random sequences differ"):
        verify(ExportOptions(verify=copy, run=folder / "run"))


def test_a_graph_that_fails_its_certificate_is_not_written(folder, tmp_path, monkeypatch):
    def copied(model: ModelConfig, params: Params, partial: Path) -> str:
        for name in (GRAPH, f"{GRAPH}.data", PROGRAM):
            shutil.copy(folder / "out" / name, partial / name)
        return "copied"

    monkeypatch.setattr("uniaudio_jax.export_torch.write_onnx", copied)
    monkeypatch.setattr(certificate, "compare_greedy", lambda *_: {"absent": "left out"})
    monkeypatch.setattr(certificate, "TOLERANCE", 0.0)
    with pytest.raises(
        ValueError, match="is not the run within 0.0: logits of random sequences differ by .*no file was"
    ):
        export_run(ExportOptions(run=folder / "run", out=tmp_path / "out", format="onnx"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_told_before_the_run_is_read(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # an import says that there is no such module
    with pytest.raises(
        ValueError, match=f"--format onnx: got no package {name}, wanted it; run `bash launch/install.sh"
    ):
        export_run(ExportOptions(run=tmp_path / "nowhere", out=tmp_path / "out", format="onnx"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"kind": "codec"}, {"max_shard_mb": 7}])
def test_a_codec_and_shards_are_refused_in_onnx(options):
    with pytest.raises(
        ValueError, match="got --format onnx with kind=.* wanted a model, whose weights are in one file"
    ):
        ExportOptions(run=Path("a"), out=Path("b"), format="onnx", **options)
