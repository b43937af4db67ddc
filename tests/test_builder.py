"""Laws of the builder: what a clip says is what its record holds, and no interruption changes a byte."""

import itertools
import json
import os
import re
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines import corpora, espeak, parts
from data_pipelines.builder import BuilderOptions, build
from data_pipelines.corpora import SPLITS, read_clip
from data_pipelines.corpora.opening import open_corpus
from data_pipelines.parts import PART_CLIPS
from data_pipelines.store import Column, ColumnWriter, column_folder, present_folder, read_passport
from data_pipelines.streams import Tokenizers, clip_of_conditions
from data_pipelines.views import View
from tests.audio_damage import audio_file, with_noise
from tests.small_run import finish, python, write_codec
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.locks import hold
from uniaudio_jax.sequence import MASK_CODE, from_frames, to_frames
from uniaudio_jax.tasks import DRAWN, KINDS, TASKS, get_task
from uniaudio_jax.vocab import CLASS_EVENTS, LANGUAGES, SAME_OR_NOT, WORD_PIECES, Vocabulary

VOCABULARY = Vocabulary(
    3, appended={"text": WORD_PIECES, "class_event": CLASS_EVENTS, "sv_bool": SAME_OR_NOT, "language": LANGUAGES}
)
WORDS = ("The fox ran.", "Two geese went home 界.", "Ring the bell, please.", "It was cold.", "My aunt sold her boat.")
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


def options(corpus: Path, codec: Path, out: Path, *tasks: str, **changes) -> BuilderOptions:
    return BuilderOptions(corpus=(str(corpus),), task=tasks, out=out, codec=str(codec), **changes)


def run_build(settings: BuilderOptions) -> None:
    tokenizers = Tokenizers(load_codec(settings.codec), settings.tokenizers)
    for named in settings.corpora:
        build(settings, named, open_corpus(named.place), tokenizers)


@pytest.fixture(scope="module")
def tokenizers(codec):
    return Tokenizers(load_codec(codec))


@pytest.fixture(scope="module")
def tokens(corpus, codec, tmp_path_factory):
    """The corpus, tokenised for every task at once."""
    out = tmp_path_factory.mktemp("tokens")
    run_build(options(corpus, codec, out, *TASKS))
    return out


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_is_a_view_whose_examples_are_sequences(name, tokens):
    task, examples = get_task(name), 0
    for split in ("train", "heldout"):
        view = View(tokens, "tones", task, split)
        examples += len(view)
        for number in range(len(view)):
            streams = {stream.key: view.tokens(number, stream.key) for stream in task.columns}
            for stream in task.columns:
                assert len(streams[stream.key]) == view.index.lengths[stream.key][number]
                if KINDS[stream.kind].form == "codes":
                    streams[stream.key] = streams[stream.key][:, :3]
            streams |= {s.key: np.zeros((2, 3), int) for s in task.streams if s.source == DRAWN}
            assert from_frames(to_frames(task, streams, VOCABULARY, 384), VOCABULARY)[0] is task
    assert examples == 17


def number_of(view: View, clip: str) -> int:
    return next(number for number in range(len(view)) if view.about(number).id == clip)


def example_of(tokens: Path, task: str, clip: str) -> dict[str, np.ndarray]:
    """The streams of the training example that was made from a clip."""
    view = View(tokens, "tones", get_task(task), "train")
    number = number_of(view, clip)
    return {stream.key: view.tokens(number, stream.key) for stream in view.task.columns}


def test_a_view_holds_the_tokens_of_a_clip(corpus, tokenizers, tokens):
    opened = open_corpus(str(corpus))
    entry = next(entry for entry in opened.entries if entry.id == "clip6")
    clip = opened.read(entry, tokenizers.codec.sample_rate_hz)
    streams = example_of(tokens, "tts", "clip6")
    np.testing.assert_array_equal(streams["audio"], tokenizers.codec.encode(clip.audio))
    np.testing.assert_array_equal(streams["phone"], tokenizers.phone.encode(clip.text))
    streams = example_of(tokens, "speech_edit", "clip6")
    masked = streams["masked_audio"] == MASK_CODE
    assert masked.any() and not masked.all() and (masked.all(axis=1) == masked.any(axis=1)).all()
    np.testing.assert_array_equal(streams["masked_audio"][~masked], streams["audio"][~masked])
    assert example_of(tokens, "speaker_verification", "clip6")["same_speaker"].tolist() in ([0], [1])
    view = View(tokens, "tones", get_task("tts"), "train")
    assert str(clip.text) in view.about(number_of(view, "clip6")).text


def test_an_edit_has_columns_of_its_own(tokens):
    edit, sound = example_of(tokens, "audio_edit", "clip6"), example_of(tokens, "text_to_sound", "clip6")
    assert edit.keys() == {"edit_order", "source_audio", "edited_audio"}
    assert edit["source_audio"].shape == edit["edited_audio"].shape
    assert (edit["source_audio"] != edit["edited_audio"]).any()
    assert len(edit["edit_order"]) != len(sound["caption"]) or (edit["edit_order"] != sound["caption"]).any()


@pytest.mark.parametrize("name", ["enhancement", "target_speech_extraction", "dereverberation"])
def test_derived_conditions_are_as_long_as_the_target_and_differ(name, tokens):
    view, condition = View(tokens, "tones", get_task(name), "train"), get_task(name).conditions[0].key
    for number in range(len(view)):
        derived, target = view.tokens(number, condition), view.tokens(number, "audio")
        assert derived.shape == target.shape and (derived != target).any()


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_each_stream_is_encoded_once_and_a_later_task_reads_only_what_its_missing_streams_need(
    codec, tmp_path, monkeypatch
):
    corpus = write_corpus(tmp_path / "tones", 9)
    encoded, audio_read = [], []
    encode_batch, read_audio = Tokenizers.encode_batch, corpora.read_audio
    monkeypatch.setattr(
        Tokenizers, "encode_batch", lambda self, s, clips: encoded.append(s.key) or encode_batch(self, s, clips)
    )
    monkeypatch.setattr(
        corpora, "read_audio", lambda path, *a, **k: audio_read.append(path) or read_audio(path, *a, **k)
    )
    run_build(options(corpus, codec, tmp_path / "out", "tts", "enhancement", "speech_edit", "dereverberation"))
    assert sorted(set(encoded)) == ["audio", "noisy_audio", "reverberant_audio"] and len(encoded) == 2 * 3
    before = stamps(tmp_path / "out")
    encoded.clear()
    audio_read.clear()
    run_build(options(corpus, codec, tmp_path / "out", "plain_tts"))
    assert not encoded and not audio_read
    run_build(options(corpus, codec, tmp_path / "out", "text_to_sound", "language_recognition"))
    assert not encoded and not audio_read
    after = stamps(tmp_path / "out")
    assert before.items() <= after.items()
    assert {path.parents[0].name for path in after.keys() - before.keys()} >= {"tasks"}
    run_build(options(corpus, codec, tmp_path / "out", "semantic_to_acoustic"))
    assert set(encoded) == {"semantic"} and len(set(audio_read)) == 9


def test_a_column_is_the_same_whichever_others_are_made_beside_it(corpus, codec, tokens, tmp_path):
    for task in ("speech_edit", "enhancement"):
        run_build(options(corpus, codec, tmp_path, task))
    for key in ("audio", "noisy_audio", "masked_audio", "phone"):
        assert_same_column(column_folder(tokens, "tones", key), column_folder(tmp_path, "tones", key))


def assert_same_column(one: Path, other: Path) -> None:
    """The same files, the same index to the byte, and the same records in the same order. (The bytes of a record may
    differ: protobuf writes the features of an example in an order of its own in each process.)"""
    names = [sorted(path.name for path in folder.iterdir()) for folder in (one, other)]
    assert names[0] == names[1] and read_passport(one)["counts"] == read_passport(other)["counts"]
    for path in one.rglob("*.npy"):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()
    for split in ("train", "heldout"):
        for mine, yours in zip(Column(one, split).records, Column(other, split).records, strict=True):
            assert mine.keys() == yours.keys()
            for key in mine:
                np.testing.assert_array_equal(mine[key], yours[key])


def test_a_build_killed_at_any_moment_ends_with_the_same_columns(codec, tmp_path):
    corpus = write_corpus(tmp_path / "many", 4 * PART_CLIPS, seconds=0.1)
    words = ("data_pipelines.builder", "--corpus", corpus, "--task", "plain_tts", "--codec", codec, "--out")
    finish(python(*words, tmp_path / "whole"))
    process = python(*words, tmp_path / "killed")
    until = time.monotonic() + 120
    while not list((tmp_path / "killed").rglob("parts/*.npz")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    finish(python(*words, tmp_path / "killed"))
    for key in ("phone", "audio"):
        assert_same_column(*(column_folder(tmp_path / name, "many", key) for name in ("whole", "killed")))
    assert not list((tmp_path / "killed").rglob(".building*"))


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_a_build_that_stops_after_any_shard_goes_on_with_the_next(stop_after, codec, tokenizers, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_CLIPS", 3)
    monkeypatch.setattr(parts, "PARTS_PER_SHARD", 2)
    monkeypatch.setattr(parts, "RECORDS_PER_SHARD", 6)
    corpus = write_corpus(tmp_path / "tones", 31, seconds=0.1)
    run_build(options(corpus, codec, tmp_path / "whole", "plain_tts"))
    made, make_shard = [], parts.Worker.make_shard

    def stopping(self, *arguments):
        if len(made) == stop_after:
            raise KeyboardInterrupt
        made.append(1)
        make_shard(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(parts.Worker, "make_shard", stopping)
        run_build(options(corpus, codec, tmp_path / "parts", "plain_tts"))
    run_build(options(corpus, codec, tmp_path / "parts", "plain_tts"))
    for key in ("phone", "audio"):
        assert_same_column(*(column_folder(tmp_path / name, "tones", key) for name in ("whole", "parts")))
    assert len(Column(column_folder(tmp_path / "whole", "tones", "audio"), "train")) == 23
    noted = {"characters not spoken": 6, "clips with characters not spoken": 6}
    assert noted.items() <= read_passport(column_folder(tmp_path / "parts", "tones", "phone"))["counts"].items()


def change_rows(corpus: Path, **fields: dict[int, object]) -> None:
    """Sets fields of the lines of a manifest, by the numbers of the lines."""
    rows = list(map(json.loads, (corpus / "manifest.jsonl").read_text().splitlines()))
    for name, values in fields.items():
        for number, value in values.items():
            rows[number][name] = value
    (corpus / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_what_tokenizers_leave_out_is_said_counted_and_refused_beyond_its_share(codec, tmp_path, capsys):
    corpus, out = write_corpus(tmp_path / "noted", 11), tmp_path / "out"
    change_rows(corpus, text={2: "Hello 世界", 3: "word " * 101, 5: "♪ la ♪"})
    run_build(options(corpus, codec, out, "plain_tts", "text_to_sound", most_rejects=0.1))
    said = capsys.readouterr().out
    assert ", 4 characters not spoken, 3 clips with characters not spoken" in said
    assert ", 1 text cut to 100 tokens" in said
    counts = {key: read_passport(column_folder(out, "noted", key))["counts"] for key in ("phone", "caption", "audio")}
    train, heldout = {"clips train": 7, "clips refused": 1}, {"clips heldout": 3}
    noted = {"characters not spoken": 4, "clips with characters not spoken": 3}
    assert counts["phone"] == train | heldout | noted
    assert counts["caption"] == {"clips train": 8, "texts cut to 100 tokens": 1} | heldout
    assert counts["audio"] == {"clips train": 8} | heldout
    (reject,) = (column_folder(out, "noted", "phone").parent / "rejects.jsonl").read_text().splitlines()
    assert "2 of 7 letters in language 'en-us' (世 界)" in json.loads(reject)["reason"]


def test_a_language_is_the_same_however_its_corpus_writes_it(codec, tokenizers, tmp_path):
    corpus, out = write_corpus(tmp_path / "languages", 7), tmp_path / "out"
    change_rows(corpus, language=dict(enumerate(("German", "de_DE", "Deutsch", "ger", "DE", "tlh", "de"))))
    run_build(options(corpus, codec, out, "plain_tts", "language_recognition", most_rejects=0.2))
    view = View(out, "languages", get_task("plain_tts"), "train")
    for number in range(len(view)):
        wanted = tokenizers.phone.encode(WORDS[int(view.about(number).id[4:]) % 5], "de")
        np.testing.assert_array_equal(view.tokens(number, "phone"), wanted)
    assert len(view) == 4
    languages = Column(column_folder(out, "languages", "language"), "train").records
    assert [record["tokens"].tolist() for record in languages] == [tokenizers.languages.encode("de").tolist()] * 4
    (reject,) = (column_folder(out, "languages", "phone").parent / "rejects.jsonl").read_text().splitlines()
    assert "clip 'clip5': got language 'tlh', wanted one that espeak-ng speaks" in reject
    assert len(View(out, "languages", get_task("plain_tts"), "heldout")) == 2


def test_conditions_are_read_as_clips_are_and_what_is_left_out_of_them_is_warned_of(tokenizers):
    task = get_task("plain_tts")
    given = {"text": "Zwei Gänse gingen nach Hause 界.", "language": "German"}
    with pytest.warns(UserWarning, match="task plain_tts: 1 characters not spoken"):
        streams = tokenizers.streams(task, clip_of_conditions(task, given, 16000))
    np.testing.assert_array_equal(streams["phone"], tokenizers.phone.encode("Zwei Gänse gingen nach Hause .", "de"))
    with pytest.raises(ValueError, match="got language 'Germn', wanted one .*did you mean 'german'"):
        tokenizers.streams(task, clip_of_conditions(task, given | {"language": "Germn"}, 16000))


def test_a_pace_gives_each_phone_the_frames_that_espeak_speaks_it_for(tokenizers):
    task, given = get_task("plain_tts"), {"text": "A quiet morning."}
    ids = {
        pace: tokenizers.streams(task, clip_of_conditions(task, given | {"words_per_minute": pace}, 16000))["phone"]
        for pace in (110, 220)
    }
    speech = espeak.speak_with_phones(given["text"], "en-us", words_per_minute=110)
    assert len(ids[110]) == round(50 * len(speech.samples) / speech.sample_rate_hz) > 1.4 * len(ids[220])
    decoded = [tokenizers.phone.decode(each) for each in ids.values()]
    heard = ["".join(symbol for symbol, _ in itertools.groupby(symbols)).strip("|") for symbols in decoded]
    assert heard[0] == heard[1] and heard[0].startswith("ɐkwaɪət")
    with pytest.raises(ValueError, match="got words_per_minute=500, wanted 80 to 450"):
        clip_of_conditions(task, given | {"words_per_minute": 500}, 16000)
    with pytest.raises(ValueError, match=r"not of this task \['words_per_minute'\]"):
        clip_of_conditions(get_task("text_to_sound"), given | {"words_per_minute": 150}, 16000)


def test_a_text_that_crashes_espeak_costs_one_clip(codec, tmp_path, capfd):
    corpus, out = write_corpus(tmp_path / "crash", 11), tmp_path / "out"
    change_rows(corpus, text={3: "s'" * 71})
    run_build(options(corpus, codec, out, "plain_tts", most_rejects=0.1))
    (reject,) = (column_folder(out, "crash", "phone").parent / "rejects.jsonl").read_text().splitlines()
    assert json.loads(reject)["id"] == "clip3" and "at which its engine crashes" in reject


def write_flat(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.sin(np.arange(3001) / 9), 16000)
        path.with_suffix(".txt").write_text("Hello.")
    return folder


def test_a_corpus_without_two_clips_of_any_speaker_is_refused_for_speaker_prompts(codec, tmp_path, capsys):
    corpus, out = write_flat(tmp_path / "flat", "a", "b", "c"), tmp_path / "out"
    with pytest.raises(ValueError, match="2 of 2 train clips are the only one of their speaker, .*folder or by a key"):
        run_build(options(corpus, codec, out, "tts"))
    assert not list(out.rglob("tts.json"))
    run_build(options(corpus, codec, out, "plain_tts"))
    assert "the only one" not in (capsys.readouterr().out)
    corpus = write_flat(tmp_path / "some", "train/ivy/a", "train/ivy/b", "train/leo/c", "train/d", "test/ivy/e")
    run_build(options(corpus, codec, out, "tts"))
    said = capsys.readouterr().out
    assert "tts/some: 2 of 4 train clips are the only one of their speaker, and are left out" in said
    assert "tts/some: 1 of 1 heldout clips are the only one of their speaker, and are left out" in said
    assert "tts: 2 train, 0 heldout clips of phone + audio" in said and "1 clip heldout" in said


def break_clips(corpus: Path) -> None:
    """Clip 1 has NaN, clip 2 is cut off, clip 3 says nothing, clip 5 has no file."""
    soundfile.write(corpus / "wav/1.wav", np.full(4000, np.nan), 16000, subtype="FLOAT")
    os.truncate(corpus / "wav/2.wav", 2000)
    (corpus / "wav/5.wav").unlink()
    change_rows(corpus, text={3: "?!"})


def test_bad_clips_are_rejected_by_the_streams_that_need_them_and_too_many_are_an_error(codec, tmp_path):
    corpus, out = write_corpus(tmp_path / "broken", 23), tmp_path / "out"
    break_clips(corpus)
    with pytest.raises(ValueError, match="3 of 23 clips cannot be used for audio.*rejects.jsonl.*--most-rejects"):
        run_build(options(corpus, codec, out, "tts"))
    assert {path.parents[1].name for path in out.rglob("passport.json")} == set()
    run_build(options(corpus, codec, out, "tts", most_rejects=0.2))
    rejects = {}
    for key in ("phone", "audio"):
        lines = (column_folder(out, "broken", key).parent / "rejects.jsonl").read_text().splitlines()
        rejects[key] = {row["id"]: row["reason"] for row in map(json.loads, lines)}
    assert sorted(rejects["audio"]) == ["clip1", "clip2", "clip5"] and sorted(rejects["phone"]) == ["clip3"]
    reasons = rejects["audio"] | rejects["phone"]
    for clip, reason in (("clip1", "NaN"), ("clip2", "truncated"), ("clip3", "no phones"), ("clip5", "no file")):
        assert reason in reasons[clip]
    ids = set()
    for split in ("train", "heldout"):
        view = View(out, "broken", get_task("tts"), split)
        for number in range(len(view)):
            ids.add(view.about(number).id)
            text = open_corpus(str(corpus)).entries[int(view.about(number).id[4:])].about["text"]
            phones = Tokenizers(load_codec(codec)).phone.encode(text)
            np.testing.assert_array_equal(view.tokens(number, "phone"), phones)
    assert len(ids) == 19 and not ids & set(reasons)
    assert read_passport(column_folder(out, "broken", "audio"))["counts"]["clips refused"] == 3


def rejected(out: Path, corpus: str, column: str) -> dict[str, str]:
    """Id → reason, of a column's rejects."""
    text = (column_folder(out, corpus, column).parent / "rejects.jsonl").read_text(encoding="utf-8")
    return {row["id"]: row["reason"] for row in map(json.loads, text.splitlines())}


def change_lines(corpus: Path, changes: dict[int, dict]) -> None:
    """Changes fields in these lines of a manifest."""
    lines = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    for number, fields in changes.items():
        lines[number] |= fields
    (corpus / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_whatever_one_clip_does_costs_that_clip_alone(codec, tmp_path):
    corpus, out = write_corpus(tmp_path / "broken", 23), tmp_path / "out"
    with_noise(audio_file(corpus / "wav/noise.flac"))
    changes = {
        1: {"audio": "wav/noise.flac"},
        2: {"audio": f"wav/{'n' * 300}.wav"},
        3: {"text": "Half a pair: \ud800."},
        5: {"id": "clip\udce95"},
        6: {"speaker": "\udfff"},
        7: {"masked_seconds": [0.1, 5.0]},
        9: {"masked_seconds": [1e300, 1e308]},
    }
    change_lines(corpus, changes)
    with pytest.raises(ValueError, match="(?s)7 of 23 clips cannot be used for masked_audio.*--most-rejects"):
        run_build(options(corpus, codec, out, "speech_edit"))
    run_build(options(corpus, codec, out, "speech_edit", most_rejects=0.4))
    text = ("clip3", "clip\\udce95", "clip6")
    assert sorted(rejected(out, "broken", "phone")) == sorted(text)
    assert sorted(rejected(out, "broken", "audio")) == sorted(("clip1", "clip2", *text))
    reasons = rejected(out, "broken", "masked_audio")
    assert sorted(reasons) == sorted(("clip1", "clip2", *text, "clip7", "clip9"))
    for clip, reason in (
        ("clip1", "of 130003 samples and then 'Error : flac decoder lost sync.'"),
        ("clip2", "got no file"),
        ("clip3", "got text = 'Half a pair: \\ud800."),
        ("clip\\udce95", "got id = 'clip\\udce95'"),
        ("clip6", "got speaker = '\\udfff'"),
        ("clip7", "got masked_seconds (0.1, 5.0)"),
        ("clip9", "OverflowError at "),
    ):
        assert reason in reasons[clip]
    views = [View(out, "broken", get_task("speech_edit"), split) for split in SPLITS]
    ids = {view.about(number).id for view in views for number in range(len(view))}
    assert ids == {f"clip{number}" for number in range(23)} - {"clip5", *reasons}


def test_an_error_that_nobody_foresaw_is_named_and_costs_one_clip(codec, tmp_path, monkeypatch):
    corpus, out = write_corpus(tmp_path / "tones", 23), tmp_path / "out"
    audio, phone, most = Tokenizers.encode_batch, Tokenizers.encode_clip, []

    def batch(self, stream, clips):
        most.append(len(clips))
        if any(clip.id in ("clip6", "clip13") for clip in clips):
            raise ZeroDivisionError("of this clip")
        return audio(self, stream, clips)

    def single(self, stream, clip, notes):
        if clip.id == "clip7":
            raise KeyError("a tokenizer's own")
        return phone(self, stream, clip, notes)

    monkeypatch.setattr(Tokenizers, "encode_batch", batch)
    monkeypatch.setattr(Tokenizers, "encode_clip", single)
    run_build(options(corpus, codec, out, "plain_tts", most_rejects=0.2))
    assert list(rejected(out, "tones", "phone")) == ["clip7"]
    reasons = rejected(out, "tones", "audio")
    assert sorted(reasons) == ["clip13", "clip6", "clip7"]
    assert re.fullmatch(r"ZeroDivisionError at .*test_builder.py:\d+: of this clip", reasons["clip6"])
    assert re.fullmatch(r"KeyError at .*test_builder.py:\d+: \"a tokenizer's own\"", reasons["clip7"])
    assert max(most) == 16
    view, codec = View(out, "tones", get_task("plain_tts"), "train"), load_codec(codec)
    assert len(view) == 14
    entries = open_corpus(str(corpus)).entries
    for number in range(len(view)):
        clip = read_clip(entries[int(view.about(number).id[4:])], codec.sample_rate_hz)
        assert clip.audio is not None
        np.testing.assert_array_equal(view.tokens(number, "audio"), codec.encode(clip.audio))


def test_a_broken_sound_costs_a_line(codec, tmp_path, capsys):
    corpus, sounds = write_corpus(tmp_path / "tones", 23), write_corpus(tmp_path / "sounds", 9, seed=1)
    with_noise(audio_file(sounds / "wav/1.flac"))
    change_lines(sounds, {1: {"audio": "wav/1.flac"}})
    run_build(options(corpus, codec, tmp_path / "out", "enhancement", sounds=str(sounds)))
    assert rejected(tmp_path / "out", "tones", "noisy_audio") == {}
    told = [line for line in capsys.readouterr().err.splitlines() if "not mixed in: " in line]
    assert len(told) == 1 and re.search(r"1.flac: got \d+ of 130003 samples", told[0])


def test_a_file_of_another_coding_in_its_name_is_rejected_and_the_others_are_built(codec, tmp_path):
    corpus = tmp_path / "plain"
    for number in range(5):
        audio_file(corpus / f"{number}.wav", samples=4001)
    (corpus / "4.wav").rename(os.fsdecode(os.fsencode(corpus) + b"/caf\xe9.wav"))
    run_build(options(corpus, codec, tmp_path / "out", "semantic_to_acoustic", most_rejects=0.3))
    assert list(rejected(tmp_path / "out", "plain", "audio")) == ["caf\\udce9"]


def test_a_speaker_prompt_of_a_joined_view_is_of_the_same_speaker(codec, tmp_path):
    corpus, out = write_corpus(tmp_path / "broken", 41, speakers=3), tmp_path / "out"
    break_clips(corpus)
    run_build(options(corpus, codec, out, "tts", most_rejects=0.2))
    view = View(out, "broken", get_task("tts"), "train")
    speakers = {entry.id: entry.about["speaker"] for entry in open_corpus(str(corpus)).entries}
    names = [speakers[view.about(number).id] for number in range(len(view))]
    grouped = view.index.speakers
    for speaker in range(len(grouped.starts) - 1):
        members = grouped.by_speaker[grouped.starts[speaker] : grouped.starts[speaker + 1]]
        assert len({names[member] for member in members}) == 1
    assert len(grouped.starts) - 1 == len(set(names)) == 3


def test_a_finished_column_is_left_alone_and_a_changed_corpus_is_built_again(codec, tmp_path, capsys):
    corpus = write_corpus(tmp_path / "tones", 9)
    settings = options(corpus, codec, tmp_path / "out", "plain_tts")
    run_build(settings)
    before = stamps(column_folder(tmp_path / "out", "tones", "audio"))
    run_build(settings)
    assert "audio: " in (said := capsys.readouterr().out) and "is up to date" in said
    assert before == stamps(column_folder(tmp_path / "out", "tones", "audio"))
    os.utime(corpus / "wav/3.wav", ns=(0, 0))
    run_build(settings)
    assert "is up to date" not in capsys.readouterr().out
    changed = read_passport(column_folder(tmp_path / "out", "tones", "audio"))["corpus_sha256"]
    assert changed == read_passport(column_folder(tmp_path / "out", "tones", "phone"))["corpus_sha256"]


def test_licence_source_and_the_way_to_a_corpus_are_noted_without_making_a_column_again(
    codec, tmp_path, capsys, monkeypatch
):
    corpus, out = write_corpus(tmp_path / "tones", 9), tmp_path / "out"
    run_build(options(corpus, codec, out, "lm", licence="CC0"))
    place = column_folder(out, "tones", "words")
    records = {path: stamp for path, stamp in stamps(place).items() if path.name != "passport.json"}
    monkeypatch.chdir(tmp_path)
    run_build(options(Path("tones"), codec, out, "lm"))
    corpus.rename(tmp_path / "moved")
    run_build(options(tmp_path / "moved", codec, out, "lm", source="a tape", name="tones"))
    assert "made again" not in capsys.readouterr().out
    noted = {"licence": "CC0", "source": "a tape", "corpus_place": str(tmp_path / "moved")}
    assert noted.items() <= read_passport(place).items() and records.items() <= stamps(place).items()
    os.utime("moved/wav/3.wav", ns=(0, 0))
    run_build(options(tmp_path / "moved", codec, out, "lm", name="tones"))
    assert "made again, since it was made with another corpus_sha256\n" in capsys.readouterr().out
    assert noted.items() <= read_passport(place).items()


@pytest.mark.parametrize(("room", "file"), [(1009, "parts/train-000000.npz"), (16_001, "words-train.array_record")])
def test_a_file_that_finds_no_room_is_told_and_made_by_the_next_run(room, file, codec, tmp_path, monkeypatch):
    corpus, out = write_corpus(tmp_path / "tones", 331, seconds=0.1), tmp_path / "out"
    settings = options(corpus, codec, out, "lm")
    monkeypatch.setattr(parts, "PART_CLIPS", 7)
    listed, tokenizers = open_corpus(str(corpus)), Tokenizers(load_codec(codec))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match=f"{file}.*File too large.*make room on the disk and run"):
            build(settings, settings.corpora[0], listed, tokenizers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    run_build(settings)
    assert len(Column(column_folder(out, "tones", "words"), "train")) == 248


def test_a_shard_or_an_index_that_was_overwritten_is_told_with_its_place(codec, tmp_path):
    out = tmp_path / "out"
    run_build(options(write_corpus(tmp_path / "tones", 9), codec, out, "lm"))
    place = column_folder(out, "tones", "words")
    (shard,) = place.glob("*train.array_record*")
    shard.write_bytes(np.random.default_rng(0).bytes(shard.stat().st_size))
    with pytest.raises(ValueError, match=f"{place}: got .*copy it again, or delete the folder"):
        View(out, "tones", get_task("lm"), "train").about(3)
    for size in (0, 131):
        os.truncate(place / "index/heldout/clips.npy", size)
        with pytest.raises(ValueError, match=r"heldout/clips.npy: got an array that cannot be read .*copy it again"):
            View(out, "tones", get_task("lm"), "heldout")


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_column_is_found_whole_wherever_its_replacement_is_cut_off(renames, codec, tmp_path, monkeypatch):
    """The first rename puts the old column aside, the second the new one in its place."""
    corpus, out = write_corpus(tmp_path / "tones", 9), tmp_path / "out"
    settings, place = options(corpus, codec, out, "lm"), column_folder(out, "tones", "words")
    run_build(settings)
    old, rename, done = read_passport(place), Path.rename, []
    os.utime(corpus / "wav/3.wav", ns=(0, 0))

    def rename_or_stop(self, target):
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(rename(self, target))
        if renames == 2 == len(done):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", rename_or_stop)
        run_build(settings)
    found = read_passport(present_folder(place))
    assert (found["corpus_sha256"] != old["corpus_sha256"]) == (renames == 2)
    assert len(View(out, "tones", get_task("lm"), "train")) == 6
    run_build(settings)
    assert read_passport(place)["corpus_sha256"] != old["corpus_sha256"]
    aside = [".replaced-1.0.0"] if renames == 2 else []  # until the column is replaced once more
    assert sorted(path.name for path in place.parent.iterdir()) == [".lock", *aside, "1.0.0", "rejects.jsonl"]


def test_a_second_build_of_a_column_is_refused_and_the_parts_of_the_first_stay(codec, tmp_path):
    corpus, out = write_corpus(tmp_path / "tones", 9), tmp_path / "out"
    column = column_folder(out, "tones", "audio").parent
    part = ColumnWriter(column / "1.0.0", {"corpus_sha256": "of another state"}, {}, None).part_path("train", 0)
    part.parent.mkdir(parents=True)
    part.write_text("half")
    with hold(column, ""), pytest.raises(ValueError, match=f"audio: in use by process {os.getpid()} .*run this again"):
        run_build(options(corpus, codec, out, "plain_tts"))
    assert part.read_text() == "half" and not (column / "1.0.0").exists()
    run_build(options(corpus, codec, out, "plain_tts"))
    assert not part.exists() and len(Column(column / "1.0.0", "train")) == 6


def test_columns_of_different_states_of_a_corpus_are_not_joined(codec, tmp_path):
    corpus, out = write_corpus(tmp_path / "tones", 9), tmp_path / "out"
    run_build(options(corpus, codec, out, "plain_tts"))
    os.utime(corpus / "wav/3.wav", ns=(0, 0))
    run_build(options(corpus, codec, out, "lm"))
    run_build(options(corpus, codec, out, "language_recognition"))
    with pytest.raises(ValueError, match="phone.*corpus_sha256|corpus_sha256.*phone"):
        View(out, "tones", get_task("plain_tts"), "train")


def test_several_corpora_are_built_in_one_run_each_for_its_tasks(codec, tmp_path):
    one, other = (write_corpus(tmp_path / name, 9) for name in ("here", "there"))
    settings = BuilderOptions(
        corpus=(str(one), str(other)), task=("plain_tts", "there:lm"), out=tmp_path / "out", codec=str(codec)
    )
    run_build(settings)
    noted = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("tasks/*.json"))
    assert noted == ["here/tasks/plain_tts.json", "there/tasks/lm.json", "there/tasks/plain_tts.json"]


@pytest.mark.parametrize(
    ("corpora", "changes", "message"),
    [
        (("a/here", "b/there"), {"task": ("their:lm",)}, "got 'their:lm'.*here, there; did you mean 'there'"),
        (("a/here", "b/here"), {}, r"several corpora named \['here'\]"),
        (("a/here", "b/there"), {"name": "mine"}, "one name for 2 corpora"),
        (("a/here",), {"task": ("ttss",)}, "did you mean 'tts'"),
    ],
)
def test_corpora_and_tasks_that_do_not_fit_are_refused_before_anything_is_built(corpora, changes, message):
    with pytest.raises(ValueError, match=message):
        BuilderOptions(**{"corpus": corpora, "task": ("lm",), "out": Path("x")} | changes)


def test_two_corpora_of_one_name_are_refused_and_told_apart_by_name(codec, tmp_path):
    one, other = (write_corpus(tmp_path / folder / "tones", 9) for folder in ("here", "there"))
    run_build(options(one, codec, tmp_path / "out", "plain_tts"))
    with pytest.raises(ValueError, match="another corpus of this name.*--name"):
        run_build(options(other, codec, tmp_path / "out", "plain_tts"))
    run_build(options(other, codec, tmp_path / "out", "plain_tts", name="others"))
    for name in ("tones", "others"):
        assert len(View(tmp_path / "out", name, get_task("plain_tts"), "train")) == 6


def test_a_clip_without_the_field_of_a_task_is_told_so(codec, tmp_path):
    corpus = tmp_path / "plain"
    corpus.mkdir()
    for number in range(3):
        soundfile.write(corpus / f"{number}.wav", np.sin(np.arange(3000) / 9), 16000)
    with pytest.raises(ValueError, match="3 of 3 clips cannot be used for phone.*no text.*stream 'phone'"):
        run_build(options(corpus, codec, tmp_path / "out", "tts"))
    assert not list(tmp_path.rglob(".building*"))  # it is told before any audio is encoded


def test_a_split_of_which_no_clip_can_be_used_is_told_and_no_column_is_made_of_it(codec, tmp_path):
    corpus, out = write_corpus(tmp_path / "tones", 11), tmp_path / "out"
    change_rows(corpus, text={0: "?!", 4: "?!", 8: "Gone."})
    (corpus / "wav/8.wav").unlink()
    for _ in range(2):
        with pytest.raises(ValueError, match="plain_tts/tones: got no heldout clip that is in all of phone, audio"):
            run_build(options(corpus, codec, out, "plain_tts", most_rejects=0.3))
    change_rows(corpus, text={8: "?!"})
    for _ in range(2):
        with pytest.raises(ValueError, match="none of the 3 heldout clips can be used for phone .*rejects.jsonl; mend"):
            run_build(options(corpus, codec, out, "plain_tts", most_rejects=0.3, name="again"))
    assert not list(out.rglob("again/phone/1.0.0")) and not list(out.rglob("tasks/*"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "missing \\['content_audio', 'speaker_prompt'\\]"),
        ({"content_audio": np.zeros(9), "speaker_prompt": np.zeros(9), "text": "x"}, "not of this task \\['text'\\]"),
    ],
)
def test_conditions_that_do_not_fit_the_task_are_named(given, said):
    with pytest.raises(ValueError, match=said):
        clip_of_conditions(get_task("voice_conversion"), given, 16000)


@pytest.mark.slow
def test_beam_makes_the_columns_of_one_machine(corpus, codec, tmp_path):
    pytest.importorskip("apache_beam")
    words = ("data_pipelines.builder", "--corpus", corpus, "--task", "enhancement", "--codec", codec, "--out")
    finish(python(*words, tmp_path / "alone"))
    finish(python(*words, tmp_path / "beam", "--runner", "DirectRunner", "--beam-options=--direct_num_workers=2"))
    for key in ("noisy_audio", "audio"):
        assert_same_column(*(column_folder(tmp_path / name, "tones", key) for name in ("alone", "beam")))


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


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", ".x"])
def test_the_name_of_a_corpus_is_one_folder_below_the_tokens(name, corpus, codec, tmp_path):
    with pytest.raises(ValueError, match="--name: got .*, wanted the plain name of a folder"):
        options(corpus, codec, tmp_path, "tts", name=name)


def test_a_corpus_in_a_hidden_folder_needs_a_name(codec, tmp_path):
    place = write_corpus(tmp_path / ".tones", 2)
    with pytest.raises(ValueError, match="give one, such as 'tones'"):
        options(place, codec, tmp_path, "tts")
    assert options(place, codec, tmp_path, "tts", name="tones").corpora[0].name == "tones"
