"""Clips to columns of tokens: each stream of a corpus is tokenised once, whichever tasks join it.

    python -m data_pipelines.builder --corpus DIR --task tts enhancement --codec tiny_16k --out TOKENS

makes the columns that these tasks need and that are missing, TOKENS/<corpus>/<stream>/1.0.0/, and notes the tasks in
TOKENS/<corpus>/tasks/. Another task later makes only the columns that are not there yet. A corpus is FORMAT:PLACE
(folder, kaldi, captions, manifest, tfds), or a path whose format its files tell. Conditions that a corpus does not have
(noisy, mixed, reverberant, edited or masked audio) are derived from its clips.

A build that was killed goes on where it stopped and ends with the same shards. A finished column is left alone while
corpus, codec and tokenizer are the same. A clip that a column cannot be made for is listed with the reason in
rejects.jsonl beside the column.

    … --runner DirectRunner --beam-options --direct_num_workers=2     # on Apache Beam, see launch/encode_beam.sh
"""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from data_pipelines.corpora import SPLITS, Corpus, Entry, Split, read_clip
from data_pipelines.corpora.opening import corpus_name, open_corpus
from data_pipelines.mixers import MixerOptions
from data_pipelines.parts import Job, Worker, open_worker
from data_pipelines.store import (
    NOTED,
    PASSPORT,
    REJECTS,
    ColumnWriter,
    column_features,
    column_folder,
    present_folder,
    read_passport,
    write_passport,
)
from data_pipelines.streams import Tokenizers, fields_of, lack
from data_pipelines.views import View, write_task
from uniaudio_jax.cli import main_guard, parse, use_compile_cache
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import TokenizerPaths
from uniaudio_jax.errors import did_you_mean
from uniaudio_jax.files import check_name
from uniaudio_jax.locks import hold
from uniaudio_jax.packages import load_package
from uniaudio_jax.tasks import DRAWN, KINDS, MASKED, STREAMS, Stream, Task, get_task

REMEDY = "mend them, or allow more by --most-rejects"


@dataclass(frozen=True, kw_only=True)
class BuilderOptions:
    """Tokenise a corpus for one or more tasks."""

    corpus: tuple[str, ...]
    """One corpus or several: FORMAT:PLACE, or a path, of each."""
    task: tuple[str, ...]
    """Tasks whose streams are built; of several corpora NAME:TASK builds a task for the one of that name alone."""
    out: Path
    """Folder of the tokenised corpora."""
    codec: str = "tiny_16k"
    """A shipped codec's name, or the folder of one."""
    name: str | None = None
    """Name of a single corpus; without it, the name of its folder."""
    licence: str | None = None
    """Written into the passport of each column; without it, what is there stays."""
    source: str | None = None
    """Where the corpus is from; written into the passport of each column, as the licence is."""
    sounds: str | None = None
    """A corpus of sounds to mix in as noise and to edit with; without it, noise is synthesised and edits use the corpus
    itself."""
    mixers: MixerOptions = field(default_factory=MixerOptions)
    tokenizers: TokenizerPaths = field(default_factory=TokenizerPaths)
    most_rejects: float = 0.02
    """Share of the clips that a column may leave out; more is an error."""
    seed: int = 0
    """Of the random numbers that noise, rooms, edits and masks are drawn with."""
    runner: str | None = None
    """An Apache Beam runner (extra `beam`); every worker must see `out` and the corpus under the same path."""
    beam_options: tuple[str, ...] = ()
    """Options of the Beam runner."""

    def __post_init__(self) -> None:
        if not 0 <= self.most_rejects <= 1:
            raise ValueError(f"--most-rejects: got {self.most_rejects}, wanted a share from 0 to 1")
        if self.beam_options and self.runner is None:
            raise ValueError("--beam-options: got options but no --runner, wanted one, such as --runner DirectRunner")
        if self.name is not None and len(self.corpus) > 1:
            raise ValueError(f"--name: got one name for {len(self.corpus)} corpora, wanted a single corpus")
        _ = self.corpora  # refuses unknown tasks and corpora now, not after the first corpus

    @property
    def corpora(self) -> list["NamedCorpus"]:
        """Each corpus with its name and tasks. Raises ValueError for unknown tasks and names, for equal names, and
        for a name that no folder can have."""
        names = [corpus_name(corpus) for corpus in self.corpus] if self.name is None else [self.name]
        for name in names:
            check_name("--name", name)
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"--corpus: got several corpora named {sorted(repeated)}, wanted different names")
        tasks: dict[str, list[Task]] = {name: [] for name in names}
        for word in self.task:
            name, colon, task = word.rpartition(":")
            if colon and name not in tasks:
                raise ValueError(
                    f"--task: got {word!r}, wanted a task alone or of one of the corpora {', '.join(names)}"
                    f"{did_you_mean(name, names)}"
                )
            for corpus in [name] if colon else names:
                tasks[corpus].append(get_task(task))
        return [NamedCorpus(place, name, tasks[name]) for place, name in zip(self.corpus, names, strict=True)]

    def job_of(self, corpus: str) -> Job:
        """What the columns of a corpus are made from and with."""
        return Job(
            corpus=corpus,
            codec=self.codec,
            sounds=self.sounds,
            mixers=self.mixers,
            tokenizers=self.tokenizers,
            seed=self.seed,
        )


class NamedCorpus(NamedTuple):
    """A corpus to tokenise: where it is, what it is called among the tokens, and its tasks."""

    place: str
    name: str
    tasks: list[Task]


def build(options: BuilderOptions, named: NamedCorpus, corpus: Corpus, tokenizers: Tokenizers) -> list[Path]:
    """Makes the missing columns of a corpus's tasks, and returns the folders of all columns that they join."""
    tasks = named.tasks
    streams = list({stream.key: stream for task in tasks for stream in task.columns}.values())
    worker = Worker(options.job_of(named.place), tokenizers, corpus)
    check_splits(worker)
    missing = []
    for stream, made_of in zip(streams, make_passports(options, named.name, worker, streams), strict=True):
        folder = column_folder(options.out, named.name, stream.key)
        present = present_passport(folder)
        passport = made_of | {key: made_of[key] or present.get(key, "unknown") for key in ("licence", "source")}
        if not is_current(folder, passport, present):
            missing.append(open_writer(folder, worker, stream, passport))
    if missing:
        check_listed(worker, [STREAMS[writer.column] for writer in missing], options.most_rejects)
        with contextlib.ExitStack() as held:
            for writer in missing:
                held.enter_context(hold(writer.place.parent, "wait until it has ended, then run this again"))
            make_shards(options, worker, missing)
            finish_columns(worker, missing, options.most_rejects)
    for task in tasks:
        views = {split: View(options.out, named.name, task, split) for split in SPLITS}
        usable = {split: count_usable(view) for split, view in views.items()}
        write_task(options.out, named.name, task)
        clips = ", ".join(f"{count} {split}" for split, count in usable.items())
        print(f"{task.name}: {clips} clips of {' + '.join(stream.key for stream in task.columns)}")
    return [column_folder(options.out, named.name, stream.key) for stream in streams]


def make_passports(
    options: BuilderOptions, name: str, worker: Worker, streams: Sequence[Stream]
) -> list[dict[str, Any]]:
    """What identifies the column of each stream, as JSON values."""
    codec = worker.tokenizers.codec
    corpus_sha256 = fingerprint(worker.corpus)
    sounds_sha256 = fingerprint(open_corpus(options.sounds)) if options.sounds else None
    mixing = {"seed": options.seed, "options": options.mixers.describe(), "sounds": sounds_sha256}
    passports = []
    for stream in streams:
        is_code = KINDS[stream.kind].form == "codes" and stream.source != MASKED
        passport = {
            "stream": stream.key,
            "corpus": name,
            "corpus_place": place_of(worker.corpus.place),
            "corpus_sha256": corpus_sha256,
            "frame_rate_hz": codec.clock.frame_rate_hz,
            "codec": codec.passport() if is_code else None,
            "tokenizer": worker.tokenizers.tokenizer_of(stream),
            "mixing": mixing if stream.mixer else None,
            "licence": options.licence,
            "source": options.source,
        }
        passports.append(json.loads(json.dumps(passport)))
    return passports


def place_of(place: str) -> str:
    """The place of a corpus as a passport holds it: a path in full, however it was named."""
    return str(Path(place).resolve()) if os.path.exists(place) else place


def present_passport(folder: Path) -> dict[str, Any]:
    """The passport of a finished column; empty where there is none."""
    folder = present_folder(folder)
    return read_passport(folder) if (folder / PASSPORT).is_file() else {}


def is_current(folder: Path, passport: dict[str, Any], present: dict[str, Any]) -> bool:
    """Whether a column is there and was made from the same things; what is only noted of it is written anew.

    Raises ValueError when it was made from another corpus of the same name.
    """
    if not present:
        return False
    folder = present_folder(folder)
    differing = [key for key, value in passport.items() if present.get(key) != value]
    made_of = [key for key in differing if key not in NOTED]
    if "corpus_sha256" in made_of and place_of(present["corpus_place"]) != passport["corpus_place"]:
        raise ValueError(
            f"{folder}: got a column of another corpus of this name ({present['corpus_place']}), wanted "
            f"{passport['corpus_place']}; give this one another --name, or delete that folder"
        )
    if made_of:
        print(f"{passport['stream']}: {folder} is made again, since it was made with another {', '.join(made_of)}")
        return False
    if differing:
        write_passport(folder, present | passport)
    print(f"{passport['stream']}: {folder} is up to date ({summary(present)})")
    return True


def open_writer(folder: Path, worker: Worker, stream: Stream, passport: dict[str, Any]) -> ColumnWriter:
    """The writer of a column that is to be made."""
    has_vectors = KINDS[stream.kind].form == "vectors"
    width = worker.tokenizers.text_vectors.width if has_vectors else None
    features = column_features(stream.key, worker.tokenizers.codec.codebooks, width)
    shards: dict[Split, int] = {split: worker.shard_count(split) for split in SPLITS}
    return ColumnWriter(folder, passport, shards, features)


def check_listed(worker: Worker, streams: Sequence[Stream], most_rejects: float) -> None:
    """Raises ValueError, before anything is encoded, for streams that too many clips list no field for.

    A corpus with a reader of its own lists no fields, and a stream that a mixer derives needs other ones.
    """
    if worker.corpus.read is not read_clip:
        return
    entries, refused = worker.corpus.entries, []
    for stream in streams:
        reasons = (reason for entry in entries if (reason := unlisted(entry, stream)))
        first = list(islice(reasons, 3))
        count = len(first) + sum(1 for _ in reasons)
        if count > most_rejects * len(entries):
            refused.append(
                f"{count} of {len(entries)} clips cannot be used for {stream.key} (first: {'; '.join(first)}); {REMEDY}"
            )
    if refused:
        raise ValueError(f"{worker.corpus.place}: " + "\n  ".join(refused))


def unlisted(entry: Entry, stream: Stream) -> str | None:
    """Why an entry cannot be used for a stream, as far as its listing tells."""
    if entry.broken or stream.mixer:
        return entry.broken
    missing = (name for name in fields_of(stream) if name not in entry.audio and name not in entry.about)
    return next((lack(entry.id, name, stream) for name in missing), None)


def make_shards(options: BuilderOptions, worker: Worker, writers: list[ColumnWriter]) -> None:
    """Makes the shards of these columns, in this process or on Apache Beam."""
    shards: list[tuple[Split, int]] = [(split, shard) for split in SPLITS for shard in range(worker.shard_count(split))]
    if options.runner is not None:
        run_beam(options.runner, options.beam_options, shards, functools.partial(make_shard, worker.job, writers))
        return
    total = sum(len(numbers) for numbers in worker.numbers.values())
    names = ", ".join(writer.column for writer in writers)
    with tqdm(total=total, desc=f"tokenise {names}", unit=" clips", dynamic_ncols=True) as bar:
        for split, shard in shards:
            worker.make_shard(writers, split, shard, bar)


def make_shard(job: Job, writers: list[ColumnWriter], shard: tuple[Split, int]) -> None:
    """What a Beam worker does: one shard of each column."""
    open_worker(job).make_shard(writers, *shard)


def run_beam(runner: str, options: tuple[str, ...], items: Iterable[Any], work: Any) -> None:
    """Calls `work` on each item on a Beam runner, and waits for all. Raises ValueError without the package."""
    where, install = f"--runner {runner}", "bash launch/install.sh beam"
    beam = load_package("apache_beam", where, install)
    pipeline_options = load_package("apache_beam.options.pipeline_options", where, install)
    with beam.Pipeline(options=pipeline_options.PipelineOptions(flags=[f"--runner={runner}", *options])) as pipeline:
        _ = pipeline | beam.Create(list(items)) | beam.Reshuffle() | beam.Map(work)


def finish_columns(worker: Worker, writers: list[ColumnWriter], most_rejects: float) -> None:
    """Finishes each column, and lists its rejects.

    Raises ValueError at the end for columns that too many clips were rejected for; their shards are kept, so that
    another run with a higher --most-rejects is quick.
    """
    total = sum(len(numbers) for numbers in worker.numbers.values())
    refused = []
    for writer in writers:
        path, count, reasons = writer.write_rejects()
        used = {split: sum(len(listing.clips) for listing in writer.listings(split)) for split in SPLITS}
        empty = [f"none of the {len(worker.numbers[split])} {split} clips" for split in SPLITS if not used[split]]
        listed = f"for {writer.column} (first: {'; '.join(reasons)}); all rejects are in {path}"
        if count > most_rejects * total:
            refused.append(f"{count} of {total} clips cannot be used {listed}; {REMEDY}")
        elif empty:
            refused.append(f"{' and '.join(empty)} can be used {listed}; mend them, or put others into that split")
        else:
            writer.finish()
            writer.remove_leftovers()
            print(f"{writer.column}: {writer.place} ({summary(read_passport(writer.place))})")
    if refused:
        raise ValueError(f"{worker.corpus.place}: " + "\n  ".join(refused))


def check_splits(worker: Worker) -> None:
    """Raises ValueError for a corpus without training clips or without held-out ones."""
    for split, numbers in worker.numbers.items():
        if not len(numbers):
            raise ValueError(
                f"{worker.corpus.place}: no {split} clips; wanted at least one (every 20th clip of a corpus that names "
                "no held-out ones is held out, so two are enough)"
            )


def count_usable(view: View) -> int:
    """How many clips a task can use: one that draws a speaker prompt needs another clip of the speaker.

    Tells how many it cannot use. Raises ValueError where no clip is in all columns, and none is left to train on.
    """
    if not len(view):
        raise ValueError(
            f"{view.name}: got no {view.split} clip that is in all of {', '.join(view.columns)}, wanted at least one; "
            f"see the {REJECTS} beside each, mend those clips, or put others into that split"
        )
    alone = int((np.diff(view.index.speakers.starts) == 1).sum())
    if not alone or not any(stream.source == DRAWN for stream in view.task.streams):
        return len(view)
    told = f"{view.name}: {alone} of {len(view)} {view.split} clips are the only one of their speaker"
    if alone == len(view) and view.split == "train":
        raise ValueError(
            f"{told}, wanted another one as the speaker prompt; name the speaker of each clip by its folder or by a "
            "key speaker, or build a task without a prompt, such as plain_tts"
        )
    print(f"{told}, and are left out: the speaker prompt is another one")
    return len(view) - alone


def fingerprint(corpus: Corpus) -> str:
    """A hash of what a corpus lists, and of the sizes and times of its files."""
    digest = hashlib.sha256()
    for entry in corpus.entries:
        segments = [(name, s.start_seconds, s.seconds, s.channel, *_stat(s.path)) for name, s in entry.audio.items()]
        about = [(name, list(v) if isinstance(v, np.ndarray) else v) for name, v in sorted(entry.about.items())]
        digest.update(repr((entry.id, entry.split, about, sorted(segments))).encode() + b"\n")
    return digest.hexdigest()


def _stat(path: Path) -> tuple[int, int]:
    if not os.path.isfile(path):  # which, unlike the method of a path, is false for a name that is too long
        return -1, -1
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def summary(passport: dict[str, Any]) -> str:
    """The counts of a column in one line, and the length of a timed one."""
    parts = [f"{number} {singular(what) if number == 1 else what}" for what, number in passport["counts"].items()]
    stream = STREAMS[passport["stream"]]
    if KINDS[stream.kind].timed and stream.source != MASKED:
        parts.append(f"{sum(passport['items'].values()) / passport['frame_rate_hz'] / 60:.1f} minutes")
    return ", ".join(parts)


def singular(what: str) -> str:
    """What is counted, if it is one: clip train, of clips train; a name such as "converted from stereo" stays."""
    first, space, rest = what.partition(" ")
    return first.removesuffix("s") + space + rest


def main() -> None:
    with main_guard("the parts of columns that are finished are kept; the same command goes on with the others"):
        options = parse(BuilderOptions, __doc__)
        use_compile_cache()
        tokenizers = Tokenizers(load_codec(options.codec), options.tokenizers)
        for named in options.corpora:
            if named.tasks:
                build(options, named, open_corpus(named.place), tokenizers)


if __name__ == "__main__":
    main()
