"""Every JSON file that a user may have broken is told with its place and a remedy, and no other error."""

import sys
import types
from pathlib import Path

import pytest

from data_pipelines.corpora.folder import open_folder
from data_pipelines.corpora.tfds_audio import open_tfds
from data_pipelines.encoders.hubert import HubertEncoder
from data_pipelines.encoders.minilm import MiniLmVectors
from data_pipelines.encoders.text import load_tokenizer
from data_pipelines.store import read_passport
from data_pipelines.synthetic.writing import is_finished
from uniaudio_jax.codec.codec import open_codec
from uniaudio_jax.generate import Listing
from uniaudio_jax.sinks.wandb import WandbSink

BROKEN = {
    "cut off": b'{"a": 3',
    "empty": b"",
    "not UTF-8": b'{"a": "caf\xe9"}',
    "another type": b"17",
    "no keys": b"{}",
}


def minilm(folder: Path) -> MiniLmVectors:
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).touch()
    return MiniLmVectors(folder)


def resume_sink(folder: Path) -> WandbSink:
    return WandbSink(folder.parent, 7)


READERS = {
    "passport.json": open_codec,
    "config.json": HubertEncoder,
    "./config.json": minilm,
    "sinks/wandb.json": resume_sink,
    "samples.json": Listing,
    "manifest.jsonl": open_folder,
    "recipe.json": lambda folder: is_finished(folder, {"seed": 3}),
    "column/passport.json": read_passport,
    "tokenizer.json": lambda folder: load_tokenizer(folder / "tokenizer.json"),
    "features.json": lambda folder: open_tfds(str(folder)),
}
ANY_OBJECT = ("sinks/wandb.json", "recipe.json", "features.json")
"""Files in which no key must be there."""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (name, kind)
        for name in READERS
        for kind in BROKEN
        if not (kind == "no keys" and name in ANY_OBJECT or kind == "empty" and name.endswith(".jsonl"))
    ],
)
def test_a_broken_file_is_told_with_its_place(name, content, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(BROKEN[content] + (b"\n" if name.endswith("l") else b""))
    with pytest.raises(ValueError) as error:
        READERS[name](path.parent)
    assert str(path) in str(error.value) and "wanted" in str(error.value)
