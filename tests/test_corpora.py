"""What corpora are made of: splits, sentences, tunes, noises, voices; and the audio of the shipped codec."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soxr

from data_pipelines import espeak
from data_pipelines.codec_audio import domain_clips
from data_pipelines.corpora import SAMPLE_RATE_HZ, split_of
from data_pipelines.espeak import speak, speak_with_phones
from data_pipelines.synthetic import codec_training, piper
from data_pipelines.synthetic.codec_training import TrainingAudioOptions
from data_pipelines.synthetic.domains import Unit
from data_pipelines.synthetic.noises import BABBLE_VOICES, NOISES, noise_clip
from data_pipelines.synthetic.piper import Piper
from data_pipelines.synthetic.sentences import sentence, sentence_split
from data_pipelines.synthetic.singing import speech_hertz
from data_pipelines.synthetic.tunes import compose
from data_pipelines.synthetic.voices import ESPEAK_SPEAKERS, say, speech_clip
from uniaudio_jax.codec.audio_data import Audio
from uniaudio_jax.codec.config import CodecTrainConfig
from uniaudio_jax.config_files import load_config

TEXT = "Judith painted the yellow boat."


def test_splits_hold_out_about_one_in_n():
    count = sum(split_of(f"clip {number}", 20) == "heldout" for number in range(10007))
    assert 400 < count < 600


def test_heldout_sentences_and_tunes_stay_held_out_for_any_seed():
    drawn = {
        split: {
            (sentence(rng, split), compose(rng, 3.0, split).combination)
            for rng in map(np.random.default_rng, range(300))
        }
        for split in ("train", "heldout")
    }
    for column in (0, 1):
        train, heldout = ({entry[column] for entry in drawn[split]} for split in ("train", "heldout"))
        assert len(heldout) > 20 and not train & heldout


def test_tunes_are_captioned_and_labelled_by_what_they_are():
    for number in range(101):
        tune = compose(np.random.default_rng(number), 3.0, "train")
        instrument, key = tune.combination.split(" in ")
        assert tune.labels[0] == instrument and key in tune.caption
        assert all(label in tune.caption.lower() for label in tune.labels)
        bpm = int(re.findall(r"\d+", tune.caption)[0])
        assert tune.labels[2] == ("slow" if bpm < 88 else "fast" if bpm >= 124 else "moderate")


@pytest.mark.parametrize("kind", list(NOISES))
def test_each_noise_has_its_length_and_level_and_depends_on_its_seed_alone(kind):
    noise, same, other = (noise_clip(np.random.default_rng(seed), 1.7, kind) for seed in (3, 3, 5))
    assert noise.shape == (27200,) and noise.dtype == np.float32
    assert 0.01 < noise.std() <= 0.0501
    assert np.array_equal(noise, same) and not np.array_equal(noise, other)


def test_nobody_who_talks_in_babble_is_a_speaker_of_the_corpus():
    assert not set(BABBLE_VOICES) & set(ESPEAK_SPEAKERS)


def test_an_unknown_noise_or_voice_is_refused_by_name():
    with pytest.raises(ValueError, match="got kind 'cough', wanted one of white"):
        noise_clip(np.random.default_rng(0), 1.0, "cough")
    for voice in ("xx-nowhere", "en-us+nobody", "en-us+"):
        with pytest.raises(ValueError, match=re.escape(f"got voice {voice!r}")):
            speech_clip(voice, TEXT)
    with pytest.raises(ValueError, match="got no 'piper-nobody'"):
        say("piper-nobody", [TEXT], np.random.default_rng(0))


def test_speech_depends_on_its_arguments_alone():
    before = speak("Judith painted.", "en-us+m3")[0], speak("Judith painted.", "en-us+m3", pitch=71)[0]
    others = [speech_clip(voice, TEXT, words_per_minute=211, pitch=13) for voice in ESPEAK_SPEAKERS]
    after = speak("Judith painted.", "en-us+m3")[0], speak("Judith painted.", "en-us+m3", pitch=71)[0]
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))
    for left, right in zip(others, others[1:], strict=False):
        assert len(left) != len(right) or not np.allclose(left, right)


def test_speech_is_as_fast_and_as_high_as_asked_for():
    slow, usual, fast = (speak(TEXT, "en-us+m3", words_per_minute=rate)[0] for rate in (100, 175, 250))
    assert len(slow) > 1.3 * len(usual) > 1.3 * len(fast)

    low, high = (speak_with_phones(TEXT, "en-us+m3", pitch=pitch) for pitch in (10, 90))
    waves = [soxr.resample(speech.samples, 22050, SAMPLE_RATE_HZ).astype(float) for speech in (low, high)]
    hertz = [speech_hertz(wave, speech.phones) for wave, speech in zip(waves, (low, high), strict=True)]
    assert np.median(hertz[1][hertz[1] > 0]) > 1.3 * np.median(hertz[0][hertz[0] > 0])


@pytest.mark.parametrize(("setting", "value"), [("words_per_minute", 79), ("words_per_minute", 451), ("pitch", 100)])
def test_a_rate_or_pitch_out_of_range_is_refused(setting, value):
    with pytest.raises(ValueError, match=f"got {setting}={value}, wanted"):
        speak(TEXT, "en-us+m3", **{setting: value})


def test_phones_of_speech_are_in_order_and_within_it():
    speech = speak_with_phones("Judith painted it, and slept.", "en-us+f4")
    names, starts = zip(*speech.phones, strict=True)
    assert list(starts) == sorted(starts) and 0 <= starts[0] and starts[-1] <= len(speech.samples) / 22050
    assert names[:3] == ("dʒ", "ˈuː", "d") and "" in names[5:-2]


def test_a_text_without_sound_is_refused():
    with pytest.raises(ValueError, match="nothing to say"):
        speak("", "en-us")


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
    command = (sys.executable, str(tmp_path / "piper.py"))
    tool = Piper(command=command, voice=tmp_path / "voice.onnx", seeded=False)
    monkeypatch.setattr(codec_training, "find_piper", lambda voice: tool)
    return tool


def test_the_recipe_of_the_shipped_codec_reads_what_is_made():
    recipe = load_config(Path(__file__).parents[1] / "configs" / "codec_tiny_16k.py", CodecTrainConfig)
    assert isinstance(recipe, CodecTrainConfig)
    assert list(recipe.audio) == [f"runs/codec_data/{name}" for name in codec_training.MINUTES]


def test_the_audio_of_the_shipped_codec_has_clips_held_out_and_is_made_once(tmp_path, fake_piper):
    options = TrainingAudioOptions(out=tmp_path / "data", minutes=0.1, voices="espeak")
    codec_training.main(options)
    places = [str(options.out / name) for name in codec_training.MINUTES]
    audio = Audio(domain_clips(places, SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
    assert set(audio.heldout) == {Path(name).name for name in codec_training.MINUTES} and audio.converted == 0
    assert all(len(clips) >= 4 for clips in audio.heldout.values())
    times = {path: path.stat().st_mtime_ns for path in options.out.rglob("*.wav")}
    codec_training.main(options)
    assert {path: path.stat().st_mtime_ns for path in options.out.rglob("*.wav")} == times


def test_the_codec_trains_on_no_heldout_sentence(fake_piper, monkeypatch):
    said = []

    def speak(text: str, voice: str) -> tuple[np.ndarray, int]:
        said.append(text)
        return np.ones(2000, np.float32), SAMPLE_RATE_HZ

    monkeypatch.setattr(espeak, "speak", speak)
    domains = codec_training.own_domains(fake_piper)
    for split in ("train", "heldout"):
        said.clear()
        fake_piper.voice.write_text("")
        for number in range(97):
            domains["speech_espeak"].make(Unit(domain="speech_espeak", seed=5, split=split, number=number))
        domains["speech_piper"].make(Unit(domain="speech_piper", seed=3, split=split, number=7))
        pairs = fake_piper.voice.read_text().splitlines()
        said += [part.strip() for pair in pairs for part in re.findall(r"[^.?]+[.?]", pair)]
        assert len(said) > 100 and {sentence_split(text) for text in said} == {split}


def test_without_piper_its_domain_is_left_out_with_a_remedy(tmp_path, monkeypatch, capsys):
    written = []
    monkeypatch.setattr(codec_training, "find_piper", lambda voice: None)
    monkeypatch.setattr(codec_training, "write_domains", lambda title, out, plans: written.extend(plans))
    codec_training.main(TrainingAudioOptions(out=tmp_path))
    assert "pip install piper-tts" in capsys.readouterr().out
    assert written == [name for name in codec_training.MINUTES if name != "speech_piper"]


def test_a_failing_piper_is_told_by_its_last_line(tmp_path):
    command = (sys.executable, "-c", "raise SystemExit('no such voice')")
    failing = Piper(command=command, voice=tmp_path / "gone.onnx", seeded=False)
    with pytest.raises(ValueError, match=r"got exit code 1 and 0 files, wanted 1 \(no such voice\)"):
        piper.piper_speech(failing, ["Hello."], 0)


def test_the_default_minutes_are_those_of_the_shipped_codec(fake_piper):
    minutes = {name: plan.minutes for name, plan in TrainingAudioOptions(out=Path("x")).plans(fake_piper).items()}
    assert minutes == pytest.approx(codec_training.MINUTES)
