"""The reader of caption tables: AudioCaps, MusicCaps, WavCaps and others."""

import json

import numpy as np
import pytest

from data_pipelines.corpora.captions import open_captions
from tests.corpus_files import lines, read_all, read_one, refused, sound, table


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
