"""Laws of the builder: what a clip says is what its record holds, and no interruption changes a byte."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.batches import Dataset, record_streams
from data_pipelines.builder import BuilderOptions, build
from data_pipelines.corpora.opening import open_corpus
from data_pipelines.parts import PART_CLIPS
from data_pipelines.streams import Tokenizers, clip_of_conditions, recorded
from tests.small_run import finish, python, write_codec
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.sequence import MASK_CODE, from_frames, to_frames
from uniaudio_jax.tasks import KINDS, TASKS, get_task
from uniaudio_jax.vocab import CLASS_EVENTS, LANGUAGES, SAME_OR_NOT, WORD_PIECES, Vocabulary

VOCABULARY = Vocabulary(
    3, appended={"text": WORD_PIECES, "class_event": CLASS_EVENTS, "sv_bool": SAME_OR_NOT, "language": LANGUAGES}
)
WORDS = ("The fox ran.", "Two geese walked home.", "Ring the bell, please.", "It was cold.", "My aunt sold her boat.")
LABELS = (["rain"], ["wind", "rain"], ["bell"], ["siren"], ["wind"])


def write_corpus(folder: Path, clips: int, seconds: float = 0.3, speakers: int = 2, seed: int = 0) -> Path:
    """A folder of short tones with everything that a task may ask for; every fourth clip is held out."""
    rng, lines = np.random.default_rng(seed), []
    (folder / "wav").mkdir(parents=True)
    for number in range(clips):
        samples = int(16000 * seconds) + 7 * number % 101
        tone = 0.3 * np.sin(np.arange(samples) * rng.uniform(0.05, 0.3)) + rng.normal(0, 0.01, samples)
        soundfile.write(folder / f"wav/{number}.wav", tone, 16000)
        lines.append(
            {
                "id": f"clip{number}",
                "split": "heldout" if number % 4 == 0 else "train",
                "audio": f"wav/{number}.wav",
                "text": WORDS[number % 5],
                "speaker": f"s{number // 4 % speakers}",
                "instruction": "Speak slowly in a low voice.",
                "labels": LABELS[number % 5],
                "language": "en-us",
                "midi": [60 + number % 12] * (samples // 320) + [128],
            }
        )
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    return write_codec(tmp_path_factory.mktemp("codec") / "random")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "tones", 17)


def options(corpus: Path, codec: Path, out: Path, **changes) -> BuilderOptions:
    return BuilderOptions(corpus=str(corpus), task=("tts",), out=out, codec=str(codec), **changes)


def run_build(settings: BuilderOptions, task: str) -> Path:
    tokenizers = Tokenizers(load_codec(settings.codec), settings.tokenizers)
    return build(settings, task, open_corpus(settings.corpus), tokenizers)


@pytest.fixture(scope="module")
def tokenizers(codec):
    return Tokenizers(load_codec(codec))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_is_built_and_its_records_are_sequences(name, corpus, codec, tokenizers, tmp_path):
    settings = options(corpus, codec, tmp_path)
    place = build(settings, name, open_corpus(str(corpus)), tokenizers)
    task, records = get_task(name), 0
    for split in ("train", "heldout"):
        dataset = Dataset(place, split)
        records += len(dataset.index)
        for number in range(len(dataset.index)):
            record = dataset.records[number]
            streams = record_streams(record, task, VOCABULARY)
            assert streams.keys() == {stream.key for stream in recorded(task)}
            assert all(len(streams[key]) == column[number] for key, column in dataset.index.lengths.items())
            streams |= {s.key: np.zeros((2, 3), int) for s in task.streams if s not in recorded(task)}
            frames = to_frames(task, streams, VOCABULARY, 384)
            assert from_frames(frames, VOCABULARY)[0] is task
    assert records == 17
    assert (place.parent / "rejects.jsonl").read_text() == ""


def record_of(place: Path, split: str, clip: str) -> dict:
    (found,) = [record for record in Dataset(place, split).records if record["id"].decode() == clip]
    return found


def test_a_record_holds_the_tokens_of_its_clip(corpus, codec, tokenizers, tmp_path):
    settings, opened = options(corpus, codec, tmp_path), open_corpus(str(corpus))
    entry = next(entry for entry in opened.entries if entry.id == "clip6")
    clip = opened.read(entry, tokenizers.codec.config.sample_rate_hz)
    record = record_of(build(settings, "tts", opened, tokenizers), "train", "clip6")
    np.testing.assert_array_equal(record["audio"], tokenizers.codec.encode(clip.audio))
    np.testing.assert_array_equal(record["phone"], tokenizers.phone.encode(clip.text))
    assert record["speaker"].decode() == "s1" and clip.text in record["text"].decode()
    record = record_of(build(settings, "speech_edit", opened, tokenizers), "train", "clip6")
    masked = record["masked_audio"] == MASK_CODE
    assert masked.any() and not masked.all() and (masked.all(axis=1) == masked.any(axis=1)).all()
    np.testing.assert_array_equal(record["masked_audio"][~masked], record["audio"][~masked])
    record = record_of(build(settings, "speaker_verification", opened, tokenizers), "train", "clip6")
    assert record["same_speaker"].tolist() in ([0], [1])


@pytest.mark.parametrize("name", ["enhancement", "target_speech_extraction", "dereverberation"])
def test_derived_conditions_are_as_long_as_the_target_and_differ(name, corpus, codec, tokenizers, tmp_path):
    place = build(options(corpus, codec, tmp_path), name, open_corpus(str(corpus)), tokenizers)
    condition = get_task(name).conditions[0].key
    for record in Dataset(place, "train").records:
        assert record[condition].shape == record["audio"].shape
        assert (record[condition] != record["audio"]).any()


def assert_same_dataset(one: Path, other: Path) -> None:
    """The same files, the same index to the byte, and the same records in the same order. (The bytes of a record may
    differ: protobuf writes the features of an example in an order of its own in each process.)"""
    names = [sorted(path.name for path in place.iterdir()) for place in (one, other)]
    assert names[0] == names[1]
    for path in one.rglob("*.npy"):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()
    for split in ("train", "heldout"):
        pairs = zip(Dataset(one, split).records, Dataset(other, split).records, strict=True)
        for mine, yours in pairs:
            assert mine.keys() == yours.keys()
            for key in mine:
                np.testing.assert_array_equal(mine[key], yours[key])


def test_a_build_killed_at_any_moment_ends_with_the_same_dataset(codec, tmp_path):
    corpus = write_corpus(tmp_path / "many", 2 * PART_CLIPS, seconds=0.1)
    words = ("data_pipelines.builder", "--corpus", corpus, "--task", "plain_tts", "--codec", codec, "--out")
    finish(python(*words, tmp_path / "whole"))
    process = python(*words, tmp_path / "killed")
    until = time.monotonic() + 120
    while not list((tmp_path / "killed").rglob(".parts-*/*.npz")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    finish(python(*words, tmp_path / "killed"))
    whole, killed = (tmp_path / name / "plain_tts/many/1.0.0" for name in ("whole", "killed"))
    assert_same_dataset(whole, killed)
    assert not list(killed.parent.glob(".parts-*")) and not list(killed.parent.glob("incomplete*"))


def break_clips(corpus: Path) -> None:
    """Clip 1 has NaN, clip 2 is cut off, clip 3 says nothing, clip 5 has no file."""
    soundfile.write(corpus / "wav/1.wav", np.full(4000, np.nan), 16000, subtype="FLOAT")
    os.truncate(corpus / "wav/2.wav", 2000)
    (corpus / "wav/5.wav").unlink()
    lines = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    lines[3]["text"] = "?!"
    (corpus / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_bad_clips_are_left_out_and_listed_and_too_many_are_an_error(codec, tmp_path):
    corpus = write_corpus(tmp_path / "broken", 23)
    break_clips(corpus)
    settings = options(corpus, codec, tmp_path / "out")
    with pytest.raises(ValueError, match="4 of 23 clips cannot be used for tts.*rejects.jsonl.*--most-rejects"):
        run_build(settings, "tts")
    assert not list((tmp_path / "out").rglob("passport.json"))
    place = run_build(replace(settings, most_rejects=0.2), "tts")
    rejects = {
        row["id"]: row["reason"] for row in map(json.loads, (place.parent / "rejects.jsonl").read_text().splitlines())
    }
    assert sorted(rejects) == ["clip1", "clip2", "clip3", "clip5"]
    for clip, reason in (("clip1", "NaN"), ("clip2", "truncated"), ("clip3", "no phones"), ("clip5", "no file")):
        assert reason in rejects[clip]
    dataset = Dataset(place, "train")
    ids = {record["id"].decode() for split in ("train", "heldout") for record in Dataset(place, split).records}
    assert len(ids) == 19 and not ids & set(rejects) and dataset.passport["counts"]["clips refused"] == 4


def test_a_finished_dataset_is_left_alone_and_a_changed_corpus_is_built_again(codec, tmp_path, capsys):
    corpus = write_corpus(tmp_path / "tones", 9)
    settings = options(corpus, codec, tmp_path / "out")
    place = run_build(settings, "plain_tts")
    stamps = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    run_build(settings, "plain_tts")
    assert "is up to date" in capsys.readouterr().out
    assert stamps == {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    os.utime(corpus / "wav/3.wav", ns=(0, 0))
    run_build(settings, "plain_tts")
    assert "is up to date" not in capsys.readouterr().out


def test_two_corpora_of_one_name_are_refused_and_told_apart_by_name(codec, tmp_path):
    one, other = (write_corpus(tmp_path / place / "tones", 9) for place in ("here", "there"))
    place = run_build(options(one, codec, tmp_path / "out"), "plain_tts")
    with pytest.raises(ValueError, match="another corpus of this name.*--name"):
        run_build(options(other, codec, tmp_path / "out"), "plain_tts")
    assert (place / "passport.json").is_file()
    assert run_build(options(other, codec, tmp_path / "out", name="others"), "plain_tts").parent.name == "others"


def test_a_clip_without_the_field_of_a_task_is_told_so(codec, tmp_path):
    corpus = tmp_path / "plain"
    corpus.mkdir()
    for number in range(3):
        soundfile.write(corpus / f"{number}.wav", np.sin(np.arange(3000) / 9), 16000)
    with pytest.raises(ValueError, match="3 of 3 clips cannot be used for tts.*no text.*stream 'phone'"):
        run_build(options(corpus, codec, tmp_path / "out"), "tts")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "missing \\['content_audio', 'speaker_prompt'\\]"),
        ({"content_audio": np.zeros(9), "speaker_prompt": np.zeros(9), "text": "x"}, "not of this task \\['text'\\]"),
    ],
)
def test_conditions_that_do_not_fit_the_task_are_named(given, said):
    with pytest.raises(ValueError, match=said):
        clip_of_conditions(get_task("voice_conversion"), given)


@pytest.mark.slow
def test_beam_writes_the_records_of_one_machine(corpus, codec, tmp_path):
    pytest.importorskip("apache_beam")
    words = ("data_pipelines.builder", "--corpus", corpus, "--task", "enhancement", "--codec", codec, "--out")
    finish(python(*words, tmp_path / "alone"))
    finish(python(*words, tmp_path / "beam", "--runner", "DirectRunner", "--beam-options=--direct_num_workers=2"))
    for split in ("train", "heldout"):
        alone, beam = (
            {r["id"]: r for r in Dataset(tmp_path / name / "enhancement/tones/1.0.0", split).records}
            for name in ("alone", "beam")
        )
        assert set(alone) == set(beam) and alone
        for clip, record in alone.items():
            for key, value in record.items():
                np.testing.assert_array_equal(value, beam[clip][key])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clips(codec, tmp_path):
    peaks = []
    for clips in (3 * PART_CLIPS, 12 * PART_CLIPS):
        corpus = write_corpus(tmp_path / f"tones{clips}", clips)
        words = ("--corpus", corpus, "--task", "plain_tts", "--codec", codec, "--out", tmp_path / "out")
        out, _ = finish(python("tests.peak_memory", *words))
        peaks.append(int(out.splitlines()[-1]))
    assert peaks[1] < 1.1 * peaks[0]


def test_kinds_of_every_task_have_a_tokenizer(tokenizers):
    made = set(tokenizers._encoders) | {"semantic"} | {kind.name for kind in KINDS.values() if kind.form == "codes"}
    assert {stream.kind for task in TASKS.values() for stream in task.streams} <= made
