"""Parts of columns: a fixed number of clips, tokenised together, and the shards that are joined from them.

What a part holds is a function of its job, column and number alone. So a build that was killed goes on with the parts
that are missing, Beam's workers make the same shards as one machine does, and a column comes out the same whichever
others are made beside it.
"""

import functools
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from data_pipelines.corpora import AUDIO_FIELDS, SPLITS, Clip, Corpus, Entry, Split
from data_pipelines.corpora.listing import shortened
from data_pipelines.corpora.opening import open_corpus
from data_pipelines.mixers import MixerOptions, Pool, derive
from data_pipelines.notes import Notes
from data_pipelines.store import (
    RECORDS_PER_SHARD,
    ColumnWriter,
    Example,
    Listing,
    join_listings,
    listing_in,
    save_listing,
    speaker_hash,
)
from data_pipelines.streams import Tokenizers, fields_of
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import TokenizerPaths
from uniaudio_jax.errors import Refused, as_unicode, attempt, attempt_each
from uniaudio_jax.tasks import STREAMS, Stream

PART_CLIPS = 128
PARTS_PER_SHARD = RECORDS_PER_SHARD // PART_CLIPS


@dataclass(frozen=True)
class Job:
    """What the columns of a corpus are made from and with; plain values, for other processes and machines."""

    corpus: str
    codec: str
    sounds: str | None = None
    mixers: MixerOptions = field(default_factory=MixerOptions)
    tokenizers: TokenizerPaths = field(default_factory=TokenizerPaths)
    seed: int = 0


class Prepared(NamedTuple):
    """A clip for one column: its tokens, or None where they are made for many clips at once, and what they lack."""

    clip: Clip
    tokens: np.ndarray | None
    notes: Notes


class Part(NamedTuple):
    """Consecutive clips of one column: its listing, and the examples."""

    listing: Listing
    examples: list[Example]


class Worker:
    """A job opened in this process: its corpus, codec and tokenizers."""

    def __init__(self, job: Job, tokenizers: Tokenizers | None = None, corpus: Corpus | None = None):
        self.job = job
        self.corpus = corpus or open_corpus(job.corpus)
        self.tokenizers = tokenizers or Tokenizers(load_codec(job.codec), job.tokenizers)
        self.numbers: dict[Split, np.ndarray] = {split: self.corpus.numbers(split) for split in SPLITS}

    @functools.cached_property
    def pool(self) -> Pool:
        return Pool(self.corpus, open_corpus(self.job.sounds) if self.job.sounds else None)

    def shard_count(self, split: Split) -> int:
        return -(-len(self.numbers[split]) // RECORDS_PER_SHARD)

    def parts_of_shard(self, split: Split, shard: int) -> range:
        """The numbers of the parts that a shard is joined from."""
        count = -(-len(self.numbers[split]) // PART_CLIPS)
        return range(shard * PARTS_PER_SHARD, min(count, (shard + 1) * PARTS_PER_SHARD))

    def make_shard(self, writers: Sequence[ColumnWriter], split: Split, shard: int, bar: tqdm | None = None) -> None:
        """Makes one shard of each of these columns, unless it is there, out of the parts that are missing."""
        writers = [writer for writer in writers if not writer.has_shard(split, shard)]
        numbers = self.parts_of_shard(split, shard)
        missing: dict[int, list[ColumnWriter]] = {}
        for number in numbers:
            unfinished = [writer for writer in writers if not writer.part_path(split, number).is_file()]
            if unfinished:
                missing[number] = unfinished
            elif bar is not None:
                bar.update(self._clips_in(split, number))
        streams = {n: [STREAMS[writer.column] for writer in unfinished] for n, unfinished in missing.items()}
        for number, parts in self._parts(split, streams):
            for writer in missing[number]:
                save_part(writer.part_path(split, number), parts[writer.column])
            if bar is not None:
                bar.update(self._clips_in(split, number))
        for writer in writers:
            join_parts(writer, split, shard, numbers)

    def _clips_in(self, split: Split, part: int) -> int:
        return min(PART_CLIPS, len(self.numbers[split]) - part * PART_CLIPS)

    def _parts(self, split: Split, streams: dict[int, list[Stream]]) -> Iterator[tuple[int, dict[str, Part]]]:
        """Parts by number, each by column; the next part is worked on while one is waited for."""
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            waiting: list[tuple[int, dict[str, Future[Part]]]] = []
            for number in [*streams, None]:
                if number is not None:
                    rows = [
                        threads.submit(self._prepare, entry, streams[number]) for entry in self._entries(split, number)
                    ]
                    # A column begins after the last of its clips has begun, so that it never waits for an idle thread.
                    columns = {s.key: threads.submit(self._finish, split, number, s, rows) for s in streams[number]}
                    waiting.append((number, columns))
                if len(waiting) == 2 or (number is None and waiting):
                    ready, columns = waiting.pop(0)
                    yield ready, {key: column.result() for key, column in columns.items()}

    def _entries(self, split: Split, part: int) -> list[Entry]:
        numbers = self.numbers[split][part * PART_CLIPS : (part + 1) * PART_CLIPS]
        return [self.corpus.entries[int(number)] for number in numbers]

    def _prepare(self, entry: Entry, streams: Sequence[Stream]) -> tuple[Entry, dict[str, Prepared | Refused]]:
        """The clip of an entry for each stream, or the reason why the stream cannot be made for it.

        A stream reads only the audio that it needs, so that a broken file spoils no other stream.
        """
        clips: dict[tuple, Clip] = {}
        return entry, {stream.key: attempt(self._prepare_for, stream, entry, clips) for stream in streams}

    def _prepare_for(self, stream: Stream, entry: Entry, clips: dict[tuple, Clip]) -> Prepared:
        """The clip of an entry for a stream, out of `clips` where another stream had the same."""
        key = (tuple(name for name in entry.audio if name in needed_audio(stream)), stream.mixer)
        if key not in clips:
            clips[key] = self.clip_of(stream, entry)
        notes = Notes()
        return Prepared(clips[key], self.tokenizers.encode_clip(stream, clips[key], notes), notes)

    def clip_of(self, stream: Stream, entry: Entry) -> Clip:
        """The clip of an entry with the audio that a stream is made from, at the codec's rate, what its mixer derives
        included. Raises ValueError for a clip that cannot be read, mixed or written."""
        audio = {name: part for name, part in entry.audio.items() if name in needed_audio(stream)}
        clip = self.corpus.read(replace(entry, audio=audio), self.tokenizers.codec.sample_rate_hz)
        check_unicode(clip)
        if not stream.mixer:
            return clip
        return derive(clip, [stream.mixer], self.pool, self.job.mixers, self.job.seed)

    def _finish(
        self, split: Split, number: int, stream: Stream, rows: list[Future[tuple[Entry, dict[str, Prepared | Refused]]]]
    ) -> Part:
        """The part of one column, with the tokens that are made for many clips at once."""
        entries = [row.result()[0] for row in rows]
        items: list[Prepared | Refused] = [row.result()[1][stream.key] for row in rows]
        waiting = {n: item for n, item in enumerate(items) if isinstance(item, Prepared) and item.tokens is None}
        encoded = attempt_each(functools.partial(self._encode, stream), list(waiting.values()))
        for place, item in zip(waiting, encoded, strict=True):
            items[place] = item
        rejects, examples, further = [], [], Counter[str]()
        for place, (entry, item) in enumerate(zip(entries, items, strict=True)):
            if isinstance(item, Refused):
                reject = {"id": entry.id, "split": split, "where": entry.where, "reason": item}
                rejects.append({key: as_unicode(value) for key, value in reject.items()})
            else:
                assert item.tokens is not None
                clip, speaker = item.clip, item.clip.speaker or item.clip.id
                examples.append(Example(number * PART_CLIPS + place, clip.id, speaker, text_of(clip), item.tokens))
                further.update(f"converted from {what}" for what in clip.converted)
                further += item.notes
        counts = Counter({f"clips {split}": len(examples), "clips refused": len(rejects)}) + further
        return Part(listing_of(examples, rejects, counts), examples)

    def _encode(self, stream: Stream, items: Sequence[Prepared]) -> list[Prepared]:
        """The same clips with their tokens, made at once."""
        encoded = self.tokenizers.encode_batch(stream, [item.clip for item in items])
        return [item._replace(tokens=tokens) for item, tokens in zip(items, encoded, strict=True)]


def needed_audio(stream: Stream) -> set[str]:
    """The audio fields of a clip that a stream is made from, those that its mixer looks at included."""
    names = {*fields_of(stream), *(("audio", stream.mixer) if stream.mixer else ())}
    return names & set(AUDIO_FIELDS)


def text_of(clip: Clip) -> str:
    """What a clip says, how it is said and what is heard in it, in one line."""
    return " | ".join(text for text in (clip.text, clip.instruction, ", ".join(clip.labels or ())) if text)


def check_unicode(clip: Clip) -> None:
    """Raises ValueError for an id, speaker or text that a column cannot hold, which is UTF-8."""
    for name, text in (("id", clip.id), ("speaker", clip.speaker or ""), ("text", text_of(clip))):
        if as_unicode(text) != text:
            raise ValueError(
                f"clip {clip.id!r}: got {name} = {shortened(text)} with half a surrogate pair, wanted Unicode text; "
                "write the listing or the name of the file again, as UTF-8"
            )


def listing_of(examples: list[Example], rejects: list[dict[str, str]], counts: Counter[str]) -> Listing:
    """The listing of these examples."""
    return Listing(
        clips=np.array([example.clip for example in examples], np.int32),
        lengths=np.array([len(example.tokens) for example in examples], np.int32),
        speakers=np.array([speaker_hash(example.speaker) for example in examples], np.uint64),
        rejects=rejects,
        counts=counts,
    )


@functools.lru_cache(maxsize=1)
def open_worker(job: Job) -> Worker:
    """The worker of a job, opened once in each process."""
    return Worker(job)


def save_part(path: Path, part: Part) -> None:
    """Writes a part whole or not at all."""
    texts = json.dumps([(example.id, example.speaker, example.text) for example in part.examples]).encode()
    arrays: dict[str, Any] = {"texts": np.frombuffer(texts, np.uint8)}
    if part.examples:
        arrays["tokens"] = np.concatenate([example.tokens for example in part.examples])
    save_listing(path, part.listing, **arrays)


def load_part(path: Path) -> Part:
    """The part that `save_part` wrote."""
    with np.load(path) as arrays:
        listing = listing_in(arrays)
        texts = json.loads(arrays["texts"].tobytes())
        tokens = np.split(arrays["tokens"], np.cumsum(listing.lengths)[:-1]) if texts else []
    rows = zip(listing.clips.tolist(), texts, tokens, strict=True)
    return Part(listing, [Example(clip, name, speaker, text, array) for clip, (name, speaker, text), array in rows])


def join_parts(writer: ColumnWriter, split: Split, shard: int, numbers: Sequence[int]) -> None:
    """Writes a shard out of its parts, each read once, and deletes them."""
    listings = []
    with writer.open_shard(split, shard) as write:
        for number in numbers:
            part = load_part(writer.part_path(split, number))
            listings.append(part.listing)
            for example in part.examples:
                write(example)
    writer.finish_shard(split, shard, join_listings(listings))
    for number in numbers:
        writer.part_path(split, number).unlink()
