"""What a corpus lists: an `Entry` for each clip, kept in a temporary file, and which clips are held out."""

import hashlib
import os
import pickle
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from jaxtyping import Int8, UInt64

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "heldout")
TRAIN, HELDOUT = range(len(SPLITS))
HELDOUT_EVERY = 20
"""In a corpus that names no held-out clips, about one in this many is held out, by a hash of its id."""
SPOOL_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of an audio file."""

    path: Path
    start_seconds: float = 0.0
    seconds: float | None = None
    """Length; None: to the end of the file."""
    channel: int | None = None
    """Counted from 0; None: the mean of all channels."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of a clip before its audio is read."""

    where: str
    """Its line or file, for error messages."""
    id: str
    split: Split = "train"
    audio: Mapping[str, Segment] = field(default_factory=dict)
    """A segment for each audio field of the clip; reading the entry reads these and no others."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """The clip's other fields."""
    broken: str | None = None
    """Why the clip cannot be used, known from the listing; reading it raises ValueError with this message."""


class EntryTable(Sequence[Entry]):
    """Entries in listing order, decoded when they are asked for.

    They are spooled to an unnamed file in the temporary folder (TMPDIR; about 200 bytes a clip); memory holds an
    offset, a split and a hash of the id for each, 17 bytes. Threads may read at the same time. A pickle carries the
    spooled entries along.
    """

    def __init__(self, entries: Iterable[Entry] = ()):
        self._open_spool()
        offsets, splits, hashes = array("q", [0]), array("b"), array("Q")
        for entry in entries:
            record = _pack(entry)
            self._spool.write(record)
            offsets.append(offsets[-1] + len(record))
            splits.append(SPLITS.index(entry.split))
            hashes.append(hash_of(entry.id))
        self._spool.flush()
        self._offsets = np.frombuffer(offsets, np.int64)
        self.splits: Int8[np.ndarray, " N"] = np.frombuffer(splits, np.int8)
        """The place in `SPLITS` of each entry's split; a reader may assign another array."""
        self.id_hashes: UInt64[np.ndarray, " N"] = np.frombuffer(hashes, np.uint64)
        """`hash_of` each entry's id."""

    def _open_spool(self) -> None:
        self._spool = tempfile.TemporaryFile(buffering=SPOOL_BUFFER_BYTES)
        weakref.finalize(self, self._spool.close)

    def __len__(self) -> int:
        return len(self.id_hashes)

    @overload
    def __getitem__(self, number: int) -> Entry: ...
    @overload
    def __getitem__(self, number: slice) -> list[Entry]: ...
    def __getitem__(self, number: int | slice) -> Entry | list[Entry]:
        chosen = range(len(self))[number]
        if isinstance(chosen, range):
            return [self._read(each) for each in chosen]
        return self._read(chosen)

    def _read(self, number: int) -> Entry:
        start, stop = map(int, self._offsets[number : number + 2])
        record = os.pread(self._spool.fileno(), stop - start, start)
        return _unpack(record, SPLITS[self.splits[number]])

    def numbers(self, split: Split) -> np.ndarray:
        """The numbers of the entries of a split, int64 [n], in listing order."""
        return np.flatnonzero(self.splits == SPLITS.index(split))

    def find_repeated_id(self) -> tuple[Entry, Entry] | None:
        """The first entry whose id came before, after the entry that had it; None if all ids differ."""
        order = np.argsort(self.id_hashes, kind="stable")
        ordered = self.id_hashes[order]
        twins = np.flatnonzero(ordered[1:] == ordered[:-1])
        for twin in twins[np.argsort(order[twins + 1])]:
            earlier, later = self[int(order[twin])], self[int(order[twin + 1])]
            if earlier.id == later.id:  # unequal ids share a hash once in 10,000 corpora of 60 million clips
                return earlier, later
        return None

    def __getstate__(self) -> dict[str, Any]:
        spooled = os.pread(self._spool.fileno(), int(self._offsets[-1]), 0)
        return {"arrays": (self._offsets, self.splits, self.id_hashes), "spooled": spooled}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open_spool()
        self._spool.write(state["spooled"])
        self._spool.flush()
        self._offsets, self.splits, self.id_hashes = state["arrays"]


def _pack(entry: Entry) -> bytes:
    """An entry without its split as bytes, with plain tuples for segments, which are shorter."""
    segments = [
        (name, str(segment.path), segment.start_seconds, segment.seconds, segment.channel)
        for name, segment in entry.audio.items()
    ]
    return pickle.dumps((entry.where, entry.id, segments, dict(entry.about), entry.broken), pickle.HIGHEST_PROTOCOL)


def _unpack(record: bytes, split: Split) -> Entry:
    where, name, segments, about, broken = pickle.loads(record)
    audio = {
        field: Segment(path=Path(path), start_seconds=start, seconds=seconds, channel=channel)
        for field, path, start, seconds, channel in segments
    }
    return Entry(where=where, id=name, split=split, audio=audio, about=about, broken=broken)


def hash_of(key: str) -> int:
    """A fixed number below 2^64 for any key, the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode(errors="surrogatepass")).digest()[:8], "big")


def hashes_of(keys: Iterable[str]) -> UInt64[np.ndarray, " N"]:
    """`hash_of` each key."""
    return np.frombuffer(array("Q", map(hash_of, keys)), np.uint64)


def split_of(key: str, heldout_every: int = HELDOUT_EVERY) -> Split:
    """The split of a key: about one key in `heldout_every` is held out."""
    return "heldout" if hash_of(key) % heldout_every == 0 else "train"


def splits_of(hashes: UInt64[np.ndarray, " N"]) -> Int8[np.ndarray, " N"]:
    """The split of each hashed key, as its place in `SPLITS`: about one key in `HELDOUT_EVERY` is held out.

    Where that holds out none of two or more different keys, the key with the smallest hash is held out.
    """
    heldout = hashes % np.uint64(HELDOUT_EVERY) == 0
    if not heldout.any():
        smallest = hashes == hashes.min(initial=np.iinfo(np.uint64).max)
        heldout = smallest & ~smallest.all()
    return np.where(heldout, HELDOUT, TRAIN).astype(np.int8)
