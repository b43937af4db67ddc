"""Laws of codec exchange: PyTorch files come in and go out bit-equal, and the command lines work on what came in."""

import json

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from tests.small_run import finish, python
from tests.test_seanet import random_state
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.codec.config import CodecConfig, QuantizerConfig, SegmentConfig
from uniaudio_jax.codec.exchange import config_from_json, config_to_json
from uniaudio_jax.codec.layouts.seanet import SeanetConfig
from uniaudio_jax.codec.public import PUBLIC_CODECS, public_codec
from uniaudio_jax.codec.segments import load_segmented

SMALL = {"quantizer": QuantizerConfig(codebooks=3, entries=32, width=7), "sample_rate_hz": 8000}
CAUSAL = CodecConfig(name="causal", layout=SeanetConfig(filters=2, ratios=(4, 2), causal=True, lstm_layers=1), **SMALL)
STEREO = CodecConfig(
    name="stereo",
    segment=SegmentConfig(samples=4000, stride=3960),
    **SMALL,
    layout=SeanetConfig(filters=2, ratios=(4, 2), channels=2, norm="time_group_norm"),
)


@pytest.mark.parametrize("config", (*PUBLIC_CODECS.values(), CAUSAL, STEREO), ids=lambda config: config.name)
def test_sizes_pass_through_json(config):
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


@pytest.mark.parametrize(
    ("change", "said"),
    [({"bins": None}, "no bins"), ({"pad_mode": "zero"}, "pad_mode = 'zero'"), ({"fliters": 3}, "unknown fliters")],
)
def test_a_bad_json_is_refused(change, said):
    values = config_to_json(CAUSAL) | change
    values = {key: value for key, value in values.items() if value is not None}
    with pytest.raises(ValueError, match=said):
        config_from_json(values)


def test_an_unknown_layout_gets_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'encodec_24khz'"):
        public_codec("encodec_24kh")


@pytest.mark.parametrize(
    ("config", "kind"), [pytest.param(CAUSAL, "pth", marks=pytest.mark.slow), (STEREO, "th"), (CAUSAL, "safetensors")]
)
def test_weights_come_in_and_go_out_bit_equal(config, kind, tmp_path):
    torch = pytest.importorskip("torch")
    state, weights = random_state(config), tmp_path / f"codec.{kind}"
    if kind == "safetensors":
        save_file(state, weights)
    else:
        torch.save({name: torch.from_numpy(value) for name, value in state.items()}, weights)
    (tmp_path / "config.json").write_text(json.dumps(config_to_json(config)))
    finish(
        python(
            "uniaudio_jax.import_torch",
            "--kind",
            "codec",
            "--weights",
            weights,
            "--config",
            tmp_path / "config.json",
            "--out",
            tmp_path / "codec",
        )
    )
    out, _ = finish(
        python("uniaudio_jax.export_torch", "--kind", "codec", "--run", tmp_path / "codec", "--out", tmp_path / "out")
    )
    assert f"{len(state)} tensors" in out
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert back.keys() == state.keys() and all(np.array_equal(back[name], state[name]) for name in state)
    assert config_from_json(json.loads((tmp_path / "out" / "config.json").read_text())) == config


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    """Folders of a causal codec and of one with segments."""
    from uniaudio_jax.codec.exchange import import_codec

    root = tmp_path_factory.mktemp("codecs")
    for config in (CAUSAL, STEREO):
        import_codec(random_state(config), config, root / config.name, "random")
    return root


@pytest.mark.slow
def test_a_file_passes_through_a_codec_of_segments(codecs, tmp_path):
    wav = np.random.default_rng(0).normal(0, 0.1, (9001, 2)).astype(np.float32)
    soundfile.write(tmp_path / "clip.wav", wav, 8000, subtype="FLOAT")
    finish(python("uniaudio_jax.codec.encode", tmp_path / "clip.wav", "--codec", codecs / "stereo", "--out", tmp_path))
    finish(
        python(
            "uniaudio_jax.codec.decode", tmp_path / "clip.npz", "--codec", codecs / "stereo", "--out", tmp_path / "back"
        )
    )
    got, rate = soundfile.read(tmp_path / "back" / "clip.wav")
    codec = load_segmented(codecs / "stereo")
    wanted = codec.decode(codec.encode(wav), 9001)
    assert rate == 8000 and got.shape == (9001, 2)
    np.testing.assert_allclose(got, np.clip(wanted, -1, 1), atol=2**-14)


def test_a_bandwidth_is_a_number_of_codebooks(codecs, tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.zeros(801), 8000)
    words = [tmp_path / "clip.wav", "--codec", codecs / "causal", "--out", tmp_path, "--bandwidth"]
    finish(python("uniaudio_jax.codec.encode", *words, 10))  # 1000 frames a second, 5 bits each
    assert np.load(tmp_path / "clip.npz")["codes"].shape == (101, 2)
    _, err = finish(python("uniaudio_jax.codec.encode", *words, 7), code=2)
    assert "wanted a multiple of 5 up to 15" in err


def test_a_codec_of_segments_is_no_codec_of_a_run(codecs):
    with pytest.raises(ValueError, match="wanted one stream of frames"):
        load_codec(codecs / "stereo")
