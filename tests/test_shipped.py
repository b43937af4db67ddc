"""A model that comes with the package is an ordinary run, near enough to the one it was made of."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from tests.small_run import REPO, write_untrained_run
from uniaudio_jax import ship, shipped
from uniaudio_jax.audio.files import write_audio
from uniaudio_jax.checkpoint import describe
from uniaudio_jax.codec.passports import codes_of
from uniaudio_jax.codec.storage import save_codec
from uniaudio_jax.config import MeshConfig
from uniaudio_jax.growth import first_state
from uniaudio_jax.programs import Programs
from uniaudio_jax.run import load_run
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.ship import About, pack
from uniaudio_jax.shipped import from_integers, place_of_run, shipped_models, to_integers, unpacked, voices_of


@pytest.mark.parametrize(
    ("axes", "shape", "reduced"),
    [
        (("vocab", "embed"), (7, 5), -1),
        (("embed", "vocab"), (7, 5), -2),
        (("layers", "embed", "mlp"), (3, 7, 5), -2),
        (("levels", "embed"), (3, 5), None),
        (("embed",), (5,), None),
    ],
)
def test_integers_are_within_half_a_step_of_the_weights(axes, shape, reduced):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    array[0] *= 100
    parts = to_integers(array, axes)
    back = from_integers({"w" + end: part for end, part in parts.items()})["w"]
    if reduced is None:
        np.testing.assert_array_equal(back, array)
    else:
        assert parts[""].dtype == np.int8 and np.abs(parts[""]).max() == 127
        step = np.abs(array).max(axis=reduced, keepdims=True) / 127
        assert (np.abs(back - array) <= 0.501 * step).all()
    zero = to_integers(np.zeros_like(array), axes)
    assert not from_integers({"w" + end: part for end, part in zero.items()})["w"].any()


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A run, and a folder of models with it under the name `tiny`."""
    folder = tmp_path_factory.mktemp("weights")
    run = load_run(write_untrained_run(tmp_path_factory.mktemp("small"), ("tts", "text_to_music")))
    write_audio(folder / "tiny" / "voices" / "ann.wav", np.full(16000, 0.1, np.float32), 16000)
    pack(run, folder / "tiny", About(paces={"tts": 150.0}, temperatures={"tts": 0.25}, guidances={"tts": 2.0}))
    return run, folder


@pytest.fixture
def models(packed, monkeypatch, tmp_path):
    run, folder = packed
    monkeypatch.setattr(shipped, "SHIPPED", folder)
    monkeypatch.setenv("UNIAUDIO_CACHE", str(tmp_path / "cache"))
    return run


def test_the_name_of_a_model_stands_for_its_run(models):
    assert list(shipped_models()) == ["tiny"]
    run = load_run("tiny")
    assert (run.step, run.config.model) == (models.step, models.config.model)
    assert list(voices_of(run.path)) == ["ann"] and run.meta["paces"] == {"tts": 150.0}
    assert run.sampling_of("tts") == Sampling(temperature=0.25, guidance=2.0)
    assert run.sampling_of("enhancement") == Sampling(temperature=1.0, guidance=1.0)
    stated = Sampling(temperature=0.5, guidance=1.5, top_k=7)
    assert run.sampling_of("tts", stated) == stated
    tokens = np.random.default_rng(0).integers(0, models.config.model.vocabulary_size, (2, 37, 3))
    logits, wanted = run.logits(tokens), models.logits(tokens)
    assert 0 < np.abs(logits - wanted).max() < 0.1 * np.std(wanted)
    assert place_of_run("tiny") == run.path and place_of_run("elsewhere").name == "elsewhere"


def test_a_model_may_come_with_another_decoder_of_its_codes(packed, monkeypatch, tmp_path):
    source, _ = packed
    run = load_run(source.path)
    codec = run.codec
    codes = codes_of(codec.passport())
    louder = jax.tree.map(lambda leaf: 1.1 * leaf, codec.params["decoder"])
    save_codec(tmp_path / "clear", codec.config, {**codec.params, "decoder": louder}, {"codes_of": codes})
    save_codec(tmp_path / "other", codec.config, {**codec.params, "decoder": louder})
    with pytest.raises(ValueError, match="trained on tokens of codec"):
        pack(load_run(source.path), tmp_path / "refused", About(), str(tmp_path / "other"))
    assert not (tmp_path / "refused").exists()
    pack(load_run(source.path), tmp_path / "models" / "clear", About(), str(tmp_path / "clear"))
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "models")
    monkeypatch.setenv("UNIAUDIO_CACHE", str(tmp_path / "cache"))
    model = load_run("clear")
    assert model.codec.weights_sha256 == model.meta["codec"]["weights_sha256"] != codec.weights_sha256
    assert codes_of(model.meta["codec"]) == codes


def test_a_training_may_start_from_a_model(models):
    config = replace(models.config, start_from="tiny")
    meta = describe(config, models.codec.passport())
    programs = Programs(config.model, config.train, config.optim, make_mesh(MeshConfig(), jax.devices()[:1]))
    state = first_state(config, meta, programs)
    for got, wanted in zip(*map(jax.tree.leaves, (state.params, models.params)), strict=True):
        assert np.abs(got - wanted).max() <= np.abs(wanted).max() / 127


def test_the_curve_holds_the_mean_of_what_was_logged():
    logged = [(20, 4.0, 3.0), (100, 2.0, None), (120, 1.0, 5.0)]
    metrics = [{"step": step, "loss/all": loss, "loss/tts": tts, "loss/tts/level_1": 9.0} for step, loss, tts in logged]
    assert ship.curve_of([*metrics, {"step": 120, "heldout/loss/tts": 3.0}]).splitlines() == [
        "step,all,tts",
        "100,3.000,3.000",
        "200,1.000,5.000",
    ]


def test_weights_of_another_save_are_refused(packed, monkeypatch, tmp_path):
    _, folder = packed
    monkeypatch.setenv("UNIAUDIO_CACHE", str(tmp_path))
    other = tmp_path / "tiny"
    other.mkdir()
    passport = json.loads((folder / "tiny" / "passport.json").read_text())
    (other / "passport.json").write_text(json.dumps(passport | {"weights_sha256": "0" * 64}))
    (other / "weights.safetensors").write_bytes((folder / "tiny" / "weights.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"weights\.safetensors: got weights of sha256 .*install the package again"):
        unpacked(other)
    assert not list((tmp_path / "models").glob("*"))


def test_shipped_models_are_whole_and_small():
    for name, folder in shipped_models().items():
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) <= 20e6, name
        assert folder.is_relative_to(REPO) and shipped.DEFAULT in shipped_models()
        assert ship.PASSPORT_FILE in [path.name for path in files]
