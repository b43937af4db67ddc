"""The reader of Kaldi data folders."""

import numpy as np
import pytest
import soundfile

from data_pipelines.corpora.kaldi import open_kaldi
from tests.corpus_files import kaldi, read_all, read_one, refused, sound


def test_kaldi_gives_whole_files_with_text_speaker_and_language(tmp_path):
    one, two = sound(tmp_path / "one.wav", seed=1), sound(tmp_path / "my sounds" / "two.wav", seed=2)
    kaldi(
        tmp_path,
        wav_scp=f"r1 one.wav\nr2\t{tmp_path}/my sounds/two.wav\n",
        text="r2 grüß dich  und\n\nr1\n",
        utt2spk="r1 ivy\nr2 leo",
        utt2lang="r2 de",
        spk2utt="ivy r1",
    )
    clips = read_all(open_kaldi(tmp_path))
    assert [(clip.text, clip.speaker, clip.language) for clip in clips.values()] == [
        (None, "ivy", None),
        ("grüß dich  und", "leo", "de"),
    ]
    for clip, made in zip(clips.values(), (one, two), strict=True):
        np.testing.assert_array_equal(clip.audio, made.astype(np.float32))


def test_kaldi_segments_are_cut_at_their_samples(tmp_path):
    made = sound(tmp_path / "one.wav", samples=16007, channels=2)
    both = soundfile.read(tmp_path / "one.wav")[0]
    kaldi(tmp_path, segments="u1 r1 0.25 0.5\nu2 r1 0.5 -1\nu3 r1 0.125 0.25 1", text="u2 the rest")
    clips = read_all(open_kaldi(tmp_path))
    np.testing.assert_array_equal(clips["u1"].audio, made[4000:8000].astype(np.float32))
    np.testing.assert_array_equal(clips["u2"].audio, made[8000:].astype(np.float32))
    np.testing.assert_array_equal(clips["u3"].audio, both[2000:4000, 1].astype(np.float32))
    assert clips["u2"].text == "the rest" and {clip.split for clip in clips.values()} == {"train", "heldout"}


def test_kaldi_paths_are_from_the_working_directory_and_else_from_the_folder(tmp_path, monkeypatch):
    folder, here = kaldi(tmp_path / "data"), tmp_path / "here"
    beside = sound(folder / "two.wav", seed=2)
    sound(folder / "one.wav", seed=3)
    near = sound(here / "one.wav", seed=1)
    monkeypatch.chdir(here)
    clips = read_all(open_kaldi(folder))
    np.testing.assert_array_equal(clips["r1"].audio, near.astype(np.float32))
    np.testing.assert_array_equal(clips["r2"].audio, beside.astype(np.float32))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"wav_scp": "r1 sph2pipe -f wav one.sph |"}, "wav.scp:1: got the recording 'r1' as a command, 'sph2pipe"),
        ({"wav_scp": "r1 wav.ark:1234"}, "wav.scp:1: got the recording 'r1' as a part of an archive"),
        ({"wav_scp": "r1 one.wav\nr2"}, "wav.scp:2: got the recording 'r2' without a file"),
        ({"wav_scp": "r1 one.wav\nr1 two.wav"}, "wav.scp:2: got 'r1' a second time (first: "),
        ({"segments": "u1 r1 0 1\nu2 r9 0 1"}, "segments:2: got the recording 'r9', wanted one of"),
        ({"segments": "u1 r1 0"}, "segments:1: got 'r1 0', wanted `UTTERANCE RECORDING START END`"),
        ({"segments": "u1 r1 0 1 A"}, "segments:1: got 'r1 0 1 A', wanted"),
        ({"segments": "u1 r1 zero 1"}, "segments:1: got start = 'zero', wanted seconds"),
        ({"segments": "u1 r1 1 0.5"}, "segments:1: got a segment from 1 s to 0.5 s"),
        ({"segments": "u1 r1 0 1\nu1 r2 0 1"}, "segments:2: got 'u1' a second time"),
        ({"text": "r1 a\nr9 b"}, "text:2: got the utterance 'r9', wanted one of segments or wav.scp"),
        ({"utt2spk": "r1 ivy\nr1 leo"}, "utt2spk:2: got 'r1' a second time"),
        ({"wav_scp": ""}, "got no clip"),
    ],
)
def test_a_bad_line_of_kaldi_is_refused_on_opening_with_its_file_and_number(tmp_path, tables, message):
    with refused(message):
        open_kaldi(kaldi(tmp_path, **tables))


def test_kaldi_without_wav_scp_and_with_text_that_is_not_utf_8_is_refused(tmp_path):
    with refused("wav.scp: got no file"):
        open_kaldi(tmp_path)
    (kaldi(tmp_path) / "text").write_bytes(b"r1 hello\nr2 Gr\xfc\xdfe\n")
    with refused("text:2: got bytes that are not UTF-8"):
        open_kaldi(tmp_path)


def test_a_kaldi_clip_without_its_file_or_beyond_its_end_is_refused_when_it_is_read(tmp_path):
    sound(tmp_path / "one.wav", samples=16007)
    corpus = open_kaldi(kaldi(tmp_path))
    assert read_one(corpus).id == "r1"
    with refused(f"{tmp_path / 'wav.scp'}:2: {tmp_path / 'two.wav'}: got no file"):
        read_one(corpus, 1)
    corpus = open_kaldi(kaldi(tmp_path, segments="u1 r1 0 1\nu2 r1 0.5 1.75"))
    assert read_one(corpus).id == "u1"
    with refused(f"{tmp_path / 'segments'}:2: {tmp_path / 'one.wav'}: got 1.00 s of audio, wanted 0.5 s to 1.75 s"):
        read_one(corpus, 1)
