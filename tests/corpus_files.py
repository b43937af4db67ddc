"""Files of small corpora, and the clips that readers make of them; shared by the tests of the readers."""

import csv
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.corpora import Clip, Corpus

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


def kaldi(folder: Path, **tables: str) -> Path:
    for name, rows in {"wav.scp": "r1 one.wav\nr2 two.wav\n", **tables}.items():
        lines(folder / name.replace("_", "."), rows)
    return folder


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


def table(path: Path, *rows: dict) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(**changes) -> dict:
    fields = {"id": "b", "split": "train", "audio": "a.wav", **changes}
    return {key: value for key, value in fields.items() if value != "absent"}
