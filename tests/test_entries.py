"""How a corpus lists its clips: few bytes each, splits by hash, no id twice, and only the listed audio read."""

import json
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.corpora import Corpus, Entry, EntryTable, Segment, hash_of, hashes_of, split_of, splits_of
from data_pipelines.corpora.folder import open_folder

CLIPS = 100_003
BYTES_PER_CLIP = 250


def entries_of(ids: list[str]) -> EntryTable:
    return EntryTable(Entry(where=f"line {number}", id=name) for number, name in enumerate(ids))


def splits_by_name(keys: list[str]) -> list[str]:
    """The rule of `splits_of`, said over names."""
    splits = [split_of(key) for key in keys]
    if "heldout" not in splits and len(set(keys)) > 1:
        smallest = min(keys, key=hash_of)
        splits = ["heldout" if key == smallest else "train" for key in keys]
    return splits


@pytest.mark.slow
def test_an_opened_manifest_takes_few_bytes_of_memory_a_clip(tmp_path):
    with (tmp_path / "manifest.jsonl").open("w") as file:
        for number in range(CLIPS):
            split = "heldout" if number % 101 == 0 else "train"
            text = f"This is what clip {number} says, at some length, as a sentence of a book does."
            file.write(json.dumps({"id": f"clip-{number}", "split": split, "audio": f"{number}.wav", "text": text}))
            file.write("\n")
    tracemalloc.start()
    corpus = open_folder(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(corpus.entries) == CLIPS and peak < BYTES_PER_CLIP * CLIPS
    last = corpus.entries[-1]
    assert (last.id, last.where) == (f"clip-{CLIPS - 1}", f"{tmp_path / 'manifest.jsonl'}:{CLIPS}")
    assert corpus.numbers("heldout").tolist() == list(range(0, CLIPS, 101))
    assert len(corpus.numbers("train")) + len(corpus.numbers("heldout")) == CLIPS


def test_entries_come_back_as_they_were_listed_also_from_a_pickle_and_in_threads():
    wanted = [
        Entry(
            where=f"line {number}",
            id=f"clip {number}",
            split="heldout" if number % 5 == 0 else "train",
            audio={
                "audio": Segment(path=Path(f"a/{number}.wav"), start_seconds=0.5, seconds=number, channel=1),
                "noisy_audio": Segment(path=Path("ä.wav")),
            },
            about={"labels": ("rain", f"dog {number}"), "masked_seconds": (0.5, 1.0)},
            broken=None if number % 7 else "no words",
        )
        for number in range(101)
    ]
    table = pickle.loads(pickle.dumps(EntryTable(wanted)))
    with ThreadPoolExecutor(7) as threads:
        assert list(threads.map(table.__getitem__, range(101))) == wanted
    assert list(table) == wanted and table[3:11:2] == wanted[3:11:2] and table[-1] == wanted[-1]
    with pytest.raises(IndexError):
        table[101]


def test_an_id_that_comes_twice_is_refused_with_both_places():
    ids = [f"clip {number}" for number in range(997)]
    assert entries_of(ids).find_repeated_id() is None
    with pytest.raises(ValueError, match=r"line 997: got id 'clip 13' a second time \(first: line 13\)"):
        Corpus(place="here", entries=entries_of([*ids, "clip 13", "clip 7"]))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 13, 101, 1009])
def test_splits_by_hash_hold_out_one_key_in_20_and_never_none_of_two(count):
    keys = [f"key {number}" for number in range(count)]
    for names in (keys, keys + keys):
        splits = splits_of(hashes_of(names))
        assert splits.dtype == np.int8
        assert [("train", "heldout")[split] for split in splits] == splits_by_name(names)
    assert count < 2 or 0 < splits.sum() < len(splits)


def test_reading_reads_the_listed_audio_alone_at_the_rate_that_is_asked_for(tmp_path):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 24_001)
    soundfile.write(tmp_path / "a.wav", wave, 24_000)
    (tmp_path / "manifest.jsonl").write_text(
        json.dumps({"id": "a", "split": "train", "audio": "a.wav", "noisy_audio": "gone.wav", "text": "Hello."})
    )
    corpus = open_folder(tmp_path)
    (entry,) = corpus.entries
    with pytest.raises(ValueError, match="gone.wav: got no file"):
        corpus.read(entry, 24_000)
    clip = corpus.read(replace(entry, audio={"audio": entry.audio["audio"]}), 24_000)
    assert clip.audio is not None and len(clip.audio) == 24_001 and clip.noisy_audio is None
    assert (clip.sample_rate_hz, clip.converted) == (24_000, ())
    lower = corpus.read(replace(entry, audio={"audio": entry.audio["audio"]}), 8_000)
    assert lower.audio is not None and len(lower.audio) == 8_000
    assert (lower.sample_rate_hz, lower.converted) == (8_000, ("24000 Hz",))
    silent = corpus.read(replace(entry, audio={}), 24_000)
    assert (silent.audio, silent.text) == (None, "Hello.")
