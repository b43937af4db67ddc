"""Laws of the codec: lengths, batches, files, and the quality of the shipped weights."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.synthetic.voices import speech_clip
from tests.audio_damage import audio_file, cut, with_noise
from uniaudio_jax.audio.files import read_audio, write_audio
from uniaudio_jax.audio.spectra import mel_distance
from uniaudio_jax.codec.codec import SHIPPED, Codec, load_codec, save_codec
from uniaudio_jax.codec.config import CodecConfig, QuantizerConfig
from uniaudio_jax.codec.layouts.frame_rate import FrameRateConfig
from uniaudio_jax.codec.layouts.seanet import SeanetConfig
from uniaudio_jax.codec.module import build_module
from uniaudio_jax.codec.passports import codes_of

QUANTIZER = QuantizerConfig(codebooks=5, entries=31, width=7)
FRAME_RATE = FrameRateConfig(width=13, hidden=17, mel_bands=11, encoder_blocks=2, decoder_blocks=3)
SEANET = SeanetConfig(filters=2, ratios=(4, 5), lstm_layers=1)


def random_params(config: CodecConfig) -> dict:
    # In one program: op by op, each shape would be compiled on its own.
    make = jax.jit(
        lambda: nnx.to_pure_dict(nnx.state(build_module(config, nnx.Rngs(0)), nnx.Param)),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    params = make()
    quantizer = config.quantizer
    books = jax.random.normal(jax.random.key(1), (quantizer.codebooks, quantizer.entries, quantizer.width))
    return {**params, "quantizer": {"codebooks": np.asarray(books)}}


@pytest.fixture(scope="module")
def codec() -> Codec:
    config = CodecConfig(name="random", layout=FRAME_RATE, quantizer=QUANTIZER)
    return Codec(config, random_params(config))


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(samples) * 0.1).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(1, 20011), levels=st.sampled_from((2, 5)))
def test_encode_and_decode_keep_the_length(codec, samples, levels):
    wav = noise(samples)
    codes = codec.encode(wav, codebooks=levels)
    assert codes.shape == (-(-samples // 320), levels) and codes.dtype == np.int16
    out = codec.decode(codes, samples=samples)
    assert out.shape == (samples,) and out.dtype == np.float32 and np.isfinite(out).all()


def test_padding_a_row_changes_no_vector_and_no_sample():
    module = build_module(CodecConfig(name="random", layout=FRAME_RATE, quantizer=QUANTIZER), nnx.Rngs(0))
    encode, decode = jax.jit(module.encode), jax.jit(module.decode)
    short, long = noise(7 * 320 + 11), noise(19 * 320, seed=2)
    batch = np.stack([np.pad(short, (0, len(long) - len(short))), long])
    frames = np.array([8, 19])
    vectors = encode(batch, frames)
    np.testing.assert_allclose(vectors[0, :8], encode(short[None], frames[:1])[0], rtol=1e-5, atol=1e-5)
    wavs = decode(vectors, frames)
    alone = decode(vectors[:1, :8], frames[:1])
    np.testing.assert_allclose(wavs[0, : 8 * 320], alone[0], rtol=1e-5, atol=1e-5)
    assert not np.asarray(wavs[0, 8 * 320 :]).any()


def test_rows_of_equal_length_make_one_array(codec):
    wavs = np.stack([noise(1009, seed) for seed in range(3)])
    codes = codec.encode(wavs, codebooks=2)
    assert codes.shape == (3, 4, 2)
    assert codec.decode(codes, samples=1009).shape == (3, 1009)


def test_fewer_levels_are_a_prefix(codec):
    wav = noise(4001)
    np.testing.assert_array_equal(codec.encode(wav, codebooks=2), codec.encode(wav)[:, :2])


@pytest.mark.parametrize(
    ("wav", "said"),
    [
        (np.zeros(0, np.float32), "at least one sample"),
        (np.array([0.1, np.nan], np.float32), "NaN or infinite"),
        (np.zeros((2, 3, 5), np.float32), r"shape \(2, 3, 5\)"),
        (np.zeros(5, np.int16), "type int16"),
    ],
)
def test_a_bad_waveform_is_refused(codec, wav, said):
    with pytest.raises(ValueError, match=said):
        codec.encode(wav)


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (np.zeros((3, 6), int), "wanted integers"),
        (np.zeros((3, 2), np.float32), "type float32"),
        (np.full((3, 2), 31), "got codes 31 to 31"),
        (np.zeros((0, 2), int), "no frame"),
    ],
)
def test_bad_codes_are_refused(codec, codes, said):
    with pytest.raises(ValueError, match=said):
        codec.decode(codes)


def test_more_samples_than_the_codes_hold_are_refused(codec):
    with pytest.raises(ValueError, match="got samples=961 for 3 frames, wanted 1 to 960"):
        codec.decode(np.zeros((3, 2), int), samples=961)


def test_silence_is_coded(codec):
    assert np.isfinite(codec.decode(codec.encode(np.zeros(1601, np.float32)))).all()


def save(folder: Path) -> None:
    config = CodecConfig(name="saved", layout=FRAME_RATE, quantizer=QUANTIZER)
    save_codec(folder, config, random_params(config))


def test_float32_keeps_every_bit(tmp_path):
    config = CodecConfig(name="saved", layout=SEANET, quantizer=QUANTIZER)
    params = random_params(config)
    save_codec(tmp_path, config, params, precision="float32")
    for wanted, got in zip(jax.tree.leaves(params), jax.tree.leaves(load_codec(tmp_path).params), strict=True):
        np.testing.assert_array_equal(wanted, got)


def test_weights_that_float16_cannot_hold_are_not_saved(tmp_path):
    config = CodecConfig(name="saved", layout=SEANET, quantizer=QUANTIZER)
    params = random_params(config)
    params["quantizer"]["codebooks"] = params["quantizer"]["codebooks"] * 1e6
    with pytest.raises(ValueError, match="quantizer.codebooks has values that are not finite in float16"):
        save_codec(tmp_path, config, params)
    assert not any(tmp_path.iterdir())


def test_changed_weights_are_refused(tmp_path):
    save(tmp_path)
    weights = tmp_path / "weights.safetensors"
    blob = bytearray(weights.read_bytes())
    blob[-3] ^= 1
    weights.write_bytes(blob)
    with pytest.raises(ValueError, match="got weights with sha256 .* wanted"):
        load_codec(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path):
    save(tmp_path)
    passport = json.loads((tmp_path / "passport.json").read_text())
    passport["config"]["quantizer"]["entries"] = 37
    (tmp_path / "passport.json").write_text(json.dumps(passport))
    with pytest.raises(ValueError, match="quantizer.codebooks"):
        load_codec(tmp_path)


def test_an_unknown_codec_gets_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'tiny_16k'"):
        load_codec("tiny16k")


@pytest.mark.parametrize("channels,rate", [(1, 16000), (2, 16000), (1, 48000), (2, 48000), (6, 8000)])
def test_files_become_mono_at_one_rate_and_conversions_are_named(tmp_path, channels, rate):
    path = tmp_path / "clip.wav"
    time = np.arange(rate) / rate
    soundfile.write(path, np.tile(0.5 * np.sin(2 * np.pi * 440 * time)[:, None], (1, channels)), rate)
    clip = read_audio(path, 16000)
    assert clip.samples.shape == (16000,) and clip.samples.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(clip.samples))
    assert spectrum.argmax() == 440
    assert len(clip.converted) == (channels > 1) + (rate != 16000)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_sample_formats_are_read_alike(tmp_path, subtype):
    soundfile.write(tmp_path / "clip.wav", noise(1013), 16000, subtype=subtype)
    np.testing.assert_allclose(read_audio(tmp_path / "clip.wav", 16000).samples, noise(1013), atol=2**-15)


@pytest.mark.parametrize("samples,rate", [(1, 48000), (1, 8000), (7, 96000)])
def test_a_very_short_file_keeps_at_least_one_sample(tmp_path, samples, rate):
    soundfile.write(tmp_path / "clip.wav", noise(samples), rate)
    assert len(read_audio(tmp_path / "clip.wav", 16000).samples) >= 1


def broken_file(kind: str, folder: Path) -> Path:
    path = folder / "clip.wav"
    if kind == "missing":
        return path
    samples = noise(0 if kind == "empty" else 1013)
    if kind == "non-finite":
        samples[5] = np.inf
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    if kind == "half a header":
        path.write_bytes(path.read_bytes()[:20])
    if kind == "text":
        path.write_text("no audio at all")
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "got no file"),
        ("empty", "got 0 samples"),
        ("non-finite", "got 1 NaN or infinite"),
        ("truncated", "truncated"),
        ("half a header", "data chunk"),
        ("text", "cannot be read as audio"),
    ],
)
def test_a_broken_file_is_refused_with_its_path(tmp_path, kind, said):
    path = broken_file(kind, tmp_path)
    with pytest.raises(ValueError, match=said) as error:
        read_audio(path, 16000)
    assert str(path) in str(error.value)


def test_written_audio_reads_back(tmp_path):
    write_audio(tmp_path / "new" / "clip.wav", noise(1013), 16000)
    np.testing.assert_allclose(read_audio(tmp_path / "new" / "clip.wav", 16000).samples, noise(1013), atol=2**-15)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["clip.wav"]


def run_module(module: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", f"uniaudio_jax.codec.{module}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)


def test_files_pass_through_the_command_lines_with_their_length(tmp_path):
    write_audio(tmp_path / "a.wav", noise(3001), 16000)
    soundfile.write(tmp_path / "b.wav", np.stack([noise(4801)] * 2, 1), 48000)
    done = run_module("encode", f"{tmp_path}/a.wav", f"{tmp_path}/b.wav", "--out", f"{tmp_path}/codes")
    assert done.returncode == 0 and "1 converted" in done.stdout, done.stderr
    codes = [f"{tmp_path}/codes/{name}.npz" for name in "ab"]
    done = run_module("decode", *codes, "--out", f"{tmp_path}/wavs")
    assert done.returncode == 0, done.stderr
    assert len(read_audio(tmp_path / "wavs" / "a.wav", 16000).samples) == 3001
    assert len(read_audio(tmp_path / "wavs" / "b.wav", 16000).samples) == 1600


def test_decoding_beside_a_recording_leaves_it_as_it_was(tmp_path):
    write_audio(tmp_path / "a.wav", noise(1601), 16000)
    recording = (tmp_path / "a.wav").read_bytes()
    for _ in range(2):  # codes may be written again
        assert run_module("encode", f"{tmp_path}/a.wav", "--out", f"{tmp_path}").returncode == 0
    done = run_module("decode", f"{tmp_path}/a.npz", "--out", f"{tmp_path}")
    assert done.returncode == 2 and "a.wav: got a file that is there already" in done.stderr
    assert (tmp_path / "a.wav").read_bytes() == recording


def test_encoding_leaves_an_npz_of_other_arrays_as_it_was(tmp_path):
    write_audio(tmp_path / "a.wav", noise(1601), 16000)
    np.savez(tmp_path / "a.npz", features=noise(7))
    done = run_module("encode", f"{tmp_path}/a.wav", "--out", f"{tmp_path}")
    assert done.returncode == 2 and "a.npz: got a file that is there and holds no codes" in done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["features"], noise(7))


def test_of_many_files_a_broken_one_is_named_and_left_out(tmp_path):
    good = [audio_file(tmp_path / f"{name}.wav", samples=3001) for name in "ab"]
    bad = [with_noise(audio_file(tmp_path / "c.flac")), cut(audio_file(tmp_path / "d.ogg")), tmp_path / "none.wav"]
    words = ["encode", *map(str, [good[0], *bad, good[1]]), "--out", f"{tmp_path}/codes"]
    done = run_module(*words)
    assert done.returncode == 0 and "encoded 2 files" in done.stdout and "3 left out" in done.stdout, done.stderr
    assert sorted(path.name for path in (tmp_path / "codes").iterdir()) == ["a.npz", "b.npz"]
    assert np.load(tmp_path / "codes" / "a.npz")["samples"] == 3001
    for path in bad:
        assert f"left out: {path}: got " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("count", "said"), [(1, ""), (2, "encode: got 2 broken files; the last: ")])
def test_files_that_are_all_broken_are_an_error_and_no_traceback(count, said, tmp_path):
    paths = [with_noise(audio_file(tmp_path / f"{number}.flac")) for number in range(count)]
    done = run_module("encode", *map(str, paths), "--out", f"{tmp_path}/codes")
    assert done.returncode == 2 and not (tmp_path / "codes").exists()
    assert f"error: {said}{paths[-1]}: got " in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("left out: ") == count - 1


def test_a_users_mistake_is_one_line_and_exit_2(tmp_path):
    done = run_module("encode", f"{tmp_path}/none.wav", "--codec", f"{tmp_path}", "--out", f"{tmp_path}")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def spoken_clips() -> list[np.ndarray]:
    pytest.importorskip("espeakng_loader")
    texts = ("Bright umbrellas filled the market square.", "Nobody expected such a gentle answer from him.")
    return [speech_clip(voice, text) for voice, text in zip(("en-us+m3", "en-us+f2"), texts, strict=True)]


def test_more_codebooks_of_the_shipped_codec_come_closer_on_new_speech():
    codec, clips = load_codec("tiny_16k"), spoken_clips()
    codes = codec.encode_many(clips)
    distances = []
    for levels in (1, 2, 3, 8):
        wavs = codec.decode_many([item[:, :levels] for item in codes], [len(clip) for clip in clips])
        distances.append(np.mean([mel_distance(a, b, 16000) for a, b in zip(clips, wavs, strict=True)]))
    assert all(later < earlier for earlier, later in zip(distances, distances[1:], strict=False)), distances


def test_the_shipped_codecs_are_small():
    for folder in SHIPPED.iterdir():
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 10e6, folder.name


def test_a_shipped_codec_with_another_decoder_makes_the_codes_that_its_passport_names():
    clear, voices = load_codec("clear_16k"), load_codec("voices_16k")
    assert codes_of(clear.passport()) == codes_of(voices.passport())
    wav = np.random.default_rng(0).normal(size=9973).astype(np.float32)
    np.testing.assert_array_equal(clear.encode(wav), voices.encode(wav))
