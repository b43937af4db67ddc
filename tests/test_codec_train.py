"""Laws of codec training, on tones and noise."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from uniaudio_jax.codec import train as training
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.codec.losses import spectral_losses
from uniaudio_jax.config import CodecConfig, CodecTrainConfig, FrameRateConfig, QuantizerConfig, load_config

LAYOUT = FrameRateConfig(width=23, hidden=29, mel_bands=19, encoder_blocks=1, decoder_blocks=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Tones in noise: eleven to train on, two held out."""
    root = tmp_path_factory.mktemp("audio") / "speech_like"
    rng = np.random.default_rng(0)
    for i in range(13):
        time = np.arange(20011) / 16000
        wav = 0.3 * np.sin(2 * np.pi * (200 + 90 * i) * time) + 0.02 * rng.standard_normal(len(time))
        place = root / ("heldout" if i > 10 else "train")
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{i}.wav", wav, 16000)
    return root


def config_for(folder: Path) -> CodecTrainConfig:
    quantizer = QuantizerConfig(codebooks=3, entries=13, width=5)
    codec = CodecConfig(name="tones", layout=LAYOUT, quantizer=quantizer)
    return CodecTrainConfig(
        codec=codec,
        audio=(str(folder),),
        steps=30,
        warmup_steps=11,
        batch=3,
        segment_seconds=0.5,
        peak_learning_rate=3e-3,
        learning_rate_warmup_steps=5,
        save_every_steps=7,
        log_every_steps=1,
        revive_every_steps=5,
    )


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """(config, audio, state, losses, folder) of an uninterrupted run."""
    config, out = config_for(folder), tmp_path_factory.mktemp("run")
    audio, losses = training.Audio(config.audio, 16000), {}
    state = training.train(config, out, audio, lambda step, metrics: losses.update({step: metrics["loss"]}))
    return config, audio, state, losses, out


def test_training_lowers_the_loss_before_and_after_the_codebooks_start(finished):
    _, _, _, losses, _ = finished
    assert losses[11] < 0.8 * losses[1]
    assert losses[30] < losses[12]


def test_a_resumed_run_equals_one_that_was_not_stopped(finished, tmp_path):
    config, audio, state, _, _ = finished

    class Stopped(Exception):
        pass

    def stop(step, _):
        if step == 17:
            raise Stopped

    with pytest.raises(Stopped):
        training.train(config, tmp_path, audio, stop)
    resumed = training.train(config, tmp_path, audio)
    for wanted, got in zip(jax.tree.leaves(state), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(wanted, got)


def test_a_checkpoint_of_another_config_is_refused(finished):
    config, audio, _, _, out = finished
    with pytest.raises(ValueError, match="another config .*batch: checkpoint 3, this run 5"):
        training.train(replace(config, batch=5), out, audio)


def test_the_end_of_a_run_is_a_codec_and_a_table(finished, tmp_path):
    config, audio, state, _, _ = finished
    folder = training.finish(config, state, audio, tmp_path, {"licence": "none"})
    codec = load_codec(folder)
    assert codec.name == "tones" and codec.passport()["licence"] == "none"
    table = json.loads((tmp_path / "reconstruction.json").read_text())
    assert set(table["domains"]["speech_like"]) == {"1", "2", "3"}
    assert len(table["codebook_use"]) == 3 and "speech_like" in (tmp_path / "reconstruction.md").read_text()


def test_the_losses_of_silence_have_finite_gradients():
    silence = jnp.zeros((2, 4001))
    mel, magnitude = spectral_losses(silence, silence, 16000)
    assert float(mel) == 0 and float(magnitude) == 0
    gradient = jax.grad(lambda got: sum(spectral_losses(silence, got, 16000)))(silence)
    assert np.isfinite(gradient).all()


def test_a_batch_depends_on_its_step_only(finished):
    config, audio, *_ = finished
    np.testing.assert_array_equal(audio.batch(config, 0, 5), audio.batch(config, 0, 5))
    assert not np.array_equal(audio.batch(config, 0, 5), audio.batch(config, 0, 6))
    assert audio.batch(config, 0, 5).shape == (3, 8000)


def test_a_manifest_names_the_splits(tmp_path):
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", np.full(1601, 0.1), 16000)
    lines = [{"audio": "a.wav", "split": "train"}, {"audio": "b.wav", "noisy_audio": "c.wav", "split": "heldout"}]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    audio = training.Audio((str(tmp_path),), 16000)
    assert len(audio.train) == 1 and len(audio.heldout[tmp_path.name]) == 2


def test_a_folder_without_audio_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no manifest.jsonl and no wav"):
        training.Audio((str(tmp_path),), 16000)


def test_the_config_of_the_shipped_codec_loads():
    config = load_config(Path(__file__).parents[1] / "configs" / "codec_tiny_16k.py")
    assert isinstance(config, CodecTrainConfig) and config.codec.name == "tiny_16k"
