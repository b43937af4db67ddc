"""Models that metrics judge with: by path and by hash, as ONNX files, of packages, and stand-ins of known values."""

import importlib.util
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from uniaudio_jax.files import file_sha256
from uniaudio_jax.metrics import clap_score, onnx_judge
from uniaudio_jax.metrics.frechet import set_distance
from uniaudio_jax.metrics.judges import Judges, Model, named_model
from uniaudio_jax.metrics.kl_divergence import kl_divergence
from uniaudio_jax.metrics.metric import SetMetric
from uniaudio_jax.metrics.registry import METRICS, make_metrics, scores_of, set_values
from uniaudio_jax.metrics.sample import NO_SCORE, Sample
from uniaudio_jax.metrics.speaker_similarity import similarity
from uniaudio_jax.metrics.vectors import frechet_distance
from uniaudio_jax.packages import stand_in

RATE = 16000
EMPTY = np.zeros(0, np.float32)
NOWHERE = Model(Path("nowhere"), "", RATE)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def sample(reference, estimate, **rest: Any) -> Sample:
    return Sample(reference=reference, estimate=estimate, sample_rate_hz=RATE, **rest)


# Paths and hashes


def test_a_path_may_end_in_the_first_digits_of_the_hash(tmp_path):
    path = tmp_path / "a@b.onnx"
    path.write_bytes(b"weights")
    sha256 = file_sha256(path)
    for given in (str(path), f"{path}@{sha256[:7]}", f"{path}@{sha256.upper()}"):
        model = named_model(Judges(audio_embedding=given), "audio_embedding", rate_hz=32000)
        assert model == (path, sha256, 32000)
    assert named_model(Judges(), "audio_embedding") is None


def test_a_file_with_another_hash_is_refused_with_its_own(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"weights")
    sha256 = file_sha256(tmp_path / "model.bin")
    with pytest.raises(
        ValueError, match=f"--judges.whisper: got .*model.bin with sha256 {sha256[:16]}…, wanted .*0123"
    ):
        named_model(Judges(whisper=f"{tmp_path}@0123"), "whisper", "model.bin")


def test_a_model_that_is_not_there_is_refused_before_anything_is_judged(tmp_path):
    for field, wanted in (("xvector", "a folder with model.safetensors"), ("audio_embedding", "a file")):
        file = "model.safetensors" if field == "xvector" else ""
        option = f"--judges.{field.replace('_', '-')}"
        with pytest.raises(ValueError, match=f"{option}: got {tmp_path}, but there is no file .*wanted {wanted}"):
            named_model(replace(Judges(), **{field: str(tmp_path)}), field, file)
    with pytest.raises(ValueError, match="--judges.audio-embedding-rate-hz: got 0, wanted a sample rate"):
        Judges(audio_embedding_rate_hz=0)


# Voices


def test_a_voice_is_compared_with_the_prompt_and_with_the_reference_where_there_is_none():
    def embed(wav: np.ndarray, model: Model) -> np.ndarray:
        return np.array([wav.mean(), 1.0])

    compare = partial(similarity, model=NOWHERE, embed=embed)
    ones = np.ones(7, np.float32)
    assert compare(sample(ones, ones)).total == pytest.approx(1)
    assert compare(sample(ones, ones, conditions={"speaker_prompt": -ones})).total == pytest.approx(0)
    assert compare(sample(ones, 0 * ones)) == compare(sample(ones, EMPTY)) == (0, 1)
    assert compare(sample(0 * ones, ones)) == compare(sample(EMPTY, ones)) == NO_SCORE


def test_a_small_wavlm_with_an_x_vector_head_judges_voices(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 23}
    convolutions = {"conv_dim": (11, 11), "conv_stride": (5, 64), "conv_kernel": (10, 64)}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    head = {"tdnn_dim": (13, 13), "tdnn_kernel": (3, 1), "tdnn_dilation": (1, 1), "xvector_output_dim": 7}
    config = transformers.WavLMConfig(**sizes, **convolutions, **positions, **head)
    network = transformers.WavLMForXVector(config).eval()
    network.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    metrics = make_metrics(["xvector_similarity"], Judges(xvector=str(tmp_path)))
    first, second = noise(16001), noise(9001, seed=1)
    with torch.inference_mode():
        vectors = [network(torch.from_numpy(wav[None])).embeddings[0].numpy() for wav in (first, second)]
    expected = np.dot(*vectors) / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1])
    scores = scores_of(sample(first, second), metrics)
    assert scores["xvector_similarity"].total == pytest.approx(expected, abs=1e-5)
    assert scores_of(sample(first, first), metrics)["xvector_similarity"].total == pytest.approx(1)
    assert metrics["xvector_similarity"].about.model_sha256 == file_sha256(tmp_path / "model.safetensors")


# Captions


def test_a_caption_is_compared_with_the_estimate_by_clap(monkeypatch):
    """A stand-in whose vectors are at an angle of 60 degrees; what is silent or has no caption is not shown to it."""
    torch = pytest.importorskip("torch")
    shown = []

    def prepare(**inputs: Any) -> dict[str, Any]:
        shown.append((inputs["text"], len(inputs["audio"][0]), inputs["sampling_rate"]))
        return {}

    vectors = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.5, 1.5 * 3**0.5]])
    result = SimpleNamespace(text_embeds=vectors[0], audio_embeds=vectors[1])
    monkeypatch.setattr(clap_score, "open_folder", lambda *_: (prepare, lambda: result))
    judge = partial(clap_score.clap_score, model=Model(Path("clap/model.safetensors"), "", 48000))
    wav = noise(1601)
    assert judge(sample(wav, wav, text="rain"))["clap_score"].total == pytest.approx(0.5)
    assert judge(sample(wav, EMPTY, text="rain")) == {"clap_score": (0, 1)}
    assert judge(sample(wav, wav)) == {"clap_score": NO_SCORE}
    assert shown == [(["rain"], 3 * 1601, 48000)]


@pytest.mark.slow
def test_a_small_clap_model_judges_captions(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    words = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "rain", "wind"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    text = {"vocab_size": 7, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    sound = {"patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 16}
    sound |= {"num_hidden_layers": 2, "spec_size": 256, "num_mel_bins": 64}
    config = transformers.ClapConfig(text_config=text, audio_config=sound, projection_dim=11)
    network = transformers.ClapModel(config).eval()
    network.save_pretrained(tmp_path)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")
    prepare = transformers.ClapProcessor(transformers.ClapFeatureExtractor(truncation="rand_trunc"), fast)
    prepare.save_pretrained(tmp_path)
    metrics = make_metrics(["clap_score"], Judges(clap=str(tmp_path)))
    clip = noise(16001)
    scores = [scores_of(sample(clip, clip, text=word), metrics)["clap_score"].total for word in ("rain", "wind")]
    assert scores[0] != scores[1] and all(abs(score) <= 1 for score in scores)


# ONNX files


def stand_in_session(monkeypatch, function) -> None:
    """Every ONNX file is this function of waveforms [1, S]."""
    session = SimpleNamespace(
        get_inputs=lambda: [SimpleNamespace(name="wav")], run=lambda names, inputs: [function(inputs["wav"])]
    )
    monkeypatch.setattr(onnx_judge, "open_session", lambda path: session)


def test_kl_divergence_is_that_of_the_chances(monkeypatch):
    """Of (1/2, 1/2) from (1/4, 3/4) it is ln 2 / 2 + ln(2/3) / 2."""
    stand_in_session(monkeypatch, lambda wav: np.array([[0.5, 0.5] if wav[0, 0] > 0 else [0.25, 0.75]]))
    ones = np.ones(7, np.float32)
    (score,) = kl_divergence(sample(ones, -ones), NOWHERE).values()
    assert score.total == pytest.approx((np.log(2) + np.log(2 / 3)) / 2)
    assert kl_divergence(sample(ones, ones), NOWHERE)["kl_divergence"] == (0, 1)
    assert kl_divergence(sample(EMPTY, ones), NOWHERE)["kl_divergence"] == NO_SCORE
    assert kl_divergence(sample(ones, EMPTY), NOWHERE) == kl_divergence(sample(ones, 0 * ones), NOWHERE)


def test_what_are_no_chances_is_refused(monkeypatch):
    stand_in_session(monkeypatch, lambda wav: np.array([[3.0, -1.0]]))
    with pytest.raises(ValueError, match="--judges.audio-classifier nowhere: got outputs from -1 to 3 that sum to 2"):
        kl_divergence(sample(noise(7), noise(7)), NOWHERE)


def test_a_distance_of_sets_is_over_every_row_that_a_model_gives():
    """Pairs of rows at 0 and 2 beside pairs at 3 and 5: equal covariances, and means 3 apart."""
    samples = [sample(np.full(7, 1.0), np.full(7, 4.0)), sample(np.full(5, 1.0), np.full(5, 4.0))]
    assert set_distance(samples, lambda wav, rate_hz: np.array([[wav[0] - 1], [wav[0] + 1]])) == pytest.approx(9)
    assert set_distance(samples[:1], lambda wav, rate_hz: np.zeros((7, 1))) is None


def varint(number: int) -> bytes:
    """A number as protocol buffers have it: seven bits a byte, the last byte below 128."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protocol buffer with these fields: numbers, and texts, messages or packed numbers."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            content = value.encode() if isinstance(value, str) else value
            parts.append(varint(number << 3 | 2) + varint(len(content)) + content)
    return b"".join(parts)


def onnx_file(path: Path, last: str) -> str:
    """Writes a model of one waveform [1, S] whose output [1, 2] is `last` of its mean and its mean square."""

    def node(kind: str, inputs: list[str], output: str, *attributes: bytes) -> tuple[int, bytes]:
        fields = [*((1, name) for name in inputs), (2, output), (4, kind), *((5, each) for each in attributes)]
        return 1, message(*fields)

    def tensor(name: str, *sizes: bytes) -> bytes:
        return message((1, name), (2, message((1, message((1, 1), (2, message(*((1, size) for size in sizes))))))))

    axis = message((1, "axis"), (3, 1), (20, 2))
    axes = message((1, "axes"), (8, b"\x01"), (20, 7))
    graph = message(
        node("Mul", ["wav", "wav"], "squares"),
        node("ReduceMean", ["wav"], "mean", axes),
        node("ReduceMean", ["squares"], "power", axes),
        node("Concat", ["mean", "power"], "both", axis),
        node(last, ["both"], "result"),
        (2, "judge"),
        (11, tensor("wav", message((1, 1)), message((2, "S")))),
        (12, tensor("result", message((1, 1)), message((1, 2)))),
    )
    path.write_bytes(message((1, 8), (8, message((2, 13))), (7, graph)))
    return str(path)


def test_onnx_files_judge_sounds_and_sets_of_them(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is an optional extra")
    judges = Judges(
        audio_embedding=onnx_file(tmp_path / "embed.onnx", "Identity"),
        audio_classifier=onnx_file(tmp_path / "classify.onnx", "Softmax"),
    )
    metrics = make_metrics(["frechet_audio_distance", "kl_divergence"], judges)
    assert isinstance(metrics["frechet_audio_distance"], SetMetric)
    levels = np.array([0.1, 0.5, 0.9])
    samples = [sample(np.full(701, level), np.full(701, level + 0.2)) for level in levels]
    rows, others = (np.stack([each, each**2], axis=1) for each in (levels, levels + 0.2))
    assert set_values(samples, metrics)["frechet_audio_distance"] == pytest.approx(
        frechet_distance(rows, others), abs=1e-5
    )
    chances = [np.exp(row) / np.exp(row).sum() for row in (rows[0], others[0])]
    score = scores_of(samples[0], metrics)["kl_divergence"]
    assert score.total == pytest.approx(np.sum(chances[0] * np.log(chances[0] / chances[1])), abs=1e-5)


# Packages


def test_a_stand_in_is_gone_when_its_block_ends():
    with stand_in("no_such_module"):
        assert "no_such_module" in sys.modules
    assert importlib.util.find_spec("no_such_module") is None


@pytest.fixture(scope="module")
def voices() -> list[np.ndarray]:
    """Two sentences of one voice, and the first of another, by espeak at 16 kHz."""
    speech_clip = pytest.importorskip("data_pipelines.synthetic.voices").speech_clip
    pytest.importorskip("espeakng_loader")
    texts = "The old fisherman bought two large suitcases yesterday.", "Turn left under the bridge and walk slowly."
    return [speech_clip(*pair) for pair in (("en-us+m3", texts[0]), ("en-us+m3", texts[1]), ("en-us+f4", texts[0]))]


@pytest.mark.parametrize("name", ["dnsmos", "distillmos", "speaker_similarity"])
def test_a_judge_of_a_package_prefers_speech_to_what_is_broken(name, voices):
    if not METRICS[name].installed:
        pytest.skip(f"{name} needs the extra {METRICS[name].extra}")
    metrics = make_metrics([name], Judges())
    clip, same, other = voices
    level = float(np.std(clip))
    # DistillMOS hears little harm in noise behind a synthetic voice.
    broken = np.clip(clip, -level / 2, level / 2) if name == "distillmos" else clip + noise(len(clip)) * 10 * level
    good, bad = (scores_of(sample(same, estimate), metrics) for estimate in (clip, broken))
    for score in METRICS[name].scales:
        assert good[score].total > bad[score].total + 0.1, score
    if name == "speaker_similarity":
        assert good[name].total > 0.75 > scores_of(sample(same, other), metrics)[name].total + 0.05
    else:
        silent = [scores_of(sample(clip, silence), metrics) for silence in (EMPTY, 0 * clip)]
        assert silent[0] == silent[1] == dict.fromkeys(METRICS[name].scales, (1, 1))
