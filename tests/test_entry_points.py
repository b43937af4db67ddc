"""What a user types: generate, evaluate and the codec's files, on a small run, with their errors."""

import json
import shutil
from dataclasses import fields

import numpy as np
import pytest
import soundfile

from data_pipelines.heldout import HeldOut
from data_pipelines.streams import fields_of
from data_pipelines.tokenizers.labels import LABELS
from tests.audio_damage import audio_file, with_noise
from tests.small_run import REPO, finish, python, write_run
from uniaudio_jax import load_run
from uniaudio_jax.checkpoint import CheckpointReader, Checkpoints, one_device
from uniaudio_jax.conditions import Conditions
from uniaudio_jax.evaluation.examples import judged_examples
from uniaudio_jax.evaluation.rows import GENERATED, judge, rows_of
from uniaudio_jax.metrics.judges import Judges
from uniaudio_jax.metrics.registry import make_metrics
from uniaudio_jax.tasks import TASKS, get_task


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("entry")
    config = write_run(folder, tasks=("tts", "enhancement", "audio_tagging"), steps=3)
    ids = ("--model.appended", "class_event", 13)
    tasks = ("--data.tasks", "tts", 1, "enhancement", 1, "audio_tagging", 1)
    finish(python("uniaudio_jax.train", config, "--out", folder / "run", *ids, *tasks))
    return folder / "run"


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    path = tmp_path_factory.mktemp("voice") / "stereo.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (24000, 2)), 48000)
    return path


def test_held_out_examples_become_wav_files(run, tmp_path):
    words = ["--run", run, "--task", "enhancement", "--split", "heldout", "--count", 2, "--out", tmp_path]
    finish(python("uniaudio_jax.generate", *words))
    rows = json.loads((tmp_path / "samples.json").read_text())
    assert len(rows) == 2 and len({row["id"] for row in rows}) == 2
    for row in rows:
        for name in ("generated", "reference", "noisy_audio"):
            samples, rate = soundfile.read(tmp_path / row[name])
            assert rate == 16000 and np.isfinite(samples).all()
            assert len(samples) == round(row[f"{name}_seconds"] * 16000)


def test_what_a_task_of_ids_makes_is_written_as_text(run, voice, tmp_path):
    words = ["--run", run, "--task", "audio_tagging", "--out", tmp_path]
    finish(python("uniaudio_jax.generate", *words, "--split", "heldout", "--count", 2))
    finish(python("uniaudio_jax.generate", *words, "--audio", voice, "--seconds", 0.1))
    rows = json.loads((tmp_path / "samples.json").read_text())
    assert len(rows) == 3 and all(isinstance(row["generated"], str) for row in rows)
    for row in rows:
        assert (tmp_path / row["generated_file"]).read_text().strip() == row["generated"]
        assert set(filter(None, row["generated"].split(", "))) <= set(LABELS)


def test_a_stereo_48_khz_file_is_converted_and_said(run, voice, tmp_path):
    words = ["--run", run, "--task", "enhancement", "--noisy-audio", voice, "--seconds", 0.4, "--out", tmp_path]
    out, _ = finish(python("uniaudio_jax.generate", *words))
    assert "converted from" in out and "stereo" in out and "48000" in out
    samples, rate = soundfile.read(tmp_path / "enhancement_000.wav")
    assert rate == 16000 and 320 <= len(samples) <= 6400


def test_streamed_audio_is_the_audio_and_its_file_grows(run, voice, tmp_path):
    words = [
        "--run",
        run,
        "--task",
        "enhancement",
        "--noisy-audio",
        voice,
        "--seconds",
        2,
        "--out",
        tmp_path,
        "--sampling.min-frames",
        100,
    ]
    finish(python("uniaudio_jax.generate", *words))
    out, _ = finish(python("uniaudio_jax.generate", *words, "--stream"))
    assert out.count("s of audio after") >= 2
    whole, streamed = (soundfile.read(tmp_path / f"enhancement_00{n}.wav")[0] for n in (0, 1))
    assert len(whole) == 32000
    np.testing.assert_allclose(streamed, whole, rtol=0, atol=2**-14)


def test_the_python_api_generates_what_it_says(run):
    loaded = load_run(run)
    noisy = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    wav = loaded.generate("enhancement", noisy_audio=noisy, seconds=0.3)
    assert wav.ndim == 1 and wav.dtype == np.float32 and 320 <= len(wav) <= 4800
    codes = loaded.codec.encode(noisy)
    assert loaded.codec.decode(codes, samples=8000).shape == (8000,)
    tokens = np.full((2, 5, 3), 7)
    assert loaded.logits(tokens).shape == (2, 5, 3, 4225)
    heard = loaded.generate("audio_tagging", audio=noisy, seconds=0.1)
    assert isinstance(heard, str) and set(heard.split(", ")) <= set(LABELS)
    with pytest.raises(ValueError, match=r"wanted \[B, T, 3\]"):
        loaded.logits(tokens[..., :2])
    with pytest.raises(ValueError, match="ids 5000"):
        loaded.logits(np.full((1, 2, 3), 5000))


def test_the_options_of_generate_are_the_conditions_of_the_task_table():
    sources = {name for task in TASKS.values() for stream in task.conditions for name in fields_of(stream)}
    assert {field.name for field in fields(Conditions)} == sources | {"language", "words_per_minute"}


def test_a_result_of_no_frames_is_an_empty_waveform_and_judged_as_silence(run, monkeypatch):
    loaded, task = load_run(run), get_task("enhancement")
    no_frames = np.zeros((0, 3), np.int32)
    monkeypatch.setattr(loaded, "results", lambda task, prompts, *_: ((p.number, no_frames) for p in prompts))
    assert loaded.generate("enhancement", noisy_audio=np.ones(701, np.float32)).shape == (0,)
    heldout = HeldOut(loaded.config, "enhancement", loaded.codec.passport())
    judged = judged_examples(loaded, task, heldout, heldout.examples(2), 2)
    rows = rows_of(loaded, task, judged, dict.fromkeys(range(2), no_frames))
    values = judge(rows, make_metrics(["si_sdr_db", "length_ratio"], Judges()))[0][GENERATED]
    assert values["si_sdr_db"]["value"] == -100 and values["length_ratio"]["value"] == 0


def test_an_evaluation_holds_losses_baselines_and_metrics(run):
    finish(python("uniaudio_jax.evaluate", "--run", run, "--count", 2))
    tasks = json.loads((run / "evaluation.json").read_text(), parse_constant=pytest.fail)["tasks"]
    assert set(tasks) == {"tts", "enhancement", "audio_tagging"}
    for entry in tasks.values():
        assert entry["heldout_examples"] == 7 and len(entry["samples"]) == 2
        assert entry["sampling"]["temperature"] == entry["sampling"]["guidance"] == 1
        for row, values in entry["metrics"].items():
            for name, found in values.items():
                total, weight = np.sum([sample["scores"][row][name] for sample in entry["samples"]], axis=0)
                assert found["value"] == (pytest.approx(total / weight) if weight else None)
    tags = tasks.pop("audio_tagging")
    assert len(tags["loss_per_level"]) == len(tags["unigram_loss_per_level"]) == 1
    assert abs(tags["unigram_loss"] - np.log(13)) < 0.2 and tags["untrained_loss"] > np.log(4212 - 2048)
    assert set(tags["metrics"]) == {"generated", "another reference"}
    assert set(tags["metrics"]["generated"]) == {"accuracy", "token_error_rate"}
    for entry in tasks.values():
        assert len(entry["loss_per_level"]) == len(entry["accuracy_per_level"]) == 3
        assert abs(np.mean(entry["loss_per_level"]) - entry["loss"]) < 1e-4
        # Fresh logits have the variance 1536 · 0.02² at any width: about .3 nats above uniform ones.
        uniform = np.mean([np.log(4212 - 2048), np.log(1024), np.log(1024)])
        assert 0 < entry["untrained_loss"] - uniform < 0.5
        assert abs(entry["unigram_loss"] - np.log(1024)) < 0.2
    names = {"length_ratio", "duration_error_seconds", "aligned_mel_distance", "mel_cepstral_distortion_db"}
    assert all(names <= set(values) for values in tasks["tts"]["metrics"].values())
    rows = {"codec resynthesis", "generated", "another reference"}
    assert set(tasks["tts"]["metrics"]) == rows and set(tasks["enhancement"]["metrics"]) == rows | {"input"}
    assert all({"stoi", "mel_distance"} <= set(values) for values in tasks["enhancement"]["metrics"].values())
    assert "| tts |" in (run / "evaluation.md").read_text()
    assert (run / "evaluation.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "tts", "--text", "Hello."], "missing ['speaker_prompt']"),
        (["--task", "ttts"], "did you mean 'tts'"),
        (["--task", "audio_tagging", "--audio", "voice.wav", "--stream"], "makes text"),
        (["--task", "enhancement", "--noisy-audio", "nothing.wav"], "nothing.wav"),
        (["--task", "enhancement", "--split", "heldout", "--text", "x"], "give one or the other"),
        (["--task", "enhancement", "--split", "heldout", "--count", "0"], "--count"),
        (["--task", "enhancement", "--nosy-audio", "x.wav"], "--noisy-audio"),
    ],
)
def test_a_users_mistake_gets_one_clear_error(words, message, run, tmp_path):
    _, err = finish(python("uniaudio_jax.generate", "--run", run, *words, "--out", tmp_path), code=2)
    assert message in err and "Traceback" not in err


def test_a_damaged_file_as_a_condition_is_one_clear_error(run, tmp_path):
    path = with_noise(audio_file(tmp_path / "noise.flac"))
    words = ["--run", run, "--task", "enhancement", "--noisy-audio", path, "--out", tmp_path]
    _, err = finish(python("uniaudio_jax.generate", *words), code=2)
    assert f"error: {path}: got " in err and "lost sync" in err and "Traceback" not in err


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    _, err = finish(python("uniaudio_jax.evaluate", "--run", tmp_path), code=2)
    assert "no folder checkpoints/" in err


def test_a_prompt_longer_than_the_model_is_refused(run, voice, tmp_path):
    long = tmp_path / "long.wav"
    soundfile.write(long, np.random.default_rng(0).normal(0, 0.1, 16000 * 4), 16000)
    words = ["--run", run, "--task", "enhancement", "--noisy-audio", long, "--out", tmp_path]
    _, err = finish(python("uniaudio_jax.generate", *words), code=2)
    assert "do not fit the model's 151 positions" in err


def test_the_corpora_of_a_run_may_have_moved(run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run.parent / "tokens", moved)
    loaded = load_run(run, moved)
    assert loaded.config.data.root == str(moved)
    (examples,) = HeldOut(loaded.config, "enhancement", loaded.codec.passport()).examples(1)
    assert examples.corpus == "random"
    words = ["--run", run, "--task", "enhancement", "--split", "heldout", "--out", tmp_path / "out"]
    _, err = finish(python("uniaudio_jax.generate", *words, "--data-root", "gone/tokens"), code=2)
    assert f"the folder gone/tokens does not exist (relative to {REPO}); go to the directory of the training, or" in err


def test_a_file_that_a_checkpoint_lacks_is_told_without_specifications_of_arrays(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, {"params": {"bias": np.random.default_rng(0).normal(size=1009)}}, {})
    checkpoints.close()
    shutil.rmtree(tmp_path / "checkpoints/3/params/ocdbt.process_0")
    shapes = {"params": one_device({"bias": np.random.default_rng(0).normal(size=1009)})}
    told = r"/3: this checkpoint cannot be read \(Encountered error .*index: \(slice\(0, 1009, 1\),\)\); copy it again"
    with pytest.raises(ValueError, match=told):
        CheckpointReader(tmp_path).restore(shapes)
