"""Columns on disk: one TFDS ArrayRecord dataset for each corpus and stream, with an index and a passport beside it.

    TOKENS/<corpus>/<column>/1.0.0/   *.array_record, TFDS metadata, index/<split>/*.npy, passport.json
    TOKENS/<corpus>/<column>/rejects.jsonl
    TOKENS/<corpus>/tasks/<task>.json

Record n of a column is the n-th clip of the corpus that the column could be made for, so the sorted clip numbers in the
index are all that is needed to join columns. A column is written shard by shard into a working folder and renamed into
its place when it is whole; an old one is there, or found beside it, until then. Each shard leaves a small listing of
its lengths, speakers, counts and rejects, out of which the index is made without reading a record.
"""

import contextlib
import hashlib
import json
import resource
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from numba import njit

from data_pipelines.corpora import SPLITS, Split
from uniaudio_jax.copies import local_copy
from uniaudio_jax.files import atomic_write, read_json, write_json
from uniaudio_jax.paths import AnyPlace, Place, file_sizes
from uniaudio_jax.tasks import KINDS, MASKED, STREAMS

VERSION = "1.0.0"
PASSPORT, REJECTS = "passport.json", "rejects.jsonl"
NOTED = ("corpus_place", "licence", "source")
"""Keys of a passport for what a column's records do not depend on."""
RECORDS_PER_SHARD = 8192
"""A read from ArrayRecord takes time in proportion to the records of its file: 5 ms at a million, .03 at this size."""
OTHER_FILES = 200
"""Files that a training has open beside its shards, at most."""
ONE_RECORD_A_GROUP = "group_size:1"
NOT_WRITTEN = "room and the right to write there; make room on the disk and run the same command again"
NOT_READ = "a whole column; copy it again, or delete the folder and run `python -m data_pipelines.builder`"
ARRAYS = ("clips", "lengths", "speakers")
"""The arrays of a listing."""


class Example(NamedTuple):
    """One record of a column: clip is the clip's number within its split, text what the clip says or is labelled."""

    clip: int
    id: str
    speaker: str
    text: str
    tokens: np.ndarray


@dataclass
class Listing:
    """What is known of the clips of a shard or part without its records: a row for each record, and the rejects."""

    clips: np.ndarray
    lengths: np.ndarray
    speakers: np.ndarray
    """A 64-bit hash of each record's speaker."""
    rejects: list[dict[str, str]]
    counts: Counter[str]

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.clips, self.lengths, self.speakers


def speaker_hash(name: str) -> np.uint64:
    """A 64-bit hash of a speaker's name: names of millions of clips need not be held as text."""
    return np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), np.uint64)[0]


def column_folder(root: AnyPlace, corpus: str, column: str) -> AnyPlace:
    return root / corpus / column / VERSION


def column_features(column: str, codebooks: int, text_width: int | None) -> tfds.features.FeaturesDict:
    """The features of a column's records. Codes have all `codebooks` levels of the codec, vectors `text_width`."""
    stream = STREAMS[column]
    if stream.source == MASKED:
        tokens = tfds.features.Tensor(shape=(2,), dtype=np.int32)
    elif KINDS[stream.kind].form == "codes":
        tokens = tfds.features.Tensor(shape=(None, codebooks), dtype=np.int16)
    elif KINDS[stream.kind].form == "vectors":
        tokens = tfds.features.Tensor(shape=(None, text_width), dtype=np.float16)
    else:
        tokens = tfds.features.Tensor(shape=(None,), dtype=np.int16)
    text = tfds.features.Text()
    return tfds.features.FeaturesDict({"id": text, "speaker": text, "text": text, "tokens": tokens})


def replaced_folder(place: AnyPlace) -> AnyPlace:
    """Where the old column at `place` is while a new one takes its place."""
    return place.with_name(f".replaced-{VERSION}")


def present_folder(place: AnyPlace) -> AnyPlace:
    """Where a column is read: at `place`, or where a build that was cut off as it replaced the old one left that."""
    replaced = replaced_folder(place)
    return replaced if replaced.is_dir() and not place.is_dir() else place


@contextlib.contextmanager
def told(kind: type[ValueError | OSError], place: Place, remedy: str) -> Iterator[None]:
    """Gives errors of the disk, which ArrayRecord raises as plain RuntimeErrors, their place and a remedy."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise kind(f"{place}: got {error}; wanted {remedy}") from error


class ColumnWriter:
    """The working folder of a column that is being made: shards and their listings."""

    def __init__(self, place: Path, passport: dict[str, Any], shards: dict[Split, int], features: Any):
        made_of = {key: value for key, value in passport.items() if key not in NOTED}
        identity = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]
        self.place, self.passport, self.shards, self.features = place, passport, shards, features
        self.folder = place.with_name(f".building-{identity}")

    @property
    def column(self) -> str:
        return self.place.parent.name

    def part_path(self, split: Split, number: int) -> Path:
        return self.folder / "parts" / f"{split}-{number:06d}.npz"

    def shard_path(self, split: Split, shard: int) -> Path:
        return self.folder / f"{self.column}-{split}.array_record-{shard:05d}-of-{self.shards[split]:05d}"

    def _listing_path(self, split: Split, shard: int) -> Path:
        return self.folder / "listings" / f"{split}-{shard:05d}.npz"

    def has_shard(self, split: Split, shard: int) -> bool:
        return self._listing_path(split, shard).is_file()

    @contextlib.contextmanager
    def open_shard(self, split: Split, shard: int) -> Iterator[Callable[[Example], None]]:
        """Yields a function that adds a record to the ArrayRecord file of a shard, which appears when it is whole."""
        path = self.shard_path(split, shard)
        with told(OSError, path, NOT_WRITTEN), atomic_write(path) as partial:
            writer = ArrayRecordWriter(str(partial), ONE_RECORD_A_GROUP)

            def write(example: Example) -> None:
                record = {name: getattr(example, name) for name in ("id", "speaker", "text", "tokens")}
                writer.write(self.features.serialize_example(self.features.encode_example(record)))

            yield write
            writer.close()

    def finish_shard(self, split: Split, shard: int, listing: Listing) -> None:
        """Writes the listing of a shard, which says that its file is whole."""
        save_listing(self._listing_path(split, shard), listing)

    def listings(self, split: Split) -> Iterable[Listing]:
        """The listing of each shard of a split, in order."""
        for shard in range(self.shards[split]):
            with np.load(self._listing_path(split, shard)) as arrays:
                yield listing_in(arrays)

    def write_rejects(self) -> tuple[Path, int, list[str]]:
        """Writes rejects.jsonl out of the listings; returns its path, the number of rejects and the first reasons."""
        path, count, reasons = self.place.parent / REJECTS, 0, []
        with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
            for split in SPLITS:
                for listing in self.listings(split):
                    for reject in listing.rejects:
                        file.write(json.dumps(reject, ensure_ascii=False) + "\n")
                        count += 1
                        if len(reasons) < 3:
                            reasons.append(reject["reason"])
        return path, count, reasons

    def finish(self) -> None:
        """Makes the index, the TFDS metadata and the passport, and renames the working folder into its place."""
        counts: Counter[str] = Counter()
        infos, items = [], {}
        for split in SPLITS:
            columns: list[tuple[np.ndarray, ...]] = []
            for listing in self.listings(split):
                counts += listing.counts
                columns.append(listing.arrays)
            clips, lengths, speakers = join_arrays(columns)
            write_index(self.folder / "index" / split, clips, lengths, speakers)
            items[split] = int(lengths.sum())
            infos.append(self._split_info(split, [len(arrays[0]) for arrays in columns]))
        tfds.folder_dataset.write_metadata(
            data_dir=str(self.folder),
            features=self.features,
            split_infos=infos,
            check_data=False,
            version=VERSION,
            description=f"Tokens of the stream {self.column}",
        )
        shutil.rmtree(self.folder / "listings")
        shutil.rmtree(self.folder / "parts", ignore_errors=True)
        write_passport(self.folder, {**self.passport, "counts": dict(counts), "items": items})
        replaced = replaced_folder(self.place)
        if self.place.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            self.place.rename(replaced)
        self.folder.rename(self.place)
        shutil.rmtree(replaced, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """Deletes what other builds of this column left behind; call it only while this process holds the column."""
        for leftover in self.place.parent.glob(".building-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _split_info(self, split: Split, lengths: list[int]) -> tfds.core.SplitInfo:
        template = tfds.core.ShardedFileTemplate(
            dataset_name=self.column, split=split, filetype_suffix="array_record", data_dir=epath.Path(self.folder)
        )
        size = sum(path.stat().st_size for path in self.folder.glob(f"*-{split}.array_record*"))
        return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)


def save_listing(path: Path, listing: Listing, **arrays: np.ndarray) -> None:
    """Writes a listing, and further arrays beside it, as one .npz file, whole or not at all."""
    notes = json.dumps({"rejects": listing.rejects, "counts": listing.counts}).encode()
    arrays |= dict(zip(ARRAYS, listing.arrays, strict=True)) | {"notes": np.frombuffer(notes, np.uint8)}
    with told(OSError, path, NOT_WRITTEN), atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def listing_in(arrays: Mapping[str, np.ndarray]) -> Listing:
    """The listing in an open file of `save_listing`; further arrays in it are not read."""
    notes = json.loads(arrays["notes"].tobytes())
    clips, lengths, speakers = (arrays[name] for name in ARRAYS)
    return Listing(clips, lengths, speakers, notes["rejects"], Counter(notes["counts"]))


def join_listings(listings: Sequence[Listing]) -> Listing:
    """One listing of several that follow one another."""
    counts: Counter[str] = Counter()
    for listing in listings:
        counts += listing.counts
    rejects = [reject for listing in listings for reject in listing.rejects]
    clips, lengths, speakers = join_arrays(listing.arrays for listing in listings)
    return Listing(clips, lengths, speakers, rejects, counts)


def join_arrays(parts: Iterable[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Each array of the parts joined with those of the parts that follow."""
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


@dataclass(frozen=True)
class Speakers:
    """Records by speaker, so that another utterance of a speaker is found without a search.

    numbers: the speaker of each record, [n]. by_speaker: records sorted by speaker, [n]; position: where each record
    stands in by_speaker, [n]; starts: where each speaker begins there, [speakers + 1].
    """

    numbers: np.ndarray
    by_speaker: np.ndarray
    position: np.ndarray
    starts: np.ndarray


def group_speakers(names: np.ndarray) -> Speakers:
    """The records grouped by speaker, given a name, hash or number for each, [n]."""
    return group_numbers(np.unique(names, return_inverse=True)[1].astype(np.int32))


def group_numbers(numbers: np.ndarray) -> Speakers:
    """The records grouped by speaker, given the small number of each one's, [n]. Some speakers may have no record."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(numbers))]).astype(np.int32)
    return Speakers(numbers, *_counting_sort(numbers, starts), starts)


@njit(cache=True)
def _counting_sort(numbers: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the records go that are sorted by number, whose groups begin at `starts`: which comes there, and where
    each stands."""
    free, sorted_records, position = starts.copy(), np.empty(len(numbers), np.int32), np.empty(len(numbers), np.int32)
    for record in range(len(numbers)):
        place = free[numbers[record]]
        free[numbers[record]] += 1
        sorted_records[place], position[record] = record, place
    return sorted_records, position


def write_index(folder: Path, clips: np.ndarray, lengths: np.ndarray, speakers: np.ndarray) -> None:
    """Writes the clip numbers, lengths and grouped speakers of a split's records as .npy files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in {"clips": clips, "lengths": lengths, **vars(group_speakers(speakers))}.items():
        np.save(folder / f"{name}.npy", array)


class Column:
    """One split of a finished column: its passport, its index, memory-mapped, and its records by number.

    Of a column in a bucket the files of the split are copied to this machine first.
    """

    def __init__(self, folder: Place, split: Split):
        folder = present_folder(folder)
        self.split, self.passport = split, read_passport(folder)
        self.folder = folder if isinstance(folder, Path) else _copied(folder, split, self.passport)
        self.clips, self.lengths = self._array("clips"), self._array("lengths")
        builder: Any = tfds.builder_from_directory(str(self.folder))
        with told(ValueError, self.folder, NOT_READ):
            self.records = builder.as_data_source(split)

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def shards(self) -> int:
        """Files of the split, each of which stays open from its first read on."""
        return sum(f"-{self.split}." in name for name in self.passport["shards"])

    def record(self, row: int) -> Mapping[str, Any]:
        """A record. Raises ValueError where its shard is damaged."""
        with told(ValueError, self.folder, f"record {row} of {self.split} in {NOT_READ}"):
            return self.records[row]

    def speakers(self) -> Speakers:
        return Speakers(*(self._array(name) for name in ("numbers", "by_speaker", "position", "starts")))

    def _array(self, name: str) -> np.ndarray:
        path = self.folder / "index" / self.split / f"{name}.npy"
        try:
            return np.load(path, mmap_mode="r")
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path}: got an array that cannot be read ({error}), wanted {NOT_READ}") from error


def allow_open_files(root: Place, shards: int) -> None:
    """Lets this process open as many files as the system allows it. Raises ValueError if so many shards are more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = shards + OTHER_FILES
    if most != resource.RLIM_INFINITY and most < wanted:
        raise ValueError(
            f"{root}: got a limit of {most} open files (`ulimit -Hn`), wanted {wanted} to read "
            f"{shards} shards; raise it, in a container with `docker run --ulimit nofile=1048576`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _copied(folder: epath.Path, split: Split, passport: Mapping[str, Any]) -> Path:
    """The copy of a column in a bucket, with the files of one split: its index, its shards and the metadata of TFDS."""
    shards = {name: size for name, size in passport["shards"].items() if f"-{split}.array_record" in name}
    metadata = {name: size for name, size in file_sizes(folder).items() if name not in passport["shards"]}
    index = Path("index", split)
    indexed = {str(index / name): size for name, size in file_sizes(folder / index).items()}
    return local_copy(folder, metadata | indexed | shards, json.dumps(passport, sort_keys=True))


def write_passport(folder: Path, passport: dict[str, Any]) -> None:
    """Writes the passport, which marks a column complete; adds the size of every shard."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.array_record*"))}
    write_json(folder / PASSPORT, {**passport, "shards": sizes})


def read_passport(folder: Place) -> dict[str, Any]:
    """The passport of a column. Raises ValueError when it is incomplete or a shard does not have its size."""
    path = folder / PASSPORT
    if not path.is_file():
        raise ValueError(
            f"{folder}: no {PASSPORT}, so this column was never finished; run its `python -m data_pipelines.builder` "
            "command again"
        )
    wanted = "the passport of a column; delete the folder and run `python -m data_pipelines.builder` again"
    passport = read_json(
        path, wanted, ("shards", "codec", "corpus_sha256", "frame_rate_hz", "tokenizer", "licence", "source")
    )
    sizes = file_sizes(folder)
    for name, size in passport["shards"].items():
        present = f"{sizes[name]} bytes" if name in sizes else "no file"
        if present != f"{size} bytes":
            raise ValueError(
                f"{folder / name}: got {present}, wanted {size} bytes as when it was written; copy the shard again, or "
                "delete the folder and run `python -m data_pipelines.builder`"
            )
    return passport
