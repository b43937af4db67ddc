"""The reader of folders with a manifest of every field."""

import json

import numpy as np
import pytest

from data_pipelines.corpora import AUDIO_FIELDS, CLIP_FIELDS
from data_pipelines.corpora.folder import open_folder, write_manifest
from data_pipelines.corpora.listing import FIELDS
from tests.corpus_files import lines, read_all, read_one, refused, row, sound


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
