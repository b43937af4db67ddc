"""Laws of exported folders: what is in them, that PyTorch alone can use them, and that their certificate is true."""

import json
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from data_pipelines.tokenizers.phone import ARPABET, SYMBOLS, PhoneTokenizer, phone_symbols
from tests.small_run import write_untrained_run
from tests.test_convert import random_state
from tests.tiny import MODEL, TEXT_WIDTH, VOCABULARY, random_stream
from uniaudio_jax.config import MODERN, ModelConfig, StackConfig
from uniaudio_jax.convert import config_from_json
from uniaudio_jax.export import certificate
from uniaudio_jax.export.public import local_layers, public_config, sizes_of_public
from uniaudio_jax.export.staging import CERTIFICATE, staged
from uniaudio_jax.export.vocabulary import vocabulary_json
from uniaudio_jax.export.weights import write_safetensors
from uniaudio_jax.export_torch import ExportOptions, export_run, verify
from uniaudio_jax.import_torch import convert_sizes, read_model
from uniaudio_jax.pytorch.prompts import Vocabulary
from uniaudio_jax.run import load_run
from uniaudio_jax.sequence import to_prefix
from uniaudio_jax.tasks import TASKS, get_task

torch = pytest.importorskip("torch")
CODE = {"modeling_uniaudio.py", "modeling_codec.py", "prompts.py"}
FILES = {*CODE, "README.md", "config.json", "vocabulary.json", "codec.json", "codec.safetensors"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a run of two tasks, `run`, its tokens, and its export in two shards, `out`."""
    folder = tmp_path_factory.mktemp("export")
    write_untrained_run(folder, ("tts", "text_to_music"))
    export_run(ExportOptions(run=folder / "run", out=folder / "out", max_shard_mb=1))
    return folder


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A copy of the export, to spoil."""
    return Path(shutil.copytree(folder / "out", tmp_path / "copy"))


@pytest.fixture
def without_generation(monkeypatch):
    """Certificates without greedy generation, whose program takes long to compile."""
    monkeypatch.setattr(certificate, "compare_greedy", lambda *_: {"absent": "left out"})


def test_a_certificate_covers_random_and_heldout_sequences_generation_and_waveforms_and_every_file(folder):
    made = json.loads((folder / "out" / CERTIFICATE).read_text())
    assert made["logits_of_heldout_examples"]["tasks"] == ["tts", "text_to_music"]
    for name in ("logits_of_random_sequences", "logits_of_heldout_examples", "waveforms"):
        assert 0 <= made[name]["largest_difference"] < 1e-4
    assert made["greedy"]["frames"] > 20 and made["greedy"]["equal_tokens"] == 1
    names = {path.name for path in (folder / "out").iterdir()}
    assert made["sha256"].keys() | {CERTIFICATE} == names and FILES < names


def test_an_export_without_pytorch_has_all_but_the_pth_and_the_certificate(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # an import says that there is no such module
    export_run(ExportOptions(run=folder / "run", out=tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {"model.safetensors"}
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1
    assert "no model.pth and no certificate, which need PyTorch: pip install torch" in capsys.readouterr().out


def test_the_public_codes_checkpoint_needs_pytorch(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match="cannot build this model: layout"):
        export_run(ExportOptions(run=folder / "run", out=tmp_path / "out", format="uniaudio"))
    monkeypatch.setattr("uniaudio_jax.export_torch.public_config", lambda model: {})
    with pytest.raises(ValueError, match="--format uniaudio: got no package torch, wanted it"):
        export_run(ExportOptions(run=folder / "run", out=tmp_path / "out", format="uniaudio"))
    assert not list(tmp_path.iterdir())


def test_shards_come_back_bit_equal_by_their_index_and_by_any_of_them(folder):
    shards = sorted((folder / "out").glob("model-*.safetensors"))
    assert [path.name for path in shards] == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    run = load_run(folder / "run")
    for path in (folder / "out/model.safetensors.index.json", shards[0]):
        _, params = read_model(path, folder / "out/config.json")
        jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(run.params))


def test_shards_are_no_larger_than_asked_for_and_their_index_names_every_tensor(tmp_path):
    state = {f"a{n}": np.full((n, 250_000), n, np.float32) for n in (1, 2, 3, 1, 1, 1)} | {"b": np.ones(7, np.float32)}
    write_safetensors(state, tmp_path, 2)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == state.keys() and index["metadata"]["total_size"] == 6_000_028
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("*.safetensors"))]
    assert [size // 1_000_000 for size in sizes] == [1, 2, 3, 0]


def test_a_folder_that_fails_its_certificate_is_not_written_and_leaves_what_was_there(
    folder, copy, monkeypatch, without_generation
):
    monkeypatch.setattr(certificate, "TOLERANCE", 0.0)
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(ValueError, match="is not the run within 0.0: logits of random sequences differ by"):
        export_run(ExportOptions(run=folder / "run", out=copy))
    with pytest.raises(ValueError, match="no file was changed"):
        export_run(ExportOptions(run=folder / "run", out=copy.parent / "new"))
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_new_export_replaces_the_files_of_an_earlier_one_and_no_others(tmp_path):
    def fill(*names: str) -> None:
        with staged(tmp_path / "out") as partial:
            for name in names:
                (partial / name).write_text(name)
            (partial / CERTIFICATE).write_text(json.dumps({"sha256": dict.fromkeys(names, "")}))

    fill("model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.yaml", "a")
    for name in ("config.json", "notes.txt", "ep3.checkpoint"):
        (tmp_path / "out" / name).write_text("mine")
    fill("model.safetensors", "a")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"model.safetensors", "a", CERTIFICATE, "config.json", "notes.txt", "ep3.checkpoint"}
    with pytest.raises(RuntimeError), staged(tmp_path / "out") as partial:
        (partial / "b").write_text("b")
        raise RuntimeError
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_verified_folder_is_that_of_its_certificate_and_of_its_run(folder, copy, capsys, without_generation):
    verify(ExportOptions(verify=copy, run=folder / "run"))
    out = capsys.readouterr().out
    assert "files are those of the certificate" in out and "logits agree with PyTorch's" in out
    assert {path.name for path in copy.iterdir()} == {path.name for path in (folder / "out").iterdir()}
    (copy / "prompts.py").write_text((copy / "prompts.py").read_text() + "\n")
    with pytest.raises(ValueError, match=r"prompts.py: got sha256 \w+…, the certificate was made of"):
        verify(ExportOptions(verify=copy))
    (copy / "prompts.py").unlink()
    with pytest.raises(ValueError, match="prompts.py: no such file, which the certificate names"):
        verify(ExportOptions(verify=copy))
    (copy / CERTIFICATE).unlink()
    with pytest.raises(ValueError, match="certificate.json: got no file, wanted the certificate of an export"):
        verify(ExportOptions(verify=copy))


def test_a_folder_of_other_weights_is_not_verified_against_a_run(folder, copy, without_generation):
    shard = sorted(copy.glob("model-*.safetensors"))[0]
    state = load_file(shard)
    save_file({name: array + np.float32(1e-2) for name, array in state.items()}, shard)
    changed = json.loads((copy / CERTIFICATE).read_text())
    changed["sha256"][shard.name] = certificate.file_sha256(shard)
    (copy / CERTIFICATE).write_text(json.dumps(changed))
    verify(ExportOptions(verify=copy))
    with pytest.raises(ValueError, match="is not the run within 0.0001: logits of random sequences differ"):
        verify(ExportOptions(verify=copy, run=folder / "run"))


@pytest.mark.parametrize(
    "options", [{"run": Path("a")}, {"out": Path("a")}, {"run": Path("a"), "out": Path("a"), "verify": Path("a")}]
)
def test_an_export_wants_a_run_and_a_folder_or_a_folder_to_verify(options):
    with pytest.raises(ValueError, match="wanted --run and --out, or --verify"):
        ExportOptions(**options)


def example_of(folder: Path) -> str:
    (program,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return program


def test_the_program_of_the_model_card_runs_with_no_file_of_this_project(copy):
    blocked = "import sys\nsys.modules['uniaudio_jax'] = sys.modules['jax'] = None\n"
    (copy / "example.py").write_text(blocked + example_of(copy) + "\nprint(codes.shape)\n")
    done = subprocess.run([sys.executable, "example.py"], cwd=copy, env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"torch.Size\(\[\d+, 3\]\)\n", done.stdout)
    assert (copy / "out.wav").is_file() or "[0, 3]" in done.stdout


PACKAGES = ("torch", "torchgen", "functorch", "safetensors", "numpy", "numpy.libs", "typing_extensions.py")
NEEDS_OF_TORCH = ("filelock", "jinja2", "markupsafe", "mpmath", "networkx", "sympy", "fsspec")


@pytest.mark.slow
def test_a_fresh_environment_of_pytorch_and_safetensors_turns_a_prompt_into_a_wav(copy, tmp_path):
    venv.create(tmp_path / "env")
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    installed = Path(torch.__file__).parents[1]
    for name in (*PACKAGES, *NEEDS_OF_TORCH):
        if (installed / name).exists():
            (site / name).symlink_to(installed / name)
    lines = ["import importlib.util", "assert not importlib.util.find_spec('jax')"]
    (copy / "example.py").write_text("\n".join([*lines, example_of(copy), "print(len(codes))"]))
    python = tmp_path / "env/bin/python"
    done = subprocess.run([python, "example.py"], cwd=copy, env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(json.loads(json.dumps(vocabulary_json(MODEL, SYMBOLS, ARPABET))))


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.makes_audio])
def test_a_prompt_of_every_task_is_that_of_a_training(vocabulary, name):
    task, rng = get_task(name), np.random.default_rng(0)
    streams = {stream.key: random_stream(stream, 5, rng) for stream in task.conditions}
    if "masked_audio" in streams:
        streams["masked_audio"][2:4] = -1
    wanted = to_prefix(task, streams, VOCABULARY, TEXT_WIDTH)
    prompt = vocabulary.prompt(name, **{key: torch.from_numpy(items) for key, items in streams.items()})
    np.testing.assert_array_equal(prompt["prefix"][0].numpy(), wanted.tokens)
    if len(wanted.text_vectors):
        np.testing.assert_array_equal(prompt["text_slots"][0].numpy(), wanted.text_slots)
        np.testing.assert_array_equal(prompt["text_vectors"][0].numpy(), wanted.text_vectors)


def test_a_prompt_names_the_conditions_that_it_wants(vocabulary):
    with pytest.raises(ValueError, match=r"tts: got \['phone'\], wanted the conditions \['phone', 'speaker_prompt'\]"):
        vocabulary.prompt("tts", phone=torch.zeros(3))
    with pytest.raises(ValueError, match="asr: makes text, wanted a task that makes audio"):
        vocabulary.prompt("asr", semantic=torch.zeros(3))


def test_phones_in_arpabet_and_ipa_have_the_ids_of_the_tokenizer(vocabulary):
    tokenizer = PhoneTokenizer()
    names = [*ARPABET, *(f"{vowel}{stress}" for vowel in ("AA", "AH", "ER", "IY", "OW") for stress in "012")]
    for name in names:
        (symbols,) = phone_symbols([name])
        np.testing.assert_array_equal(vocabulary.phones([name]).numpy(), tokenizer.ids(symbols))
    np.testing.assert_array_equal(vocabulary.phones(["h", "ə", "lˈ", " ", "oʊ"]), tokenizer.ids("həlˈ oʊ"))
    with pytest.raises(ValueError, match=r"phones: got \['é'\], wanted ARPABET"):
        vocabulary.phones(["é"])


def test_codes_are_cut_at_the_end_of_their_row_and_counted_from_0_at_each_level(vocabulary):
    end, codes = vocabulary.special["<audio_end>"], np.random.default_rng(0).integers(0, 11, (2, 5, 3))
    tokens = torch.from_numpy(codes + np.array([VOCABULARY.level(level).start for level in range(3)]))
    tokens[1, 2:] = end
    whole, cut = vocabulary.codes(tokens)
    np.testing.assert_array_equal(whole.numpy(), codes[0])
    np.testing.assert_array_equal(cut.numpy(), codes[1, :2])


PUBLIC = ModelConfig(
    context_frames=29,
    codebooks=3,
    text_width=768,
    global_stack=StackConfig(layers=5, width=30, heads=5),
    local_stack=StackConfig(layers=2, width=30, heads=5),
)


def test_the_public_codes_config_comes_back_as_the_same_model(tmp_path):
    (tmp_path / "config.yaml").write_text(json.dumps(public_config(PUBLIC)))
    values = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert values["token_list"][23] == "<mega_global>" and values["token_list"][128:130] == ["<audio_0>", "<audio_1>"]
    assert values["token_list"][3201] == "<phone_0>" and len(values["token_list"]) == 4212
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values | {"seed": 999, "n_epoch": 3}))
    sizes = convert_sizes(tmp_path / "config.yaml", dict)
    assert config_from_json(sizes, random_state(PUBLIC)).canonical() == PUBLIC.canonical()


def test_a_config_whose_ids_mean_something_else_is_refused(tmp_path):
    values = public_config(PUBLIC)
    tokens = values["token_list"]
    other = [*tokens[:128], *tokens[3201:3301], *tokens[128:3201]]
    assert sizes_of_public(values | {"token_list": other})["appended"] == {"phone": 100, "audio": 3073}
    for change in ({"token_list": [*tokens[:3], "<start>", *tokens[4:]]}, {"token_list": tokens[:3400]}):
        with pytest.raises(ValueError, match="this project's ids mean something else"):
            sizes_of_public(values | change)
    (tmp_path / "a.yaml").write_text("n_layer: [")
    with pytest.raises(ValueError, match="a.yaml: while parsing"):
        convert_sizes(tmp_path / "a.yaml", dict)
    with pytest.raises(ValueError, match="got none of n_head, n_embd"):
        sizes_of_public({"n_layer": 3})


def test_a_model_that_the_public_code_cannot_build_is_refused_in_its_format():
    with pytest.raises(ValueError, match=r"cannot build this model: layout .*; text_width 7 \(wanted 768\)"):
        public_config(ModelConfig(**{**vars(PUBLIC), "layout": MODERN, "text_width": 7}))
    assert [local_layers(layers) for layers in (2, 5, 16, 24)] == [1, 2, 8, 8]
