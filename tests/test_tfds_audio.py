"""Prepared TFDS audio datasets as corpora. Small ones are made with TFDS itself, without TensorFlow."""

import io
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from data_pipelines.corpora import Clip, Corpus
from data_pipelines.corpora.opening import open_corpus
from data_pipelines.corpora.tfds_audio import open_tfds
from tests.audio_damage import audio_file, cut, piped_wav, streamed_flac, tone, with_noise

RATE = 16000
WORDS = ("Grüße.", "One.", "")
NOISE = np.random.default_rng(0).integers(-9999, 9999, 1009).astype(np.int16)
WAVE = NOISE / 32768


class Utterances(tfds.core.GeneratorBasedBuilder):
    """`counts` utterances in each split, whose audio is `samples` turned by the utterance's number."""

    VERSION = tfds.core.Version("2.1.0")
    pkg_dir_path = None
    name = "utterances"

    def __init__(self, audio, samples, counts=(("train_clean", 7), ("test", 3)), more=None, **options):
        self.audio, self.samples, self.counts, self.more = audio, samples, dict(counts), more or {}
        super().__init__(**options)

    def _info(self):
        features = {
            "speech": self.audio,
            "text": tfds.features.Text(),
            "speaker_id": np.int64,
            "chapter_id": np.int64,
            **{name: feature for name, (feature, _) in self.more.items()},
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(count) for split, count in self.counts.items()}

    def _generate_examples(self, count):
        for number in range(count):
            samples = np.roll(self.samples, number, axis=0) if isinstance(self.samples, np.ndarray) else self.samples
            more = {name: value for name, (_, value) in self.more.items()}
            yield number, {"speech": samples, "text": WORDS[number % 3], "speaker_id": 19, "chapter_id": 1, **more}


def prepare(folder: Path, audio, samples, **options) -> Path:
    kind = type("Utterances", (Utterances,), {"name": "utterances"}, skip_registration=True)
    tfds.disable_progress_bar()
    builder = kind(audio, samples, data_dir=str(folder), file_format="array_record", **options)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
    return Path(builder.data_dir)


def tensor(dtype: type = np.int16, shape: tuple = (None,)) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=dtype)


def as_audio(folder: Path, **about) -> Path:
    """Says that the tensor of a dataset is an Audio feature, which TFDS itself cannot make without TensorFlow."""
    file = folder / "features.json"
    features = json.loads(file.read_text())
    speech = features["featuresDict"]["features"]["speech"]
    kind = "tensorflow_datasets.core.features.audio_feature.Audio"
    audio = {**speech["tensor"], "encoding": "NONE", **about}
    features["featuresDict"]["features"]["speech"] = {"pythonClassName": kind, "audio": audio}
    file.write_text(json.dumps(features))
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """As LibriSpeech is: int64 audio of 16 bits at 16 kHz."""
    return as_audio(
        prepare(tmp_path_factory.mktemp("data"), tensor(np.int64), NOISE.astype(np.int64)), sampleRate="16000"
    )


def read_all(corpus: Corpus) -> list[Clip]:
    corpus = pickle.loads(pickle.dumps(corpus))
    return [corpus.read(entry, RATE) for entry in corpus.entries]


def refused(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def test_each_example_of_an_audio_dataset_comes_back_once_with_its_fields(dataset):
    clips = read_all(open_tfds(str(dataset)))
    assert [clip.id for clip in clips] == [f"train_clean/{n}" for n in range(7)] + [f"test/{n}" for n in range(3)]
    assert [clip.split for clip in clips] == ["train"] * 7 + ["heldout"] * 3
    wanted = {tuple(np.roll(WAVE, number).astype(np.float32)): WORDS[number % 3] or None for number in range(7)}
    for part in (clips[:7], clips[7:]):
        found = {tuple(np.asarray(clip.audio)): clip.text for clip in part}
        assert len(found) == len(part) and found.items() <= wanted.items()
    assert all((clip.speaker, clip.labels, clip.converted) == ("19", None, ()) for clip in clips)
    assert all(clip.audio is not None and clip.audio.dtype == np.float32 for clip in clips)


def test_a_dataset_is_found_by_name_version_folder_and_path(dataset, monkeypatch):
    data = dataset.parents[1]
    wanted = [entry.id for entry in open_tfds(str(dataset)).entries]
    for spec in (f"utterances@{data}", f"utterances:2.1.0@{data}", str(dataset.parent)):
        assert [entry.id for entry in open_corpus(f"tfds:{spec}").entries] == wanted
    assert list(open_corpus(str(dataset)).entries) == list(open_tfds(str(dataset)).entries)
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(data))
    assert [entry.where for entry in open_tfds("utterances").entries][0] == "utterances: train_clean/0"


def test_a_dataset_is_read_in_another_process_without_tensorflow(dataset, tmp_path):
    corpus = open_tfds(str(dataset))
    read_all(corpus)  # opened files do not go along
    (tmp_path / "corpus").write_bytes(pickle.dumps(corpus))
    code = (
        "import pickle, sys; corpus = pickle.load(open(sys.argv[1], 'rb')); "
        "print(corpus.read(corpus.entries[-1], 16000).text, 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "corpus")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == f"{corpus.read(corpus.entries[-1], RATE).text} False\n", done.stderr


def test_floats_and_numbers_without_a_rate_are_taken_as_16_khz_and_said_so(tmp_path):
    clips = read_all(open_tfds(str(prepare(tmp_path, tensor(np.float32), WAVE.astype(np.float32)))))
    wanted = {tuple(np.roll(WAVE, number).astype(np.float32)) for number in range(7)}
    assert {tuple(np.asarray(clip.audio)) for clip in clips} == wanted
    assert {clip.converted for clip in clips} == {("no stated rate, taken as 16000 Hz",)}


def test_stereo_of_another_rate_becomes_mono_16_khz(tmp_path):
    pair = np.stack([NOISE[:999], NOISE[:999]], axis=1)
    place = as_audio(prepare(tmp_path, tensor(shape=(None, 2)), pair), sampleRate="48000")
    clips = read_all(open_tfds(str(place)))
    assert {(np.asarray(clip.audio).shape, clip.converted) for clip in clips} == {((333,), ("stereo", "48000 Hz"))}


def test_audio_that_is_kept_as_files_is_decoded(tmp_path):
    file = io.BytesIO()
    soundfile.write(file, NOISE, 16000, format="FLAC")
    feature = tfds.features.Tensor(shape=(), dtype=np.bytes_)
    place = as_audio(prepare(tmp_path, feature, file.getvalue()), lazyDecode=True, fileFormat="flac")
    for clip in read_all(open_tfds(str(place))):
        np.testing.assert_array_equal(clip.audio, WAVE.astype(np.float32))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (with_noise, "the stored file: got "),
        (cut, "the stored file: got "),
        (lambda path: path.write_bytes(b"no audio"), "the stored file: got a file that cannot be read as audio"),
    ],
)
def test_a_damaged_file_in_a_record_is_refused_as_one_on_disk(damage, said, tmp_path):
    damage(path := audio_file(tmp_path / "a.flac"))
    feature = tfds.features.Tensor(shape=(), dtype=np.bytes_)
    place = as_audio(prepare(tmp_path, feature, path.read_bytes()), lazyDecode=True, fileFormat="flac")
    corpus = open_tfds(str(place))
    with refused(f"{corpus.place}: train_clean/0: {said}"):
        corpus.read(corpus.entries[0], RATE)


def test_a_file_without_a_length_in_a_record_is_whole(tmp_path):
    wanted = tone(20_011).astype(np.float32)
    for path in (streamed_flac(tmp_path / "a.flac", 20_011), piped_wav(tmp_path / "a.wav", 0, 36, 20_011)):
        feature = tfds.features.Tensor(shape=(), dtype=np.bytes_)
        place = prepare(tmp_path / path.suffix, feature, path.read_bytes())
        corpus = open_tfds(str(as_audio(place, lazyDecode=True)))
        np.testing.assert_array_equal(corpus.read(corpus.entries[0], RATE).audio, wanted)


def test_labels_are_told_by_their_names(tmp_path):
    sounds = tfds.features.ClassLabel(names=["rain", "wind", "dog"])
    for name, feature, value, wanted in (
        ("label", sounds, "wind", ("wind",)),
        ("label", sounds, -1, None),
        ("labels", tfds.features.Sequence(sounds), ["dog", "rain"], ("dog", "rain")),
        ("label", tfds.features.Text(), "a bell", ("a bell",)),
        ("labels", tfds.features.Sequence(tfds.features.Text()), [], None),
    ):
        place = prepare(tmp_path / str(wanted) / name, tensor(), NOISE, more={name: (feature, value)})
        assert {clip.labels for clip in read_all(open_tfds(str(place)))} == {wanted}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_dataset_of_one_kind_of_split_holds_out_some_clips_and_not_all(tmp_path, split):
    splits = [entry.split for entry in open_tfds(str(prepare(tmp_path, tensor(), NOISE, counts=[(split, 11)]))).entries]
    assert 1 <= splits.count("heldout") <= 3


@pytest.mark.parametrize(
    ("samples", "dtype", "message"),
    [
        (np.zeros(0, np.int16), np.int16, "got 0 samples, wanted at least one"),
        (np.array([0, 40000]), np.int64, "got the sample 40000, wanted 16-bit ones"),
        (np.array([0, np.nan], np.float32), np.float32, "got NaN or infinite samples"),
    ],
)
def test_a_broken_example_is_refused_when_it_is_read(tmp_path, samples, dtype, message):
    corpus = open_tfds(str(prepare(tmp_path, tensor(dtype), samples)))
    with refused(f"{corpus.place}: train_clean/0: {message}"):
        corpus.read(corpus.entries[0], RATE)


def test_text_that_is_not_utf_8_is_refused_when_it_is_read(tmp_path):
    more = {"text": (tfds.features.Tensor(shape=(), dtype=np.bytes_), b"Gr\xfc\xdfe")}
    corpus = open_tfds(str(prepare(tmp_path, tensor(), NOISE, more=more)))
    with refused(f"{corpus.place}: train_clean/0: got text that is not UTF-8"):
        corpus.read(corpus.entries[0], RATE)


def test_a_dataset_that_cannot_be_read_is_refused_on_opening_with_a_remedy(dataset, tmp_path):
    with refused(f"got no features.json in {tmp_path / 'librispeech'}, wanted a prepared dataset; prepare it"):
        open_tfds(f"librispeech@{tmp_path}")
    place = prepare(tmp_path, tfds.features.Tensor(shape=(5, 2), dtype=np.float32), np.zeros((5, 2), np.float32))
    with refused("got the features chapter_id, speaker_id, speech, text with 0 of audio, wanted one Audio feature"):
        open_tfds(str(place))
    info = place / "dataset_info.json"
    (place / "features.json").write_text((dataset / "features.json").read_text())
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with refused("got a dataset in tfrecord files, wanted array_record") as error:
        open_tfds(str(place))
    assert f"tfds convert_format --dataset_version_dir={place} --out_file_format=array_record" in str(error.value)
    (place.parent / "3.0.0").mkdir()
    (place.parent / "3.0.0" / "features.json").write_text("{}")
    with refused("got 2 datasets, wanted one; name one of them: "):
        open_tfds(f"utterances@{tmp_path}")
