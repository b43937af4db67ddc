"""Clips to token streams to TFDS ArrayRecord shards, with an index and a passport beside them.

    python -m data_pipelines.builder --corpus DIR --task tts --codec tiny_16k --out TOKENS

makes TOKENS/tts/<corpus name>/1.0.0/. A corpus is FORMAT:PLACE (folder, kaldi, captions, manifest, tfds), or a path
whose format is told by what lies there. Conditions that a corpus does not have (noisy, mixed, reverberant, edited or
masked audio) are derived from its clips. A run that was killed goes on where it stopped and ends with the same shards;
a finished dataset is left alone while corpus, codec and tokenizers are the same. A clip that cannot be used is listed
with its reason in rejects.jsonl beside the dataset.

    … --runner DirectRunner --beam-options --direct_num_workers=2     # on Apache Beam, see launch/encode_beam.sh
"""

import contextlib
import hashlib
import io
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tyro
from absl import logging
from tqdm import tqdm

from data_pipelines.batches import RECORDS_PER_SHARD, open_records
from data_pipelines.corpora import SPLITS, Corpus
from data_pipelines.corpora.opening import open_corpus
from data_pipelines.index import PASSPORT, make_index, read_passport, write_index, write_passport
from data_pipelines.mixers import DERIVED, MixerOptions
from data_pipelines.parts import Job, Part, Worker, load_part, part_path, save_part
from data_pipelines.shards import VERSION, TokenBuilder, download_config, prepare_beam
from data_pipelines.streams import Tokenizers, fields_of, recorded
from uniaudio_jax.cli import main_guard, use_compile_cache
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import TokenizerPaths
from uniaudio_jax.sequence import audio_frames
from uniaudio_jax.tasks import Task, get_task

REJECTS = "rejects.jsonl"
SHOWN_REJECTS = 3


@dataclass(frozen=True, kw_only=True)
class BuilderOptions:
    """Tokenise a corpus for one or more tasks.

    corpus: FORMAT:PLACE, or a path. task: tasks to build. out: folder of the datasets. name: name of the corpus; its
        folder's name if not given. licence, source: written into the passport.
    sounds: a corpus of sounds, for noise and for edits; procedural noises and the corpus itself without it.
    most_rejects: share of clips that may be refused; more is an error.
    runner: an Apache Beam runner (extra `beam`), with its own options in beam_options; every worker must see `out`
        and the corpus under the same path.
    """

    corpus: str
    task: tuple[str, ...]
    out: Path
    codec: str = "tiny_16k"
    name: str | None = None
    licence: str = "unknown"
    source: str = "unknown"
    sounds: str | None = None
    mixers: MixerOptions = field(default_factory=MixerOptions)
    tokenizers: TokenizerPaths = field(default_factory=TokenizerPaths)
    most_rejects: float = 0.02
    seed: int = 0
    runner: str | None = None
    beam_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.most_rejects <= 1:
            raise ValueError(f"--most-rejects: got {self.most_rejects}, wanted a share from 0 to 1")
        if self.beam_options and self.runner is None:
            raise ValueError("--beam-options: got options but no --runner, wanted one, such as --runner DirectRunner")

    @property
    def corpus_name(self) -> str:
        return self.name or Path(self.corpus.split(":", 1)[-1]).resolve().stem


def build(options: BuilderOptions, name: str, corpus: Corpus, tokenizers: Tokenizers) -> Path:
    """Makes one dataset and returns its folder; does nothing when it is there with the same passport."""
    task = get_task(name)
    place = options.out / task.name / options.corpus_name / VERSION
    passport = make_passport(options, task, corpus, tokenizers)
    if (place / PASSPORT).is_file():
        before = read_passport(place)
        _check_same_corpus(place, before, passport)
        if all(before.get(key) == value for key, value in passport.items()):
            print(f"{task.name}: {place} is up to date ({_summary(before)})")
            return place
    parts = place.parent / f".parts-{_sha256(json.dumps(passport, sort_keys=True))[:12]}"
    for old in (place, *place.parent.glob(f"incomplete.*_{VERSION}"), *place.parent.glob(".parts-*")):
        if old != parts:
            shutil.rmtree(old, ignore_errors=True)
    job = Job(
        corpus=options.corpus,
        task=name,
        codec=options.codec,
        sounds=options.sounds,
        mixers=options.mixers,
        tokenizers=options.tokenizers,
        seed=options.seed,
    )
    worker = Worker(job, tokenizers, corpus)
    _check_splits(worker)
    if options.runner is None:
        make_parts(worker, parts)
        check_rejects(worker, parts, options)
    write_shards(options, worker, parts, passport)
    counts = check_rejects(worker, parts, options)
    frames = {split: _write_split_index(split, place, task) for split in SPLITS}
    write_passport(place, {**passport, "counts": dict(counts), "frames": frames})
    shutil.rmtree(parts)
    print(f"{task.name}: {place} ({_summary(read_passport(place))})")
    return place


def make_passport(options: BuilderOptions, task: Task, corpus: Corpus, tokenizers: Tokenizers) -> dict[str, Any]:
    """What identifies a dataset, as JSON values."""
    derived = sorted({name for stream in recorded(task) for name in fields_of(stream) if name in DERIVED})
    mixing = {
        "fields": derived,
        "seed": options.seed,
        "options": options.mixers.describe(),
        "sounds": fingerprint(open_corpus(options.sounds)) if options.sounds else None,
    }
    passport = {
        "task": task.name,
        "corpus": options.corpus_name,
        "corpus_place": corpus.place,
        "corpus_sha256": fingerprint(corpus),
        "codec": tokenizers.codec.passport(),
        "tokenizers": tokenizers.passport(task),
        "mixing": mixing if derived else None,
        "licence": options.licence,
        "source": options.source,
    }
    return json.loads(json.dumps(passport))


def make_parts(worker: Worker, folder: Path) -> None:
    """Makes the parts that are not there yet."""
    total = sum(len(entries) for entries in worker.entries.values())
    with tqdm(total=total, desc=f"tokenise {worker.task.name}", unit=" clips", dynamic_ncols=True) as bar:
        for split in SPLITS:
            there = [part_path(folder, split, number).is_file() for number in range(worker.part_count(split))]
            for number in np.flatnonzero(there):
                bar.update(_clips_of(load_part(part_path(folder, split, int(number)), worker.task)))
            for number, part in worker.parts(split, [number for number, done in enumerate(there) if not done]):
                save_part(part_path(folder, split, number), part, worker.task)
                bar.update(_clips_of(part))


def check_rejects(worker: Worker, folder: Path, options: BuilderOptions) -> Counter[str]:
    """Writes rejects.jsonl and returns the counts of all parts. Raises ValueError when too many clips were refused."""
    counts: Counter[str] = Counter()
    rejects: list[dict[str, str]] = []
    for split in SPLITS:
        for number in range(worker.part_count(split)):
            part = load_part(part_path(folder, split, number), worker.task)
            counts += part.counts
            rejects += part.rejects
    listing, total = folder.parent / REJECTS, len(worker.corpus.entries)
    listing.write_text("".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in rejects))
    if len(rejects) > options.most_rejects * total or len(rejects) == total:
        first = "; ".join(reject["reason"] for reject in rejects[:SHOWN_REJECTS])
        raise ValueError(
            f"{worker.corpus.place}: {len(rejects)} of {total} clips cannot be used for "
            f"{worker.task.name} (first: {first}); all of them are in {listing}; mend them, or allow "
            "more by --most-rejects (the others are kept, so that another run is quick)"
        )
    return counts


def write_shards(options: BuilderOptions, worker: Worker, parts: Path, passport: dict[str, Any]) -> None:
    """Writes the ArrayRecord files out of the parts, which Beam's workers make first where it is used."""
    # Out of TFDS's registry, which would refuse a second corpus of the task as the same name.
    kind = type("Tokens", (TokenBuilder,), {"name": worker.task.name}, skip_registration=True)
    beam = prepare_beam(options.runner, options.beam_options) if options.runner else None
    with _quiet(), tempfile.TemporaryDirectory() as downloads:
        config = tfds.core.BuilderConfig(name=options.corpus_name)
        builder = kind(
            worker=worker,
            parts=parts,
            passport=passport,
            beam=beam,
            data_dir=str(options.out),
            config=config,
            file_format="array_record",
        )
        largest = max(len(entries) for entries in worker.entries.values())
        how = download_config(-(-largest // RECORDS_PER_SHARD), beam)
        builder.download_and_prepare(download_dir=downloads, download_config=how)


def _check_splits(worker: Worker) -> None:
    for split, entries in worker.entries.items():
        if not entries:
            raise ValueError(
                f"{worker.corpus.place}: no {split} clips; wanted at least one (every 20th clip of a "
                "corpus that names no held-out ones is held out, so two are enough)"
            )


def _check_same_corpus(place: Path, before: dict[str, Any], passport: dict[str, Any]) -> None:
    """Raises ValueError when the dataset that is there was made from another corpus of the same name."""
    got, wanted = before.get("corpus_place"), passport["corpus_place"]
    if got != wanted:
        raise ValueError(
            f"{place}: got a dataset of another corpus of this name ({got}), wanted {wanted}; give this "
            "one another --name, or delete that folder"
        )


def _write_split_index(split: str, place: Path, task: Task) -> dict[str, int]:
    """Writes the index of one split, in the order of its records; returns the items of its target and of its audio."""
    source = open_records(place, split)
    keys = [stream.key for stream in recorded(task)]
    lengths, speakers = {key: np.empty(len(source), np.int32) for key in keys}, []
    for number in range(len(source)):
        record = source[number]
        speakers.append(record["speaker"].decode())
        for key in keys:
            lengths[key][number] = len(record[key])
    write_index(place / "index" / split, make_index(lengths, speakers))
    return {
        "target_frames": int(lengths[task.target.key].sum()),
        "audio_frames": int(np.sum(audio_frames(task, lengths))),
    }


def fingerprint(corpus: Corpus) -> str:
    """Hash of what a corpus lists, and of the sizes and times of its files."""
    rows = []
    for entry in corpus.entries:
        segments = [(name, s.start_seconds, s.seconds, s.channel, *_stat(s.path)) for name, s in entry.audio.items()]
        about = [(name, list(v) if isinstance(v, np.ndarray) else v) for name, v in sorted(entry.about.items())]
        rows.append(repr((entry.id, entry.split, about, sorted(segments))))
    return _sha256("\n".join(rows))


def _stat(path: Path) -> tuple[int, int]:
    if not path.is_file():
        return -1, -1
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _clips_of(part: Part) -> int:
    return len(part.examples) + len(part.rejects)


def _summary(passport: dict) -> str:
    codec = passport["codec"]
    minutes = (
        sum(of["audio_frames"] for of in passport["frames"].values())
        * codec["hop_samples"]
        / codec["sample_rate_hz"]
        / 60
    )
    return ", ".join([*(f"{number} {what}" for what, number in passport["counts"].items()), f"{minutes:.1f} minutes"])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS's own progress bars and notes quiet; ours say the same in one line."""
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)


def main() -> None:
    options = tyro.cli(BuilderOptions, description=__doc__)
    with main_guard():
        use_compile_cache()
        tasks = [get_task(name).name for name in options.task]
        corpus = open_corpus(options.corpus)
        tokenizers = Tokenizers(load_codec(options.codec), options.tokenizers)
        for name in tasks:
            build(options, name, corpus, tokenizers)


if __name__ == "__main__":
    main()
