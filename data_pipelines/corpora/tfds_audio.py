"""Prepared TFDS audio datasets as a corpus, read by number and without TensorFlow."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float

from data_pipelines.corpora import Clip, Corpus, Entry, EntryTable, Segment, Split, splits_of
from data_pipelines.corpora.listing import shortened
from uniaudio_jax.audio.files import read_audio
from uniaudio_jax.files import read_json

FEATURES = "features.json"
TFDS_FILE = "a file of a dataset that TFDS prepared; copy or prepare the dataset again"
AUDIO_NAMES = ("audio", "speech")
TEXT_NAMES = ("text", "transcript", "transcription", "sentence", "caption")
SPEAKER_NAMES = ("speaker_id", "speaker")
LABEL_NAMES = ("label", "labels")
INTEGERS = ("int16", "int32", "int64")
DTYPES = (*INTEGERS, "float16", "float32", "float64")
FULL_SCALE = 2**15
"""TFDS keeps integer samples at their 16 bits, in int64 too."""
UNSTATED_RATE_HZ = 16000
"""The rate of most speech datasets of TFDS, taken where a dataset states none."""
RANDOM_ACCESS = "array_record"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The features of a dataset that a clip is made from, by name; None where the dataset has none."""

    audio: str
    sample_rate_hz: int | None
    """Rate of the audio; None if the dataset does not state it."""
    is_file: bool
    """Whether audio is stored as the bytes of an audio file."""
    text: str | None
    speaker: str | None
    labels: str | None


def open_tfds(spec: str) -> Corpus:
    """The clips of a dataset that TFDS prepared as array_record: `librispeech`, `librispeech/config/2.1.0`,
    `librispeech@DATA_DIR`, or a path; its data folder is TFDS's own by default.

    Audio is the Audio feature, or the numbers named audio or speech; where no rate is stated, 16 kHz is assumed, and
    the clip's `converted` says so. The other fields are found by the names of features. Splits whose name begins with
    train are trained on and the others held out; a dataset that lacks one of the two is split by a hash of the ids.
    Nothing is downloaded.

    Raises ValueError for a dataset that is missing or not prepared, one in several versions or configs, another file
    format, and features without audio.
    """
    from tensorflow_datasets.core import (
        constants,  # imported here, since it takes seconds that other formats need not spend
    )

    folder = _prepared_folder(spec, Path(constants.DATA_DIR))
    columns, _ = _features(folder)
    entries = EntryTable(_entries(spec, folder))
    if not len(entries.numbers("train")) or not len(entries.numbers("heldout")):
        entries.splits = splits_of(entries.id_hashes)
    return Corpus(place=spec, entries=entries, read=functools.partial(_read, folder, columns))


def _entries(spec: str, folder: Path) -> Iterator[Entry]:
    """An entry for each example. Its id names the record, so that the segment of its audio only names the dataset."""
    for name, count in _clip_counts(folder).items():
        split: Split = "train" if name.startswith("train") else "heldout"
        for number in range(count):
            clip_id = f"{name}/{number}"
            audio = {"audio": Segment(path=folder)}
            yield Entry(where=f"{spec}: {clip_id}", id=clip_id, split=split, audio=audio)


def _prepared_folder(spec: str, data_folder: Path) -> Path:
    """The one folder with features.json that `spec` names."""
    name, _, data_dir = spec.partition("@")
    roots = [Path(data_dir or data_folder) / name.replace(":", "/"), *([] if data_dir else [Path(name)])]
    depths = ("", "*/", "*/*/")  # the version, and the config above it
    folders = sorted({file.parent for root in roots for depth in depths for file in root.glob(depth + FEATURES)})
    if not folders:
        raise ValueError(
            f"tfds {spec!r}: got no {FEATURES} in {roots[0]}, wanted a prepared dataset; prepare it "
            f"with `tfds build {Path(name).name} --file_format={RANDOM_ACCESS} --data_dir=FOLDER`, which "
            f"needs TensorFlow, and name it as {name}@FOLDER or by its path"
        )
    if len(folders) > 1:
        raise ValueError(
            f"tfds {spec!r}: got {len(folders)} datasets, wanted one; name one of them: {', '.join(map(str, folders))}"
        )
    return folders[0]


def _clip_counts(folder: Path) -> dict[str, int]:
    """Split → how many clips it has. Raises ValueError for a file format without access by number."""
    info = read_json(folder / "dataset_info.json", TFDS_FILE)
    formats = [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", ())]
    if RANDOM_ACCESS not in formats:
        convert = f"tfds convert_format --dataset_version_dir={folder} --out_file_format={RANDOM_ACCESS}"
        raise ValueError(
            f"{folder}: got a dataset in {' and '.join(formats)} files, wanted {RANDOM_ACCESS}, which can "
            f"be read by number and without TensorFlow; convert it once, with TensorFlow: `{convert}`"
        )
    return {split["name"]: sum(map(int, split.get("shardLengths", ()))) for split in info.get("splits", ())}


def _features(folder: Path) -> tuple[Columns, Any]:
    """The columns of a dataset, and TFDS's parser for its records.

    TFDS's Audio feature cannot be constructed without TensorFlow; a Tensor of the same shape parses the same records.
    """
    import tensorflow_datasets as tfds

    whole = read_json(folder / FEATURES, TFDS_FILE)
    features = whole.get("featuresDict", {}).get("features", {})
    name = _audio_name(folder, features)
    audio = features[name].get("audio") or features[name]["tensor"]
    is_file = bool(audio.get("lazyDecode"))
    columns = Columns(
        audio=name,
        is_file=is_file,
        sample_rate_hz=int(audio.get("sampleRate", 0)) or None,
        text=_named(features, TEXT_NAMES),
        speaker=_named(features, SPEAKER_NAMES),
        labels=_named(features, LABEL_NAMES),
    )
    shape, dtype = ({}, "string") if is_file else (audio.get("shape", {}), audio["dtype"])
    tensor = {
        "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
        "tensor": {"shape": shape, "dtype": dtype, "encoding": audio.get("encoding", "none")},
    }
    wanted = {key: features[key] for key in (columns.text, columns.speaker, columns.labels) if key}
    parser = tfds.features.FeatureConnector.from_json({**whole, "featuresDict": {"features": {**wanted, name: tensor}}})
    parser.load_metadata(folder, feature_name=None)  # the names of labels
    return columns, parser


def _named(features: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in features), None)


def _audio_name(folder: Path, features: Mapping[str, Any]) -> str:
    """The feature with audio: the one Audio feature, or the one called audio or speech, which may be a plain tensor."""
    sounds = [name for name, feature in features.items() if "audio" in feature]
    numbers = [
        name
        for name in AUDIO_NAMES
        if features.get(name, {}).get("tensor", {}).get("dtype") in DTYPES
        and len(features[name]["tensor"].get("shape", {}).get("dimensions", ())) == 1
    ]
    named = [name for name in AUDIO_NAMES if name in sounds] or sounds or numbers
    if not named or (len(named) > 1 and named[0] not in AUDIO_NAMES):
        raise ValueError(
            f"{folder}: got the features {', '.join(features) or '(none)'} with {len(named)} of audio, "
            f"wanted one Audio feature, or one called {' or '.join(AUDIO_NAMES)}"
        )
    return named[0]


@functools.lru_cache(maxsize=16)
def _records(folder: Path, split: str) -> tuple[Any, Any]:
    """The records of a split by number, and their parser, opened once in each process."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from tensorflow_datasets.core import dataset_info

    info = dataset_info.read_proto_from_builder_dir(folder)
    template = tfds.core.ShardedFileTemplate(
        dataset_name=info.name, data_dir=tfds.core.Path(folder), filetype_suffix=RANDOM_ACCESS
    )
    splits = tfds.core.SplitDict.from_proto(repeated_split_infos=info.splits, filename_template=template)
    return ArrayRecordDataSource([str(path) for path in splits[split].filepaths]), _features(folder)[1]


def _read(folder: Path, columns: Columns, entry: Entry, sample_rate_hz: int) -> Clip:
    """The clip of an entry of `open_tfds`, as `read_clip`."""
    split, _, number = entry.id.rpartition("/")
    records, parser = _records(folder, split)
    try:
        record = parser.deserialize_example_np(records[int(number)])
        audio, converted = None, ()
        if "audio" in entry.audio:
            audio, converted = _audio(record[columns.audio], columns, sample_rate_hz)
        about = {
            "text": _text(record[columns.text]) if columns.text else None,
            "speaker": _text(record[columns.speaker]) if columns.speaker else None,
            "labels": _labels(record[columns.labels], parser[columns.labels]) if columns.labels else None,
        }
    except ValueError as error:
        raise ValueError(f"{entry.where}: {error}") from error
    return Clip(
        id=entry.id, split=entry.split, sample_rate_hz=sample_rate_hz, audio=audio, converted=converted, **about
    )


def _audio(stored: Any, columns: Columns, sample_rate_hz: int) -> tuple[Float[np.ndarray, " S"], tuple[str, ...]]:
    """Samples at `sample_rate_hz`, mono, and what was done to get them."""
    if columns.is_file:
        return read_audio(bytes(stored), sample_rate_hz)
    samples, rate, converted = np.asarray(stored), columns.sample_rate_hz, []
    if not samples.size:
        raise ValueError("got 0 samples, wanted at least one; remove the example")
    if samples.dtype.kind == "i":
        if np.abs(samples.astype(np.int64)).max() > FULL_SCALE:
            raise ValueError(f"got the sample {np.abs(samples).max()}, wanted 16-bit ones; prepare them as floats")
        samples = samples / FULL_SCALE
    if not np.isfinite(samples).all():
        raise ValueError("got NaN or infinite samples, wanted finite ones; prepare the data again")
    if samples.ndim == 2:
        if (channels := samples.shape[1]) > 1:
            converted.append("stereo" if channels == 2 else f"{channels} channels")
        samples = samples.mean(axis=1)
    samples = samples.astype(np.float32)
    if rate is None:
        rate = UNSTATED_RATE_HZ
        converted.append(f"no stated rate, taken as {rate} Hz")
    if rate != sample_rate_hz:
        converted.append(f"{rate} Hz")
        samples = soxr.resample(samples, rate, sample_rate_hz)
    return samples, tuple(converted)


def _text(value: Any) -> str | None:
    """Text of bytes or of a number; None if it is empty. Raises ValueError for anything else and other than UTF-8."""
    if isinstance(value, int | np.integer):
        return str(value)
    if not isinstance(value, bytes):
        raise ValueError(f"got {shortened(value)} as text, wanted bytes of text or a whole number")
    try:
        return value.decode("utf-8").strip() or None
    except UnicodeDecodeError as error:
        raise ValueError(f"got text that is not UTF-8 ({error.reason} at {error.start}), wanted UTF-8") from error


def _labels(value: Any, feature: Any) -> tuple[str, ...] | None:
    """One label or several: the names of a ClassLabel's numbers (-1: none is known), else as text."""
    names = getattr(getattr(feature, "feature", feature), "int2str", None)
    several = value if isinstance(value, list | tuple | np.ndarray) else [value]
    if names:
        labels = [names(int(label)) for label in several if label >= 0]
    else:
        labels = [text for label in several if (text := _text(label))]
    return tuple(labels) or None
