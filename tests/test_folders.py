"""The reader of folders of plain audio: LibriTTS, LibriSpeech, VCTK and any others."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.corpora.folder import open_folder
from data_pipelines.corpora.listing import AUDIO_SUFFIXES
from tests.corpus_files import RATE, lines, read_all, read_one, refused, sound


def test_a_plain_folder_tells_texts_speakers_and_conversions(tmp_path):
    sound(tmp_path / "ivy" / "day one" / "one.flac", samples=4801, rate=48000, channels=2)
    sound(tmp_path / "two.WAV")
    sound(tmp_path / "leo" / "3.ogg")
    lines(tmp_path / "ivy" / "day one" / "one.txt", " Hello there.")
    lines(tmp_path / "two.lab", "And you?")
    lines(tmp_path / "leo" / "3.txt", "Not this.")
    lines(
        tmp_path / "leo" / "3.json",
        {
            "text": "Guten Tag.",
            "language": "de",
            "speaker": "Leo",
            "labels": ["speech"],
            "instruction": "Loudly.",
            "licence": "CC0",
        },
    )
    for hidden in (".hidden.wav", "._two.wav", "leo/._3.ogg", ".trash/old.wav", "ivy/.git/blob.wav"):
        lines(tmp_path / hidden, "")
    clips = read_all(open_folder(tmp_path))
    assert set(clips) == {"ivy/day one/one", "two", "leo/3"}
    one, two, three = (clips[name] for name in ("ivy/day one/one", "two", "leo/3"))
    assert (one.text, one.speaker, one.converted) == ("Hello there.", "ivy", ("stereo", "48000 Hz"))
    assert one.audio is not None and len(one.audio) == 1600
    assert (two.text, two.speaker, two.converted) == ("And you?", None, ())
    assert (three.text, three.language, three.speaker, three.labels, three.instruction) == (
        "Guten Tag.",
        "de",
        "Leo",
        ("speech",),
        "Loudly.",
    )


@pytest.mark.parametrize("count", [2, 7, 211])
def test_a_plain_folder_of_two_or_more_holds_out_some_clips_and_not_all(tmp_path, count):
    for number in range(count):
        sound(tmp_path / f"{number}.wav", samples=11)
    heldout = [entry.id for entry in open_folder(tmp_path).entries if entry.split == "heldout"]
    assert 1 <= len(heldout) <= max(1, count // 10)
    assert heldout == [entry.id for entry in open_folder(tmp_path).entries if entry.split == "heldout"]


def test_libritts_is_read_as_it_is_laid_out(tmp_path):
    for subset, speaker in (("train-clean-100", "19"), ("dev-clean", "84"), ("test-other", "1688")):
        path = tmp_path / subset / speaker / "198" / f"{speaker}_198_0_0.wav"
        sound(path, rate=24000)
        lines(path.with_name(f"{path.stem}.original.txt"), "Mr. A")
        lines(path.with_name(f"{path.stem}.normalized.txt"), "Mister A")
    clips = read_all(open_folder(tmp_path)).values()
    assert [(clip.speaker, clip.split) for clip in clips] == [("84", "heldout"), ("1688", "heldout"), ("19", "train")]
    assert {clip.text for clip in clips} == {"Mister A"}


@pytest.mark.parametrize("opened", ["", "LibriSpeech"])
def test_librispeech_is_read_as_it_is_laid_out(tmp_path, opened):
    for subset, speaker, chapter in (("train-clean-100", "19", "198"), ("dev-clean", "84", "121123")):
        folder = tmp_path / "LibriSpeech" / subset / speaker / chapter
        for number in (0, 1, 2):
            sound(folder / f"{speaker}-{chapter}-000{number}.flac")
        rows = [f"{speaker}-{chapter}-0000 GO  DO YOU HEAR", f"{speaker}-{chapter}-0002", ""]
        lines(folder / f"{speaker}-{chapter}.trans.txt", *rows, f"{speaker}-{chapter}-0001 BUT IN LESS\u2028THAN FIVE")
    clips = list(read_all(open_folder(tmp_path / opened)).values())
    assert [(clip.speaker, clip.split) for clip in clips] == [("84", "heldout")] * 3 + [("19", "train")] * 3
    assert [clip.text for clip in clips] == ["GO  DO YOU HEAR", "BUT IN LESS\u2028THAN FIVE", None] * 2


def test_a_broken_transcript_is_refused_with_the_clips_beside_it_and_no_other(tmp_path):
    for name in ("a/a-0", "a/a-1", "b/b-0"):
        sound(tmp_path / f"{name}.flac")
    (tmp_path / "a/a.trans.txt").write_bytes(b"a-0 GR\xfc\xdfe\n")
    corpus = open_folder(tmp_path)
    for number in (0, 1):
        with refused("a.trans.txt:1: got bytes that are not UTF-8"):
            read_one(corpus, number)
    assert read_one(corpus, 2).id == "b/b-0"


def test_linked_folders_are_read_once_and_a_ring_of_links_ends(tmp_path):
    sound(tmp_path / "elsewhere" / "ivy" / "one.wav")
    sound(tmp_path / "corpus" / "leo" / "two.wav")
    (tmp_path / "corpus" / "eve").symlink_to(tmp_path / "elsewhere" / "ivy")
    (tmp_path / "corpus" / "leo" / "again").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus" / "mia").symlink_to(tmp_path / "corpus" / "leo")
    (tmp_path / "corpus" / "gone").symlink_to(tmp_path / "nowhere")
    clips = read_all(open_folder(tmp_path / "corpus"))
    assert {name: clip.speaker for name, clip in clips.items()} == {"eve/one": "eve", "leo/two": "leo"}


def test_a_link_to_itself_and_a_folder_that_cannot_be_opened_cost_themselves_alone(tmp_path, capsys, monkeypatch):
    sound(tmp_path / "ivy" / "one.wav")
    sound(tmp_path / "locked" / "two.wav")
    for name in ("loop", "loop.wav"):
        (tmp_path / name).symlink_to(name)
    listdir = os.listdir

    def locked(folder):
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied")
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", locked)
    corpus = open_folder(tmp_path)
    assert [entry.id for entry in corpus.entries] == ["ivy/one", "loop"]
    assert (
        f"{tmp_path / 'locked'}: passed over, since it cannot be opened (Permission denied)" in capsys.readouterr().out
    )
    with refused("loop.wav: got a link to no file"):
        read_one(corpus, 1)


def test_a_folder_takes_every_ending_that_is_read_and_counts_the_others(tmp_path, capsys):
    for suffix in AUDIO_SUFFIXES:
        form, coding = {".opus": ("OGG", "OPUS"), ".aif": ("AIFF", None)}.get(suffix, (None, None))
        soundfile.write(tmp_path / f"{suffix[1:]}{suffix}", np.zeros(4003), RATE, coding, format=form)
    for name in ("a.m4a", "b.M4A", "c.wma", "wav.mp3", "flac.ogg"):
        (tmp_path / name).touch()
    assert sorted(read_all(open_folder(tmp_path))) == sorted(suffix[1:] for suffix in AUDIO_SUFFIXES)
    told = capsys.readouterr().out
    assert told.startswith(f"{tmp_path}: passed over 2 .m4a (convert") and "; 1 .wma (convert" in told
    assert "1 .ogg beside a .flac of the same name; 1 .mp3 beside a .wav of the same name" in told


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({"title": "x", "bpm": 97}, None),
        ([{"start": 0.0, "text": "Not this."}], None),
        ({"text": 7}, "7"),
        ({"text": " ", "speaker": 3, "labels": []}, None),
        ({"text": "Hi.\u2028There.", "segments": [{"id": 0}], "language": "en"}, "Hi.\u2028There."),
        ("words", None),
        (None, None),
    ],
)
def test_what_is_not_ours_in_a_json_beside_a_clip_is_ignored(tmp_path, content, wanted):
    sound(tmp_path / "a.wav")
    (tmp_path / "a.json").write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8-sig")
    assert read_one(open_folder(tmp_path)).text == wanted


@pytest.mark.parametrize("waves", ["wav48_silence_trimmed", "wav48"])
@pytest.mark.parametrize("opened", ["", "waves"])
def test_vctk_is_read_as_it_is_laid_out_from_its_first_microphone(tmp_path, waves, opened):
    for microphone in (1, 2):
        sound(tmp_path / waves / "p225" / f"p225_001_mic{microphone}.flac", seed=microphone)
    sound(tmp_path / waves / "p226" / "p226_002.wav")
    lines(tmp_path / "txt" / "p225" / "p225_001.txt", "Please call Stella.")
    lines(tmp_path / "txt" / "p226" / "p226_002.txt", "Ask her.")
    clips = list(read_all(open_folder(tmp_path / waves if opened else tmp_path)).values())
    assert [(clip.speaker, clip.text) for clip in clips] == [("p225", "Please call Stella."), ("p226", "Ask her.")]
    assert clips[0].id.endswith("p225/p225_001_mic1")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.txt", b"Gr\xfc\xdfe", "b.txt:1: got bytes that are not UTF-8"),
        ("b.json", b"{", "b.json: got '{', wanted one JSON object"),
        ("b.json", b'{"labels": "rain"}', "b.json: got labels = 'rain', wanted a list of strings"),
        ("b.json", b'{"title": 7, "text": [7]}', "b.json: got text = [7], wanted a string"),
        ("b.json", b"[" * 100_003, "b.json: got '[[["),
    ],
)
def test_a_broken_file_beside_a_clip_is_refused_when_that_clip_is_read(tmp_path, name, content, message):
    sound(tmp_path / "a.wav")
    sound(tmp_path / "b.wav")
    (tmp_path / name).write_bytes(content)
    corpus = pickle.loads(pickle.dumps(open_folder(tmp_path)))
    assert read_one(corpus).id == "a"
    with refused(message):
        read_one(corpus, 1)


def test_a_folder_without_audio_a_missing_one_and_two_files_of_one_name_are_refused(tmp_path):
    with refused("got no manifest.jsonl and no audio"):
        open_folder(tmp_path)
    with refused("got no folder"):
        open_folder(tmp_path / "gone")
    sound(tmp_path / "a.wav")
    sound(tmp_path / "a.WAV")
    with refused("got id 'a' a second time"):
        open_folder(tmp_path)
