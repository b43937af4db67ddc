"""The readers of corpora: folders, Kaldi, captions, manifests, TFDS, and which of them reads what a user names."""

import csv
import gzip
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.corpora import AUDIO_FIELDS, CLIP_FIELDS, Clip, Corpus
from data_pipelines.corpora.captions import open_captions
from data_pipelines.corpora.folder import open_folder, write_manifest
from data_pipelines.corpora.kaldi import open_kaldi
from data_pipelines.corpora.listing import AUDIO_SUFFIXES, FIELDS
from data_pipelines.corpora.manifest import open_manifest
from data_pipelines.corpora.opening import FORMATS, open_corpus

RATE = 16000


def sound(path: Path, samples: int = 1009, seed: int = 0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Noise, written to `path`; its channels' mean comes back as 16 bits have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = np.random.default_rng(seed).integers(-9999, 9999, (samples, channels), dtype=np.int16)
    soundfile.write(path, whole, rate)
    return whole.mean(axis=1) / 32768


def lines(path: Path, *rows: str | dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def read_all(corpus: Corpus) -> dict[str, Clip]:
    """Every clip by its id, read by a corpus that was pickled."""
    corpus = pickle.loads(pickle.dumps(corpus))
    clips = {entry.id: corpus.read(entry, RATE) for entry in corpus.entries}
    assert [(clip.id, clip.split) for clip in clips.values()] == [(entry.id, entry.split) for entry in corpus.entries]
    return clips


def read_one(corpus: Corpus, number: int = 0) -> Clip:
    return corpus.read(corpus.entries[number], RATE)


def refused(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


# Folders with a manifest.


def row(**changes) -> dict:
    fields = {"id": "b", "split": "train", "audio": "a.wav", **changes}
    return {key: value for key, value in fields.items() if value != "absent"}


def test_every_field_of_a_clip_comes_back_from_a_manifest(tmp_path):
    made = {name: sound(tmp_path / name / "x.wav", seed=number) for number, name in enumerate(AUDIO_FIELDS)}
    others = {
        "text": "Grüße",
        "language": "de",
        "speaker": "ivy",
        "instruction": "Slowly.",
        "midi": np.array([60, 128]),
        "labels": ["rain", "a dog"],
        "phones": [["a", 0.25], ["t", 1]],
        "masked_seconds": [0.5, 1],
        "same_speaker": False,
    }
    paths = {name: f"{name}/x.wav" for name in AUDIO_FIELDS}
    write_manifest(tmp_path / "manifest.jsonl", [{"id": "a", "split": "heldout", **paths, **others}])
    assert set(paths) | set(others) == set(CLIP_FIELDS) == set(FIELDS)
    clip = read_all(open_folder(tmp_path))["a"]
    for name in AUDIO_FIELDS:
        np.testing.assert_array_equal(getattr(clip, name), made[name].astype(np.float32))
    assert clip.midi is not None and clip.midi.tolist() == [60, 128]
    got = {name: getattr(clip, name) for name in others if name != "midi"}
    assert got == {
        **{name: others[name] for name in got},
        "labels": ("rain", "a dog"),
        "masked_seconds": (0.5, 1.0),
        "phones": (("a", 0.25), ("t", 1.0)),
    }
    assert clip.split == "heldout" and clip.converted == ()


def test_null_is_as_if_not_there_and_audio_may_be_missing(tmp_path):
    lines(tmp_path / "manifest.jsonl", row(audio=None, text="Only words.", labels=None), "", row(id="c", text=None))
    sound(tmp_path / "a.wav")
    clips = read_all(open_folder(tmp_path))
    assert (clips["b"].audio, clips["b"].text, clips["b"].labels) == (None, "Only words.", None)
    assert clips["c"].audio is not None and clips["c"].text is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{'id': 1}", "wanted one JSON object"),
        ("[1]", "wanted a JSON object"),
        (row(id="absent", Id="b"), "wanted also id; did you mean 'Id'?"),
        (row(split="absent"), "wanted also split"),
        (row(split="test"), "got split = 'test', wanted train or heldout"),
        (row(id=None), "got id = None, wanted a string"),
        (row(id=7), "got id = 7, wanted a string"),
        (row(id="a"), "got id 'a' a second time"),
        (row(audio="absent"), "got a clip of nothing but id and split"),
        (row(noisy="b.wav"), "got the key noisy, wanted one of audio"),
        (row(noisy="b.wav"), "did you mean 'noisy_audio'?"),
        (row(audio="absent", noisy_audio="a.wav"), "got noisy_audio without audio"),
        (row(audio=7), "got audio = 7, wanted a path"),
        (row(text=7), "got text = 7, wanted a string"),
        (row(text=" "), "got text = ' ', wanted a string"),
        (row(labels="rain"), "got labels = 'rain', wanted a list of strings or null"),
        (row(labels=[]), "got labels = [], wanted a list of strings"),
        (row(midi=[60, 129]), "got midi = [60, 129], wanted a list of whole numbers from 0 to 128"),
        (row(midi=[60.0]), "got midi = [60.0], wanted a list"),
        (row(phones=[["a", -1]]), "wanted a list of [symbol, seconds]"),
        (row(phones=["a"]), "wanted a list of [symbol, seconds]"),
        (row(masked_seconds=[1, 1]), "got masked_seconds = [1, 1], wanted [from, to] in seconds"),
        (row(masked_seconds=[1]), "wanted [from, to] in seconds"),
        (row(same_speaker=1), "got same_speaker = 1, wanted true or false"),
    ],
)
def test_a_bad_line_of_a_manifest_is_refused_on_opening_with_its_number(tmp_path, bad, message):
    manifest = lines(tmp_path / "manifest.jsonl", row(id="a"), "", bad)
    with refused(message) as error:
        open_folder(tmp_path)
    assert f"{manifest}:3: " in str(error.value)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"audio": "gone.wav"}, "gone.wav: got no file"),
        ({"audio": "text.wav"}, "cannot be read as audio"),
        ({"noisy_audio": "short.wav"}, "got 997 samples of noisy_audio and 1009 of audio, wanted the same length"),
    ],
)
def test_a_broken_clip_is_refused_when_it_is_read_and_no_other(tmp_path, bad, message):
    sound(tmp_path / "a.wav")
    sound(tmp_path / "short.wav", samples=997)
    lines(tmp_path / "text.wav", "dear diary")
    manifest = lines(tmp_path / "manifest.jsonl", row(id="a"), row(**bad))
    corpus = open_folder(tmp_path)
    assert read_one(corpus).audio is not None
    with refused(message) as error:
        read_one(corpus, 1)
    assert str(error.value).startswith(f"{manifest}:2: ")


def test_bytes_that_are_not_utf_8_are_refused_with_their_line(tmp_path):
    (tmp_path / "manifest.jsonl").write_bytes(json.dumps(row()).encode() + b'\n{"text": "Gr\xfc\xdfe"}\n')
    with refused(f"{tmp_path / 'manifest.jsonl'}:2: got bytes that are not UTF-8"):
        open_folder(tmp_path)


def test_a_byte_order_mark_blank_lines_and_line_separators_within_text_change_nothing(tmp_path):
    sound(tmp_path / "a.wav")
    text = "One.\u2028Two.\u0085Three.\u2029"
    rows = (row(text=text), row(id="c", text="Four."))
    content = "\n  \r\n".join(json.dumps(fields, ensure_ascii=False) for fields in rows)
    (tmp_path / "manifest.jsonl").write_text(f"\n{content}\n\n", encoding="utf-8-sig", newline="")
    assert [clip.text for clip in read_all(open_folder(tmp_path)).values()] == [text, "Four."]


def test_a_manifest_is_written_whole_or_not_at_all(tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    write_manifest(manifest, [row(text=None)])
    before = manifest.read_text()
    assert json.loads(before) == row()
    for rows, message in (
        ([row(), row(id="c", label="rain")], f"{manifest}:2: got the key label"),
        ([row(), row()], "got id 'b' a second time"),
        ([], "got no clip"),
    ):
        with refused(message):
            write_manifest(manifest, rows)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.jsonl"] and manifest.read_text() == before


# Folders without one.


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


# Kaldi.


def kaldi(folder: Path, **tables: str) -> Path:
    for name, rows in {"wav.scp": "r1 one.wav\nr2 two.wav\n", **tables}.items():
        lines(folder / name.replace("_", "."), rows)
    return folder


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


# Captions.


def table(path: Path, *rows: dict) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_audiocaps_is_found_by_its_ids_and_start_seconds(tmp_path):
    for name in ("audio/rqfQRErjfk8_170.wav", "wav/b0RFKhbpFJA.flac", "_-xyz.ogg"):
        sound(tmp_path / name)
    rows = [
        ("7", "rqfQRErjfk8", "170", "A crowd cheers,\nthen claps"),
        ("8", "b0RFKhbpFJA", "30", "Wind"),
        ("9", "b0RFKhbpFJA", "30", "It is windy"),
        ("10", "_-xyz", "0", "Rain"),
    ]
    names = ("audiocap_id", "youtube_id", "start_time", "caption")
    corpus = open_captions(table(tmp_path / "val.csv", *(dict(zip(names, values, strict=True)) for values in rows)))
    clips = read_all(corpus)
    assert [clip.text for clip in clips.values()] == [caption for *_, caption in rows]
    assert list(clips) == ["7", "8", "9", "10"] and clips["8"].split == clips["9"].split
    assert [entry.where.rpartition(":")[2] for entry in corpus.entries] == ["2", "4", "5", "6"]


def test_musiccaps_gives_aspects_as_labels(tmp_path):
    sound(tmp_path / "-0Gj8-vB1q4_30.wav")
    names = {"ytid": "-0Gj8-vB1q4", "start_s": "30", "end_s": "40", "audioset_positive_labels": "/m/0140xf"}
    aspects = "['low quality', \"can't tell\", 'strings']"
    path = table(tmp_path / "musiccaps.csv", {**names, "aspect_list": aspects, "caption": "A ballad."})
    clip = read_all(open_captions(path))["-0Gj8-vB1q4"]
    assert (clip.text, clip.labels) == ("A ballad.", ("low quality", "can't tell", "strings"))


def test_wavcaps_is_found_by_its_ids_also_where_its_paths_are_not_there(tmp_path):
    for name in ("Yx7a.flac", "audio/180913.wav", "clips/9.wav"):
        sound(tmp_path / name)
    rows = [
        {"id": "Yx7a.wav", "caption": "A dog barks.", "duration": 10.0},
        {"id": 180913, "caption": "Rain.", "audio": "wav_path", "tags": ["rain", "calm"]},
        {"id": "9", "caption": "Bells.", "audio": "clips/9.wav", "tags": ""},
    ]
    (tmp_path / "as.json").write_text(json.dumps({"num_captions_per_audio": 1, "data": rows}, indent=1))
    clips = read_all(open_captions(tmp_path / "as.json"))
    assert [(clip.id, clip.text, clip.labels) for clip in clips.values()] == [
        ("Yx7a.wav", "A dog barks.", None),
        ("180913", "Rain.", ("rain", "calm")),
        ("9", "Bells.", None),
    ]


@pytest.mark.parametrize(
    ("path_key", "caption_key", "labels", "wanted"),
    [
        ("path", "caption", "rain; heavy rain", ("rain", "heavy rain")),
        ("audio", "text", "rain, wind", ("rain", "wind")),
        ("audio_filepath", "caption", ["rain"], ("rain",)),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "json"])
def test_general_captions_are_read_by_their_paths(tmp_path, ending, path_key, caption_key, labels, wanted):
    made = sound(tmp_path / "x" / "a.wav")
    fields = {path_key: "x/a.wav", caption_key: " Water falls. ", "labels": labels, "other": 7}
    path = tmp_path / f"captions.{ending}"
    if ending == "csv":
        table(path, fields)
    else:
        lines(path, fields if ending == "jsonl" else f"[{json.dumps(fields)}]")
    clip = read_all(open_captions(path))["x/a.wav"]
    assert (clip.text, clip.labels) == ("Water falls.", wanted)
    np.testing.assert_array_equal(clip.audio, made.astype(np.float32))


def test_an_empty_caption_and_a_row_without_its_audio_are_refused_when_they_are_read(tmp_path):
    sound(tmp_path / "audio" / "a.wav")
    path = lines(
        tmp_path / "c.jsonl",
        {"id": "a", "caption": "Rain."},
        {"id": "b", "caption": "Wind."},
        {"path": "audio/a.wav", "caption": " "},
        {"id": "c", "caption": None},
    )
    corpus = open_captions(path)
    assert read_one(corpus).text == "Rain."
    with refused(f"{path}:2: {tmp_path / 'audio' / 'b.wav'}: got no file"):
        read_one(corpus, 1)
    for number in (2, 3):
        with refused(f"{path}:{number + 1}: got an empty caption"):
            read_one(corpus, number)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "path,caption\na.wav,Rain\nb.wav,Rain, wind\n", "c.csv:3: got 3 cells, wanted 2 (path, caption)"),
        ("c.csv", 'path,caption\na.wav,"Rain"s\n', "c.csv:2: got a row that is not CSV"),
        ("c.csv", "path,captions\na.wav,Rain\n", "c.csv:2: got the keys path, captions, wanted also caption; did you"),
        ("c.csv", "caption\nRain\n", "c.csv:2: got the keys caption, wanted also one of path"),
        ("c.csv", "path,caption\na.wav,Rain\na.wav,Wind\n", "c.csv:3: got id 'a.wav' a second time"),
        ("c.csv", "ytid,start_s,caption\nx,soon,Rain\n", "c.csv:2: got start_s = 'soon', wanted seconds"),
        ("c.csv", "path,caption,labels\na.wav,Rain,[1\n", "c.csv:2: got labels = '[1', wanted a list of strings"),
        ("c.csv", "path,caption\n,Rain\n", "c.csv:2: got path = '', wanted a string"),
        ("c.csv", "path,caption\n", "got no clip"),
        (
            "c.jsonl",
            '{"path": "a.wav", "caption": "x"}\n{"path"\n',
            "c.jsonl:2: got '{\"path\"', wanted one JSON object",
        ),
        ("c.jsonl", '{"path": "a.wav", "caption": ["x"]}\n', "c.jsonl:1: got caption = ['x'], wanted a string"),
        ("c.json", '[\n{"path": "a.wav",}]', "c.json: got text that is not JSON"),
        ("c.json", "[" * 100_003, "c.json: got text that is not JSON"),
        ("c.csv", "path;caption\na.wav;Rain\n", "c.csv:1: got the keys 'path;caption', wanted commas between them"),
        ("c.json", '{"rows": []}', "c.json: got no list of rows"),
        ("c.json", "[7]", "c.json: row 1: got 7, wanted an object"),
        ("c.txt", "", "got a file of captions .txt, wanted one of .csv, .jsonl, .json"),
    ],
)
def test_a_bad_row_of_captions_is_refused_on_opening_with_its_number(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with refused(message):
        open_captions(tmp_path / name)


def test_captions_that_are_not_utf_8_are_refused_with_their_line(tmp_path):
    (tmp_path / "c.csv").write_bytes(b"path,caption\na.wav,Rain\nb.wav,Gr\xfc\xdfe\n")
    with refused("c.csv:3: got bytes that are not UTF-8"):
        open_captions(tmp_path / "c.csv")


# Lhotse and NeMo.


def recording(path: str, **changes) -> dict:
    source = {"type": "file", "channels": [0, 1], "source": path}
    return {
        "id": "r1",
        "sources": [source],
        "sampling_rate": RATE,
        "num_samples": 16007,
        "duration": 1.0004375,
        **changes,
    }


def cut(**changes) -> dict:
    supervision = {
        "id": "s",
        "recording_id": "r1",
        "start": 0.0,
        "duration": 0.25,
        "channel": 0,
        "text": "Hello.",
        "speaker": "ivy",
        "language": "en-us",
        "gender": "F",
    }
    return {
        "id": "u1",
        "start": 0.25,
        "duration": 0.25,
        "channel": 1,
        "supervisions": [supervision],
        "recording": recording("one.wav"),
        "type": "MonoCut",
        **changes,
    }


def test_lhotse_cuts_are_cut_at_their_samples(tmp_path):
    sound(tmp_path / "one.wav", samples=16007, channels=2)
    both = soundfile.read(tmp_path / "one.wav")[0].astype(np.float32)
    resampled = recording("one.wav", transforms=[{"name": "Resample", "kwargs": {}}])
    rows = [cut(), cut(id="u2", channel=0, start=0.5, duration=0.125, supervisions=[], recording=resampled)]
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(fields) + "\n" for fields in rows)
    clips = read_all(open_manifest(tmp_path / "cuts.jsonl.gz"))
    np.testing.assert_array_equal(clips["u1"].audio, both[4000:8000, 1])
    np.testing.assert_array_equal(clips["u2"].audio, both[8000:10000, 0])
    assert (clips["u1"].text, clips["u1"].speaker, clips["u1"].language) == ("Hello.", "ivy", "en-us")
    assert clips["u2"].text is None and {clip.split for clip in clips.values()} == {"train", "heldout"}


@pytest.mark.parametrize("named", ["recordings.jsonl", "libri_recordings_dev.jsonl.gz"])
def test_lhotse_supervisions_are_cut_from_the_recordings_beside_them(tmp_path, named):
    made = sound(tmp_path / "one.wav", samples=16007)
    one_channel = [{"type": "file", "channels": [0], "source": str(tmp_path / "one.wav")}]
    spoken = {"id": "s1", "recording_id": "r1", "start": 0.5, "duration": 0.25, "channel": [0], "text": "Hi."}
    for name, fields in (
        (named, recording("", sources=one_channel)),
        (named.replace("recordings", "supervisions"), spoken),
    ):
        with (gzip.open if name.endswith("gz") else open)(tmp_path / name, "wt") as file:
            file.write(json.dumps(fields) + "\n")
    for place in (tmp_path, tmp_path / named):
        clip = read_all(open_manifest(place))["s1"]
        np.testing.assert_array_equal(clip.audio, made[8000:12000].astype(np.float32))
        assert clip.text == "Hi."


def test_nemo_lines_are_cut_at_their_samples(tmp_path):
    made = sound(tmp_path / "one.wav", samples=16007)
    path = lines(
        tmp_path / "nemo.json",
        {"audio_filepath": "one.wav", "duration": None, "text": "All.", "lang": "de"},
        {"audio_filepath": "one.wav", "offset": 0.25, "duration": 0.5, "text": "", "speaker": 7},
    )
    clips = read_all(open_manifest(path))
    whole, part = clips["one.wav"], clips["one.wav@0.25"]
    np.testing.assert_array_equal(whole.audio, made.astype(np.float32))
    np.testing.assert_array_equal(part.audio, made[4000:12000].astype(np.float32))
    assert (whole.text, whole.language, whole.speaker) == ("All.", "de", None)
    assert (part.text, part.language, part.speaker) == (None, None, "7")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (cut(type="MixedCut"), "got a MixedCut, wanted a MonoCut; save the audio first"),
        (cut(supervisions=[{}, {}]), "got a cut with 2 supervisions, wanted one; split it first"),
        (cut(supervisions="none"), "got supervisions = 'none', wanted a list"),
        (cut(recording=None), "got recording = None, wanted an object with sources"),
        (cut(recording=recording("x", transforms=[{"name": "Speed"}])), "with the transforms [{'name': 'Speed'}]"),
        (cut(recording=recording("x", sources=[{"type": "url", "channels": [1], "source": "x"}])), "type 'url'"),
        (cut(recording=recording("x", transforms=5)), "with the transforms 5, wanted none"),
        (cut(recording=recording("x", sources=[{"channels": None}])), "got the channels [None] of sources"),
        (cut(channel=[0, 1]), "got channel = [0, 1], wanted one channel"),
        (cut(start=-1), "got start = -1, wanted seconds from 0"),
        (cut(id=None), "got id = None, wanted a string"),
        (cut(id="u0"), "got id 'u0' a second time"),
        ({"id": "u1"}, "got the keys id, wanted also recording"),
        ("{", "got '{', wanted one JSON object"),
    ],
)
def test_a_bad_cut_is_refused_on_opening_with_its_number(tmp_path, bad, message):
    path = lines(tmp_path / "cuts.jsonl", cut(id="u0"), bad)
    with refused(message) as error:
        open_manifest(path)
    assert f"{path}:2: " in str(error.value)


def test_a_bad_line_of_nemo_or_of_supervisions_is_refused_on_opening_with_its_number(tmp_path):
    good = {"audio_filepath": "one.wav", "duration": 1.0}
    path = lines(tmp_path / "nemo.jsonl", good, {"audio_path": "one.wav"})
    with refused(f"{path}:2: got audio_filepath = None, wanted a string"):
        open_manifest(path)
    with refused(f"{lines(path, good, good)}:2: got id 'one.wav' a second time"):
        open_manifest(path)
    lines(tmp_path / "recordings.jsonl", recording("one.wav"))
    with refused("supervisions.jsonl: got no file"):
        open_manifest(tmp_path)
    path = lines(tmp_path / "supervisions.jsonl", {"id": "s1", "recording_id": "r9", "start": 0, "duration": 1})
    with refused(f"{path}:1: got the recording 'r9', wanted one of"):
        open_manifest(tmp_path)


def test_what_is_no_manifest_is_refused(tmp_path):
    with refused("got 0 files named as"):
        open_manifest(tmp_path)
    with refused("got a first line with the keys path, wanted a cut"):
        open_manifest(lines(tmp_path / "x.jsonl", {"path": "a.wav"}))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(cut()).encode())[:-9])
    with refused("cut.jsonl.gz: got a .gz file that breaks off"):
        open_manifest(tmp_path / "cut.jsonl.gz")


def test_a_manifest_part_beyond_the_end_is_refused_when_it_is_read(tmp_path):
    sound(tmp_path / "one.wav", samples=16007)
    path = lines(tmp_path / "nemo.jsonl", {"audio_filepath": "one.wav", "offset": 0.5, "duration": 1.25})
    with refused(f"{path}:1: {tmp_path / 'one.wav'}: got 1.00 s of audio, wanted 0.5 s to 1.75 s"):
        read_one(open_manifest(path))


# Which of them reads what a user names.


def test_a_format_is_named_or_told_by_what_lies_at_a_path(tmp_path):
    sound(tmp_path / "plain" / "one.wav")
    sound(tmp_path / "kaldi" / "one.wav")
    sound(tmp_path / "kaldi" / "two.wav")
    kaldi(tmp_path / "kaldi")
    sound(tmp_path / "lhotse" / "one.wav", channels=2)
    lines(tmp_path / "lhotse" / "x_recordings.jsonl", recording("one.wav"))
    lines(
        tmp_path / "lhotse" / "x_supervisions.jsonl", {"id": "s", "recording_id": "r1", "start": 0, "duration": 0.0625}
    )
    made = {
        "folder": [tmp_path / "plain", lines(tmp_path / "plain" / "list.jsonl", row(audio="one.wav"))],
        "kaldi": [tmp_path / "kaldi"],
        "captions": [
            table(tmp_path / "c.csv", {"path": "plain/one.wav", "caption": "Noise."}),
            lines(tmp_path / "c.jsonl", {"audio": "plain/one.wav", "text": "Noise."}),
            lines(tmp_path / "c.json", "[", '{"path": "plain/one.wav", "caption": "Noise."}', "]"),
        ],
        "manifest": [
            tmp_path / "lhotse",
            lines(tmp_path / "lhotse" / "cuts.jsonl", cut(start=0, duration=0.0625)),
            lines(tmp_path / "nemo.json", {"audio_filepath": "plain/one.wav", "duration": 0.0625}),
        ],
    }
    for name, places in made.items():
        for place in places:
            told, named = open_corpus(str(place)), open_corpus(f"{name}:{place}")
            assert told == named or (told.place, [*told.entries]) == (named.place, [*named.entries])
            assert all(clip.audio is not None for clip in read_all(told).values())
    lines(tmp_path / "kaldi" / "manifest.jsonl", row(audio="one.wav"))
    assert [entry.id for entry in open_corpus(str(tmp_path / "kaldi")).entries] == ["b"]


def test_an_unknown_format_and_a_path_that_does_not_exist_are_refused_with_the_nearest_names(tmp_path):
    with refused(f"got the format 'caption', wanted one of {', '.join(FORMATS)}; did you mean 'captions'?"):
        open_corpus(f"caption:{tmp_path}")
    with refused("got a path that does not exist, wanted a folder, a file or FORMAT:PLACE"):
        open_corpus(str(tmp_path / "gone"))
    with refused("got no place, wanted kaldi:PLACE"):
        open_corpus("kaldi:")
    with refused("one.mp3: got a file of unknown format"):
        open_corpus(str(lines(tmp_path / "one.mp3", "")))
