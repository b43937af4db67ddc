"""Laws of codec training, on tones and noise."""

import functools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from data_pipelines.codec_audio import HELDOUT_CLIPS, domain_clips
from tests.audio_damage import audio_file, cut, with_noise
from tests.small_run import REPO, environment, finish, free_address, python
from uniaudio_jax.codec import train as training
from uniaudio_jax.codec import training as codec_training
from uniaudio_jax.codec.audio_data import Audio
from uniaudio_jax.codec.balancer import balanced_gradient
from uniaudio_jax.codec.codec import load_codec, save_codec
from uniaudio_jax.codec.config import AdversarialConfig, CodecConfig, CodecTrainConfig, QuantizerConfig
from uniaudio_jax.codec.layouts.frame_rate import FrameRateConfig
from uniaudio_jax.codec.layouts.seanet import SeanetConfig
from uniaudio_jax.codec.losses import spectral_losses
from uniaudio_jax.codec.passports import codes_of, same_codes
from uniaudio_jax.codec.training import (
    check_trainable,
    codebook_report,
    initial_state,
    place_wav,
    random_levels,
    train_step,
)
from uniaudio_jax.config import MeshConfig, OptimConfig
from uniaudio_jax.distributed import ProcessInfo
from uniaudio_jax.locks import hold
from uniaudio_jax.metrics import whisper
from uniaudio_jax.metrics.registry import METRICS
from uniaudio_jax.reconstruction import HEARD, reconstruction_table
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.sinks.jsonl import read_metrics

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
        optim=OptimConfig(
            schedule="warmup_cosine", peak_learning_rate=3e-3, warmup_steps=5, beta2=0.99, decayed="all", clip_norm=1.0
        ),
        save_every_steps=7,
        log_every_steps=1,
        dead_code_every_steps=5,
        adversarial=AdversarialConfig(start=19, channels=5),
    )


class StopAfter:
    """Stops a training after `steps` steps."""

    asked_by = "SIGTERM"

    def __init__(self, steps: int = 10**9):
        self.steps = steps

    def before(self, step: int) -> bool:
        return step >= self.steps


def audio_of(*places: str | Path) -> Audio:
    return Audio(domain_clips(map(str, places), 16000), 16000)


def train(config: CodecTrainConfig, out: Path, audio: Audio, stop: Any = None):
    trainer = training.CodecTrainer(config, out, audio, ProcessInfo(0, 1, "single"), jax.devices()[:1])
    return trainer.run(stop or StopAfter())


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """(config, audio, state, metrics by step, folder) of an uninterrupted run."""
    config, out = config_for(folder), tmp_path_factory.mktemp("run")
    audio = audio_of(*config.audio)
    state = train(config, out, audio)
    return config, audio, state, {line["step"]: line for line in read_metrics(out / "metrics.jsonl")}, out


def test_training_lowers_the_loss_before_and_after_the_codebooks_start(finished):
    _, _, _, metrics, _ = finished
    assert metrics[11]["loss"] < 0.8 * metrics[1]["loss"]
    assert metrics[19]["loss"] < metrics[12]["loss"]


def test_discriminators_join_where_the_config_says_and_learn(finished):
    _, _, state, metrics, _ = finished
    assert "discriminators" not in metrics[19] and metrics[30]["discriminators"] < metrics[20]["discriminators"]
    assert all(np.isfinite(metrics[30][name]) for name in ("adversarial", "feature", "loss"))
    assert all(float(norm) > 0 for norm in state["norms"].values())


def test_codebook_use_is_reported_by_level(finished):
    _, _, state, metrics, _ = finished
    report = codebook_report(state)
    assert all(1 <= report[f"perplexity/level_{level}"] <= 13 for level in (1, 2, 3))
    assert all(0 < report[f"in_use/level_{level}"] <= 1 for level in (1, 2, 3))
    assert metrics[30]["perplexity/level_2"] == report["perplexity/level_2"]
    assert "perplexity/level_1" not in metrics[11]


def test_pictures_and_sound_are_on_the_board(finished):
    *_, out = finished
    board = b"".join(path.read_bytes() for path in (out / "tensorboard").iterdir())
    assert list(finished[3]) == list(range(1, 31))
    assert b"speech_like/3_codebooks" in board and b"speech_like/original_above_3_codebooks" in board


@pytest.mark.slow
def test_eight_devices_take_the_step_of_one(folder):
    config = replace(config_for(folder), batch=8)
    wav, key = audio_of(*config.audio).batch(config, 0, 0), jax.random.key(5)
    ends = []
    for mesh in (
        make_mesh(MeshConfig(data=1), jax.devices()[:1]),
        make_mesh(MeshConfig(data=2, fsdp=4), jax.devices()[:8]),
    ):
        state = initial_state(config)
        books = jax.random.normal(jax.random.key(2), state["statistics"]["codebooks"].shape)
        state["statistics"] = {"codebooks": books, "sums": books + 0, "counts": jnp.ones(books.shape[:2])}
        state = jax.device_put(state, training.state_shardings(state, mesh))
        ends.append(
            train_step(
                state,
                place_wav(wav, mesh),
                key,
                jnp.asarray(False),
                config=config,
                mesh=mesh,
                quantised=True,
                adversarial=True,
            )
        )
    (one, one_metrics), (many, many_metrics) = jax.device_get(ends)
    for name in one_metrics:
        np.testing.assert_allclose(many_metrics[name], one_metrics[name], rtol=1e-5, atol=1e-6, err_msg=name)
    for wanted, got in zip(jax.tree.leaves(one["statistics"]), jax.tree.leaves(many["statistics"]), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_training_can_start_from_another_codec(finished, tmp_path):
    config, _, state, *_ = finished
    save_codec(tmp_path, config.codec, training.codec_params(state), precision="float32")
    start = initial_state(replace(config, start_from=str(tmp_path), warmup_steps=0))
    for wanted, got in zip(jax.tree.leaves(state["params"]), jax.tree.leaves(start["params"]), strict=True):
        np.testing.assert_array_equal(wanted, got)
    np.testing.assert_array_equal(start["statistics"]["codebooks"], state["statistics"]["codebooks"])
    other = replace(config.codec, quantizer=QuantizerConfig(codebooks=2, entries=13, width=5))
    with pytest.raises(ValueError, match="start_from=.*codebooks=3.*wanted.*codebooks=2"):
        initial_state(replace(config, codec=other, start_from=str(tmp_path), warmup_steps=0))
    with pytest.raises(ValueError, match="wanted 0, as start_from="):
        replace(config, start_from=str(tmp_path))


def test_a_training_of_the_decoder_alone_leaves_the_codes_as_they_are(finished, tmp_path):
    config, audio, state, *_ = finished
    save_codec(tmp_path / "start", config.codec, training.codec_params(state))
    tuned = replace(
        config,
        codec=replace(config.codec, name="clear"),
        start_from=str(tmp_path / "start"),
        warmup_steps=0,
        decoder_only=True,
        steps=7,
    )
    options = training.CodecTrainOptions(config=tmp_path, out=tmp_path / "run", train=tuned)
    params = training.codec_params(train(tuned, options.out, audio))
    training.finish(tuned, params, audio, options.out, training.passport_facts(options, audio))
    assert not any(key.startswith("perplexity") for line in read_metrics(options.out / "metrics.jsonl") for key in line)
    start, clear = load_codec(tmp_path / "start"), load_codec(options.out / "codec")
    wav = np.random.default_rng(0).normal(size=(2, 9973)).astype(np.float32)
    codes = start.encode(wav)
    np.testing.assert_array_equal(clear.encode(wav), codes)
    assert np.abs(clear.decode(codes) - start.decode(codes)).max() > 1e-4
    assert same_codes(clear.passport(), start.passport()) and codes_of(clear.passport())["codec"] == "tones"
    further = replace(tuned, start_from=str(options.out / "codec"))
    facts = training.passport_facts(replace(options, train=further), audio)
    assert facts["codes_of"] == codes_of(start.passport())
    assert "codes_of" not in training.passport_facts(replace(options, train=replace(tuned, decoder_only=False)), audio)
    with pytest.raises(ValueError, match="decoder_only: got True, wanted start_from"):
        replace(config, decoder_only=True)


def test_a_stereo_layout_is_not_trained(finished):
    config, *_ = finished
    stereo = replace(config.codec, layout=SeanetConfig(channels=2, norm="time_group_norm"))
    with pytest.raises(ValueError, match="several channels"):
        check_trainable(replace(config, codec=stereo))


def test_the_balancer_gives_each_loss_its_share_whatever_its_scale():
    output = jax.random.normal(jax.random.key(0), (3, 7))
    one, other = jax.random.normal(jax.random.key(1), (2, 3, 7))

    def gradient(scale: float):
        losses = {"a": lambda x: jnp.sum(x * one), "b": lambda x: scale * jnp.sum(x * other)}
        return balanced_gradient(losses, {"a": 3.0, "b": 1.0}, output, {"a": jnp.zeros(()), "b": jnp.zeros(())}, 0.9)

    got, values, norms = gradient(1.0)
    wanted = 0.75 * one / jnp.linalg.norm(one) + 0.25 * other / jnp.linalg.norm(other)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient(1e4)[0], wanted, rtol=1e-5)
    np.testing.assert_allclose(norms["a"], jnp.linalg.norm(one), rtol=1e-5)
    np.testing.assert_allclose(values["a"], jnp.sum(output * one), rtol=1e-4)


def test_a_resumed_run_equals_one_that_was_not_stopped(finished, tmp_path):
    config, audio, state, _, _ = finished

    train(config, tmp_path, audio, StopAfter(17))
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 18))
    resumed = train(config, tmp_path, audio)
    for wanted, leaf in zip(jax.tree.leaves(state), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(wanted, leaf)


def killed() -> None:
    raise KeyboardInterrupt


def test_a_run_that_was_killed_logs_each_step_once(finished, tmp_path, monkeypatch):
    config, audio, _, metrics, _ = finished

    trainer = training.CodecTrainer(config, tmp_path, audio, ProcessInfo(0, 1, "single"), jax.devices()[:1])
    save = trainer._save
    monkeypatch.setattr(trainer, "_save", lambda step: save(step) if step < 21 else killed())
    with pytest.raises(KeyboardInterrupt):
        trainer.run(StopAfter())
    trainer.log.close()
    trainer.checkpoints.close()
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] == 21
    train(config, tmp_path, audio)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert lines[29]["mel"] == metrics[30]["mel"]


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(finished):
    config, audio, state, *_ = finished
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    wav = audio.batch(config, 0, 0)
    wav[1, 5] = np.nan
    before = jax.device_get(state)
    after, metrics = train_step(
        jax.tree.map(jnp.array, state),
        place_wav(wav, mesh),
        jax.random.key(0),
        jnp.asarray(True),
        config=config,
        mesh=mesh,
        quantised=True,
        adversarial=True,
    )
    assert int(after["skipped"]) == int(before["skipped"]) + 1 and not np.isfinite(metrics["gradient_norm"])
    for name in before.keys() - {"skipped"}:
        for wanted, leaf in zip(jax.tree.leaves(before[name]), jax.tree.leaves(after[name]), strict=True):
            np.testing.assert_array_equal(wanted, leaf)


def test_a_training_whose_updates_are_all_skipped_stops_without_saving(finished, tmp_path, monkeypatch):
    config, audio, *_ = finished
    monkeypatch.setattr(audio, "batch", lambda *_: np.full((3, 8000), np.nan, np.float32))
    with pytest.raises(ValueError, match="step 9: the last 9 updates were skipped.*loss nan.*most_skipped_updates"):
        train(replace(config, most_skipped_updates=9), tmp_path, audio)
    assert not list((tmp_path / "checkpoints").iterdir())
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 10))


def test_a_checkpoint_of_another_config_is_refused(finished):
    config, audio, _, _, out = finished
    with pytest.raises(ValueError, match="another config .*batch: checkpoint 3, this run 5"):
        train(replace(config, batch=5), out, audio)


def test_the_end_of_a_run_is_a_codec_and_a_table(finished, tmp_path):
    config, audio, state, _, _ = finished
    folder = training.finish(config, training.codec_params(state), audio, tmp_path, {"licence": "none"})
    codec = load_codec(folder)
    assert codec.name == "tones" and codec.passport()["licence"] == "none"
    table = json.loads((tmp_path / "reconstruction.json").read_text())
    assert not (tmp_path / "curve.png").exists()  # there is no metrics.jsonl in this folder
    assert training.draw_curve(finished[4]) == finished[4] / "curve.png"
    assert (finished[4] / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert set(table["domains"]["speech_like"]) == {"1", "2", "3"}
    assert set(table["domains"]["speech_like"]["3"]) == {"mel_distance", "si_sdr_db", "stoi", "pesq"}
    assert len(table["codebook_use"]) == 3 and "speech_like" in (tmp_path / "reconstruction.md").read_text()


def test_a_reconstruction_table_has_the_known_values_of_a_stand_in_codec(monkeypatch):
    """Two levels give the clip back, one level half its amplitude; the words heard depend on the amplitude."""
    rng = np.random.default_rng(0)
    clips = [rng.normal(0, 0.1, samples).astype(np.float32) for samples in (8009, 12007)]
    levels = np.tile(np.arange(7)[:, None], (1, 2))
    codec = SimpleNamespace(
        codebooks=2,
        sample_rate_hz=16000,
        config=SimpleNamespace(quantizer=QuantizerConfig(codebooks=2, entries=13, width=5)),
        encode_many=lambda wavs: [levels] * len(wavs),
        decode_many=lambda codes, samples: [clip * codes[0].shape[1] / 2 for clip in clips],
    )
    audio = SimpleNamespace(heldout={"speech": clips}, texts={"speech": ["one two", "three four"]})
    monkeypatch.setitem(METRICS, "whisper", replace(METRICS["whisper"], packages=(), model=lambda judges: None))
    monkeypatch.setattr(whisper, "transcript", lambda wav, rate_hz, model: "one two" if np.std(wav) < 0.07 else "two")
    table = reconstruction_table(cast(Any, codec), cast(Any, audio))
    rows = table["domains"]["speech"]
    assert set(rows) == {"original", "1", "2"}
    # "two" for "one two" and "three four" is 1 + 2 edits in 4 words; "one two" is 0 + 2.
    assert rows["original"][HEARD] == 3 / 4 and rows["2"][HEARD] == 3 / 4 and rows["1"][HEARD] == 2 / 4
    assert rows["2"]["mel_distance"] == 0 and rows["2"]["si_sdr_db"] == rows["1"]["si_sdr_db"] == 100
    assert rows["1"]["mel_distance"] == pytest.approx(np.log(2), abs=0.02)
    assert table["frames"] == 14 and table["codebook_use"] == [7 / 13, 7 / 13]


def test_the_losses_of_silence_have_finite_gradients():
    silence = jnp.zeros((2, 4001))
    mel, magnitude = spectral_losses(silence, silence, 16000)
    assert float(mel) == 0 and float(magnitude) == 0
    gradient = jax.jit(jax.grad(lambda got: sum(spectral_losses(silence, got, 16000))))(silence)
    assert np.isfinite(gradient).all()


def test_a_batch_depends_on_its_step_only(finished):
    config, audio, *_ = finished
    np.testing.assert_array_equal(audio.batch(config, 0, 5), audio.batch(config, 0, 5))
    assert not np.array_equal(audio.batch(config, 0, 5), audio.batch(config, 0, 6))
    assert audio.batch(config, 0, 5).shape == (3, 8000)


def test_half_of_the_rows_train_at_the_main_codebooks_and_the_others_at_any_number(folder, monkeypatch):
    config = replace(config_for(folder), main_codebooks=2)
    levels = np.asarray(random_levels(config, jax.random.key(0), 3001))
    shares = np.bincount(levels, minlength=4)[1:] / 3001
    np.testing.assert_allclose(shares, [1 / 6, 2 / 3, 1 / 6], atol=0.03)
    rows = []
    monkeypatch.setattr(codec_training, "random_levels", lambda *given: rows.append(given[2]) or random_levels(*given))
    step = functools.partial(
        train_step, config=config, mesh=make_mesh(MeshConfig(), jax.devices()[:1]), quantised=True, adversarial=False
    )
    jax.eval_shape(step, initial_state(config), jnp.zeros((3, 8000)), jax.random.key(0), jnp.asarray(False))
    assert rows == [3]


def lines(path: Path, *rows: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def test_a_manifest_names_the_splits_and_the_words(tmp_path):
    for name in "abcde":
        audio_file(tmp_path / f"{name}.wav", samples=1601)
    lines(
        tmp_path / "manifest.jsonl",
        {"id": "a", "audio": "a.wav", "split": "train"},
        {"id": "b", "audio": "b.wav", "noisy_audio": "c.wav", "split": "heldout", "text": "One.", "language": "en-gb"},
        {"id": "c", "audio": "c.wav", "split": "heldout", "text": "Two."},
        {"id": "d", "audio": "d.wav", "split": "heldout", "text": "Drei.", "language": "de"},
        {"id": "e", "audio": "e.wav", "split": "heldout", "text": "A dog barks.", "labels": ["dog"]},
    )
    audio = audio_of(tmp_path)
    assert len(audio.train) == 1 and audio.domains == [tmp_path.name]
    assert audio.texts[tmp_path.name] == ["One.", None, "Two.", None, None]


def test_a_manifest_is_read_as_the_builder_reads_it(tmp_path):
    """A byte order mark, blank lines and a line separator within a text; a line without a split is refused."""
    audio_file(tmp_path / "a.wav", samples=1601)
    row = {"id": "a", "audio": "a.wav", "split": "train", "text": "One.\u2028Two."}
    text = f"\ufeff{json.dumps(row, ensure_ascii=False)}\n\n  \n"
    (tmp_path / "manifest.jsonl").write_text(text, encoding="utf-8")
    assert len(audio_of(tmp_path).train) == 1
    del row["split"]
    lines(tmp_path / "manifest.jsonl", row)
    with pytest.raises(ValueError, match="manifest.jsonl:1: got the keys id, audio, text, wanted also split"):
        audio_of(tmp_path)


@pytest.mark.parametrize("heldout", ["test", "dev-clean", "heldout"])
def test_a_plain_folder_is_read_as_the_builder_reads_it(heldout, tmp_path):
    for name in ("train/a.WAV", "train/b.flac", "train/._c.wav", ".trash/d.wav", f"{heldout}/e.wav"):
        audio_file(tmp_path / "folder" / name, samples=1601)
    (tmp_path / "folder" / heldout / "e.lab").write_text("Three words here.")
    audio = audio_of(tmp_path / "folder")
    assert len(audio.train) == 2 and len(audio.heldout["folder"]) == 1
    assert audio.texts["folder"] == ["Three words here."]


def test_each_domain_is_a_corpus_of_any_format_by_the_name_of_its_place(tmp_path):
    for name in "abc":
        audio_file(tmp_path / f"{name}.wav", samples=1601)
    rows = [{"audio_filepath": f"{name}.wav", "duration": 0.05, "text": "One."} for name in "abc"]
    lines(tmp_path / "nemo.json", *rows)
    (tmp_path / "kaldi").mkdir()
    (tmp_path / "kaldi" / "wav.scp").write_text("".join(f"{name} {tmp_path}/{name}.wav\n" for name in "abc"))
    audio = audio_of(tmp_path / "nemo.json", f"kaldi:{tmp_path}/kaldi")
    assert audio.domains == ["nemo", "kaldi"] and list(map(len, audio.heldout.values())) == [1, 1]
    assert sorted({len(clip) for clip in audio.train}) == [800, 1601]


def test_of_many_clips_a_broken_one_is_named_counted_and_left_out(tmp_path, capsys):
    for name in "abcdefg":
        audio_file(tmp_path / "train" / f"{name}.flac", samples=1601)
    audio_file(tmp_path / "heldout" / "h.flac", samples=1601)
    bad = [with_noise(audio_file(tmp_path / "train" / "c.flac")), cut(audio_file(tmp_path / "heldout" / "i.ogg"))]
    audio = audio_of(tmp_path)
    assert len(audio.train) == 6 and len(audio.heldout[tmp_path.name]) == 1 and audio.refused == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out: ")]
    assert len(told) == 2 and all(any(str(path) in line for line in told) for path in bad)
    for path in tmp_path.rglob("?.flac"):
        path.write_text("no audio")
    with pytest.raises(ValueError, match=r"got no training clip \(9 left out\)"):
        audio_of(tmp_path).check_trainable()


def test_no_more_held_out_clips_are_read_than_a_domain_is_judged_by(tmp_path):
    for number in range(HELDOUT_CLIPS + 3):
        audio_file(tmp_path / "heldout" / f"{number:02d}.wav", samples=101 + number)
    assert [len(clip) for clip in audio_of(tmp_path).heldout[tmp_path.name]] == list(range(101, 101 + HELDOUT_CLIPS))


def test_a_folder_without_audio_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got no manifest.jsonl and no audio"):
        audio_of(tmp_path)


CONFIG_FILE = """
from pathlib import Path
from typing import Any
from tests.test_codec_train import config_for
from dataclasses import replace
def get_config():
    return replace(config_for(Path({folder!r})), batch=4, steps=14, adversarial=None)
"""


def test_a_signal_while_audio_is_listed_ends_in_order(folder, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG_FILE.format(folder=str(folder)))
    code = (
        "import os, signal; from uniaudio_jax.codec import train; Audio = train.Audio\n"
        "train.Audio = lambda *given: [os.kill(os.getpid(), signal.SIGINT), Audio(*given)][1]; train.main()"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "config.py"), "--out", str(tmp_path / "run")]
    done = subprocess.run(words, cwd=REPO, env=environment(), capture_output=True, text=True)
    assert done.returncode == 130 and "Traceback" not in done.stderr, done.stderr
    assert "stopped by SIGINT before the first step" in done.stdout
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_signal_while_it_trains_saves_and_ends_in_order(folder, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG_FILE.format(folder=str(folder)).replace("steps=14", "steps=7000"))
    process = python("uniaudio_jax.codec.train", tmp_path / "config.py", "--out", tmp_path / "run")
    while not read_metrics(tmp_path / "run" / "metrics.jsonl"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = finish(process)
    assert "stopped by SIGINT and saved" in out and "Traceback" not in err
    step = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["step"]
    assert (tmp_path / "run" / "checkpoints" / str(step)).is_dir()


def test_a_second_training_in_a_folder_is_refused_before_it_writes(folder, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG_FILE.format(folder=str(folder)))
    with hold(tmp_path / "run", ""):
        words = ["uniaudio_jax.codec.train", tmp_path / "config.py", "--out", tmp_path / "run"]
        _, err = finish(python(*words), code=2)
        assert f"run: in use by process {os.getpid()} on" in err
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


@pytest.mark.slow
def test_two_processes_train_the_codec_of_one(folder, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG_FILE.format(folder=str(folder)))
    words = ["uniaudio_jax.codec.train", tmp_path / "config.py", "--out"]
    flags = ["--distributed.coordinator", free_address(), "--distributed.processes", 2]
    pair = [python(*words, tmp_path / "pair", *flags, "--distributed.process", n, "--mesh.fsdp", 2) for n in (0, 1)]
    outs = [finish(process)[0] for process in pair]
    assert "codec: " in outs[0] and "codec: " not in outs[1]
    finish(python(*words, tmp_path / "alone"))
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("pair", "alone")]
    pairs = [tuple(json.loads(line)["loss"] for line in lines) for lines in zip(*logs, strict=True)]
    # Once the codebooks have started, a code near a tie may go either way, and the two runs part slowly.
    for step, (one, other) in enumerate(pairs, start=1):
        assert one == pytest.approx(other, rel=1e-5 if step <= 11 else 1e-2)
    assert len(pairs) == 14
