"""The quickstart corpus and the splits."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines import espeak
from data_pipelines.corpora import codec_training, folder, quickstart, split_of
from data_pipelines.corpora.codec_training import Piper, TrainingAudioOptions
from data_pipelines.corpora.quickstart import NOISES, VOICES, CorpusOptions, noise_clip, speech_clip
from data_pipelines.corpora.sentences import sentence, sentence_split
from data_pipelines.corpora.tunes import compose
from data_pipelines.espeak import speak
from uniaudio_jax.codec.train import Audio
from uniaudio_jax.config import CodecTrainConfig, load_config

TEXT = "Judith painted the yellow boat."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("corpus") / "one minute"
    quickstart.main(CorpusOptions(out=out, minutes=1))
    return out


@pytest.fixture(scope="module")
def clips(corpus) -> dict:
    return {task: list(folder.clips(corpus / task)) for task in quickstart.TASKS}


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_in_another_process(corpus, tmp_path):
    out = tmp_path / "again"
    command = [sys.executable, "-m", "data_pipelines.corpora.quickstart", "--out", str(out), "--minutes", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = r"quickstart corpus: .*: tts 0\.\d min, enhancement 0\.\d min, text_to_music 0\.\d min, 4 voices, \d+ s\n"
    assert re.fullmatch(line, done.stdout)
    assert files_of(out) == files_of(corpus)


def test_another_seed_gives_other_clips(corpus):
    options = CorpusOptions(out=corpus, minutes=1, seed=1)
    for task in quickstart.TASKS:
        first = next(quickstart.clips(task, options))
        (old,) = [clip for clip in folder.clips(corpus / task) if clip.id == first.id]
        assert first.text != old.text


def test_a_finished_corpus_is_left_alone_and_one_cut_off_is_made_again(corpus, tmp_path):
    options = CorpusOptions(out=tmp_path, minutes=0.05)
    quickstart.main(options)
    before, manifest = files_of(tmp_path), tmp_path / "text_to_music" / "manifest.jsonl"
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.wav")}
    quickstart.main(options)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.wav")} == times
    manifest.unlink()
    next(iter((tmp_path / "text_to_music" / "wav").iterdir())).write_bytes(b"cut")
    quickstart.main(options)
    assert files_of(tmp_path) == before


def test_a_folder_of_someone_else_is_refused_and_kept(tmp_path):
    (tmp_path / "tts").mkdir()
    (tmp_path / "tts" / "mine.txt").write_text("dear")
    with pytest.raises(ValueError, match="not this program's"):
        quickstart.main(CorpusOptions(out=tmp_path, minutes=0.05))
    assert (tmp_path / "tts" / "mine.txt").read_text() == "dear"


@pytest.mark.parametrize("wrong", [{"minutes": 0}, {"minutes": float("nan")}, {"seed": -1}])
def test_senseless_options_are_refused(wrong):
    with pytest.raises(ValueError, match="wanted minutes above 0"):
        CorpusOptions(out=Path("x"), **wrong)


def test_heldout_sentences_are_never_trained_on_by_any_task(clips):
    spoken = [clip for task in ("tts", "enhancement") for clip in clips[task]]
    train, heldout = ({clip.text for clip in spoken if clip.split == split} for split in ("train", "heldout"))
    assert train and heldout and not train & heldout
    assert all(sentence_split(clip.text) == clip.split for clip in spoken)


def test_heldout_sentences_and_tunes_stay_held_out_for_any_seed():
    made = {split: {(sentence(rng, split), compose(rng, 3.0, split).combination)
                    for rng in map(np.random.default_rng, range(300))} for split in ("train", "heldout")}  # fmt: skip
    for column in (0, 1):
        train, heldout = ({entry[column] for entry in made[split]} for split in ("train", "heldout"))
        assert len(heldout) > 20 and not train & heldout


def test_tunes_are_captioned_by_instrument_and_key(clips):
    for number in range(101):
        tune = compose(np.random.default_rng(number), 3.0, "train")
        instrument, key = tune.combination.split(" in ")
        assert instrument in tune.caption.lower() and key in tune.caption
    music = clips["text_to_music"]
    train, heldout = ({clip.text for clip in music if clip.split == split} for split in ("train", "heldout"))
    assert len(heldout) >= 4 and not train & heldout


def test_heldout_noises_are_other_recordings(clips):
    noises: dict[str, list] = {"train": [], "heldout": []}
    for clip in clips["enhancement"]:
        noise = clip.noisy_audio - clip.audio
        noises[clip.split].append(noise / np.linalg.norm(noise))
    for heldout in noises["heldout"]:
        for train in noises["train"]:
            length = min(len(heldout), len(train))
            assert abs(np.dot(heldout[:length], train[:length])) < 0.9


def test_there_are_four_voices_and_each_has_a_prompt_of_its_own_split(clips):
    speakers = [clip.speaker for clip in clips["tts"] if clip.split == "train"]
    assert len(set(speakers)) >= 4 and len(VOICES) >= 6
    for split in ("train", "heldout"):
        named = [clip.speaker for clip in clips["tts"] if clip.split == split]
        assert all(named.count(name) >= 2 for name in named)


def test_files_are_finite_sounding_16_khz_pcm(corpus):
    paths = list(corpus.rglob("*.wav"))
    assert len(paths) > 30
    for path in paths:
        info, samples = soundfile.info(path), soundfile.read(path, dtype="float32")[0]
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert 1.5 <= info.duration <= 5.0 and np.isfinite(samples).all()
        assert 0.02 < samples.std() and np.abs(samples).max() <= 0.91


def test_the_minutes_are_shared_out_as_promised(corpus, clips):
    assert CorpusOptions(out=corpus).minutes >= 20
    assert sum(share for share, _ in quickstart.TASKS.values()) == 1
    for task, (share, _) in quickstart.TASKS.items():
        seconds = sum(len(clip.audio) for clip in clips[task] if clip.split == "train") / 16000
        assert share * 0.9 * 60 <= seconds < share * 0.9 * 60 + 10


def test_noise_is_added_at_0_to_15_db(clips):
    ratios = [10 * np.log10(np.var(clip.audio) / np.var(clip.noisy_audio - clip.audio))
              for clip in clips["enhancement"]]  # fmt: skip
    assert -0.5 < min(ratios) and max(ratios) < 15.5 and np.ptp(ratios) > 5


@pytest.mark.parametrize("kind", list(NOISES))
def test_each_noise_has_its_length_and_level_and_depends_on_its_seed_alone(kind):
    one, same, other = (noise_clip(np.random.default_rng(seed), 1.7, kind) for seed in (3, 3, 5))
    assert one.shape == (27200,) and one.dtype == np.float32
    assert 0.01 < one.std() <= 0.0501
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_an_unknown_noise_or_voice_is_refused_by_name():
    with pytest.raises(ValueError, match="got kind 'cough', wanted one of white"):
        noise_clip(np.random.default_rng(0), 1.0, "cough")
    for voice in ("xx-nowhere", "en-us+nobody", "en-us+"):
        with pytest.raises(ValueError, match=re.escape(f"got voice {voice!r}")):
            speech_clip(voice, TEXT)


def test_speech_depends_on_text_and_voice_alone():
    before = speech_clip("en-us+m3", TEXT)
    others = [speech_clip(voice, TEXT) for voice in VOICES]
    assert np.array_equal(speech_clip("en-us+m3", TEXT), before)
    assert all(len(one) != len(two) or not np.allclose(one, two) for one, two in zip(others, others[1:], strict=False))


def test_a_text_without_sound_is_refused():
    with pytest.raises(ValueError, match="nothing to say"):
        speak("", "en-us")


def test_splits_hold_out_about_one_in_n():
    count = sum(split_of(f"clip {number}", 20) == "heldout" for number in range(10007))
    assert 400 < count < 600


# Writes a second of noise for each line of its input, and keeps the lines, in place of the real tool.
FAKE_PIPER = """
import sys, numpy, soundfile
folder = sys.argv[sys.argv.index("--output_dir") + 1]
lines = sys.stdin.read().splitlines()
open(sys.argv[sys.argv.index("--model") + 1], "a").write("".join(f"{line}\\n" for line in lines))
for number, line in enumerate(lines):
    soundfile.write(f"{folder}/{number}.wav", numpy.random.default_rng(0).uniform(-1, 1, 22050), 22050)
"""


@pytest.fixture
def fake_piper(tmp_path, monkeypatch) -> Piper:
    (tmp_path / "piper.py").write_text(FAKE_PIPER)
    piper = Piper(command=(sys.executable, str(tmp_path / "piper.py")), voice=tmp_path / "voice.onnx")
    monkeypatch.setattr(codec_training, "find_piper", lambda voice: piper)
    return piper


def test_the_audio_of_the_shipped_codec_is_what_its_recipe_reads_and_is_made_once(tmp_path, fake_piper):
    options = TrainingAudioOptions(out=tmp_path / "data", minutes=0.1)
    codec_training.main(options)
    before = files_of(options.out)
    recipe = load_config(Path(__file__).parents[1] / "configs" / "codec_tiny_16k.py")
    assert isinstance(recipe, CodecTrainConfig)
    folders = tuple(str(options.out / Path(name).relative_to("runs/codec_data")) for name in recipe.audio)
    audio = Audio(folders, 16000)
    assert set(audio.heldout) == {Path(name).name for name in folders} and audio.converted == 0
    times = {path: path.stat().st_mtime_ns for path in options.out.rglob("*.wav")}
    codec_training.main(options)
    assert {path: path.stat().st_mtime_ns for path in options.out.rglob("*.wav")} == times
    (options.out / "sound" / "recipe.json").rename(options.out / "sound" / "mine.txt")
    with pytest.raises(ValueError, match="sound: got a folder that is not this program's"):
        codec_training.main(options)
    (options.out / "sound").rename(options.out / ".sound.partial")  # as if it was cut off
    codec_training.main(options)
    assert files_of(options.out) == before


def test_the_codec_trains_on_no_heldout_sentence(fake_piper, monkeypatch):
    said = []
    monkeypatch.setattr(espeak, "speak", lambda text, voice: (said.append(text), (np.ones(2000, np.float32), 16000))[1])
    made = codec_training.makers(fake_piper)
    for split in ("train", "heldout"):
        said.clear()
        fake_piper.voice.write_text("")
        for seed in range(97):
            made["speech_espeak"](np.random.default_rng(seed), split)
        made["speech_piper"](np.random.default_rng(3), split)
        pairs = fake_piper.voice.read_text().splitlines()
        said += [part.strip() for pair in pairs for part in re.findall(r"[^.?]+[.?]", pair)]
        english = [text for text in said if text not in codec_training.FOREIGN.values()]
        assert len(english) > 60 and {sentence_split(text) for text in english} == {split}


def test_without_piper_its_domain_is_left_out_with_a_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(codec_training, "find_piper", lambda voice: None)
    monkeypatch.setattr(codec_training, "write_domain", lambda domain, *rest: (tmp_path / domain).mkdir())
    monkeypatch.setattr(quickstart, "write_task", lambda *rest: None)
    codec_training.main(TrainingAudioOptions(out=tmp_path))
    assert "pip install piper-tts" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"speech_espeak", "music", "sound"}


def test_a_failing_piper_is_told_by_its_last_line(tmp_path):
    piper = Piper(command=(sys.executable, "-c", "raise SystemExit('no such voice')"), voice=tmp_path / "gone.onnx")
    with pytest.raises(ValueError, match=r"got exit code 1 and 0 files, wanted 1 \(no such voice\)"):
        codec_training.piper_speech(piper, ["Hello."])


def test_the_default_minutes_are_those_of_the_shipped_codec():
    options = TrainingAudioOptions(out=Path("x"))
    assert {domain: options.minutes_of(domain) for domain in codec_training.MINUTES} == codec_training.MINUTES
