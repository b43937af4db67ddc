"""Clips to token streams to TFDS ArrayRecord shards, with an index and a passport beside them.

    python -m data_pipelines.builder --corpus DIR --task tts --codec tiny_16k --out TOKENS

makes TOKENS/tts/<corpus name>/1.0.0/. A run that was cut off starts that dataset again; a finished one is left alone
while corpus, codec and tokenizers are the same.
"""

import contextlib
import hashlib
import io
import itertools
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tyro
from absl import logging
from tqdm import tqdm

from data_pipelines.batches import RECORDS_PER_SHARD, open_records
from data_pipelines.corpora import Clip, Split, folder
from data_pipelines.index import PASSPORT, make_index, read_passport, write_index, write_passport
from data_pipelines.streams import Tokenizers
from uniaudio_jax.cli import main_guard, use_compile_cache
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.tasks import DRAWN, KINDS, Task, get_task

SPLITS: tuple[Split, ...] = ("train", "heldout")
VERSION = "1.0.0"
CLIPS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class BuilderOptions:
    """Tokenise a corpus for one or more tasks.

    corpus: folder of audio, with a manifest.jsonl or with .txt files beside the audio.
    task: tasks to build. out: folder of the datasets. name: name of the corpus; its folder's name if not given.
    licence, source: written into the passport.
    """

    corpus: Path
    task: tuple[str, ...]
    out: Path
    codec: str = "tiny_16k"
    name: str | None = None
    licence: str = "unknown"
    source: str = "unknown"


class TokenBuilder(tfds.core.GeneratorBasedBuilder):
    """The TFDS builder of one task and corpus; `dataset_builder` makes the class that carries the task's name."""

    VERSION = tfds.core.Version(VERSION)
    pkg_dir_path = None

    def __init__(self, *, task: Task, corpus: Path, tokenizers: Tokenizers, passport: dict, **options: Any):
        self.task, self.corpus, self.tokenizers, self.passport = task, corpus, tokenizers, passport
        self.counts: Counter[str] = Counter()
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        streams = {stream.key: _feature(stream.kind, self.tokenizers) for stream in recorded(self.task)}
        text = {"id": tfds.features.Text(), "speaker": tfds.features.Text(), "text": tfds.features.Text()}
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Token streams of task {self.task.name}",
            features=tfds.features.FeaturesDict({**text, **streams}),
            metadata=tfds.core.MetadataDict(self.passport),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: Split) -> Iterator[tuple[str, dict]]:
        clips = folder.clips(self.corpus, split)
        bar = iter(tqdm(clips, desc=f"tokenise {self.task.name} {split}", unit=" clips", leave=False))
        while group := list(itertools.islice(bar, CLIPS_AT_ONCE)):
            columns = {s.key: self.tokenizers.streams(s, [_field(clip, s.source, self.task) for clip in group])
                       for s in recorded(self.task)}  # fmt: skip
            for number, clip in enumerate(group):
                self.counts.update([f"clips {split}", *(f"converted from {what}" for what in clip.converted)])
                about = {"id": clip.id, "speaker": clip.speaker or clip.id, "text": clip.text or ""}
                yield clip.id, {**about, **{key: column[number] for key, column in columns.items()}}
        if not self.counts[f"clips {split}"]:
            raise ValueError(f"{self.corpus}: no {split} clips; wanted at least one (every 20th clip of a folder "
                             "without a manifest is held out)")  # fmt: skip


def recorded(task: Task) -> list:
    """The streams of `task` that stand in its records; speaker prompts are drawn when rows are made."""
    return [stream for stream in task.streams if stream.source != DRAWN]


def build(options: BuilderOptions, name: str, tokenizers: Tokenizers) -> Path:
    """Makes one dataset and returns its folder; does nothing when it is there with the same passport."""
    task = get_task(name)
    corpus = options.name or options.corpus.resolve().name
    passport = {
        "task": task.name,
        "corpus": corpus,
        "corpus_sha256": _fingerprint(options.corpus),
        "codec": tokenizers.codec.passport(),
        "tokenizers": tokenizers.passport(task),
        "licence": options.licence,
        "source": options.source,
    }
    place = options.out / task.name / corpus / VERSION
    if (place / PASSPORT).is_file():
        before = read_passport(place)
        if all(before.get(key) == json.loads(json.dumps(value)) for key, value in passport.items()):
            print(f"{task.name}: {place} is up to date ({_summary(before)})")
            return place
    shutil.rmtree(place, ignore_errors=True)
    with _quiet(), tempfile.TemporaryDirectory() as downloads:
        builder = dataset_builder(options, task, corpus, tokenizers, passport)
        largest = max(Counter(entry.split for entry in folder.entries(options.corpus)).values())
        config = tfds.download.DownloadConfig(num_shards=-(-largest // RECORDS_PER_SHARD))
        builder.download_and_prepare(download_dir=downloads, download_config=config)
    counts = dict(builder.counts)
    frames = {split: _write_split_index(split, place, task) for split in SPLITS}
    write_passport(place, {**passport, "counts": counts, "target_frames": frames})
    print(f"{task.name}: {place} ({_summary(read_passport(place))})")
    return place


def dataset_builder(options: BuilderOptions, task: Task, corpus: str, tokenizers: Tokenizers, passport: dict):
    """A TokenBuilder whose TFDS name is the task's and whose config name is the corpus's."""
    # Out of TFDS's registry, which would refuse a second corpus of the task as the same name.
    kind = type("Tokens", (TokenBuilder,), {"name": task.name}, skip_registration=True)
    return kind(task=task, corpus=options.corpus, tokenizers=tokenizers, passport=passport, data_dir=str(options.out),
                config=tfds.core.BuilderConfig(name=corpus), file_format="array_record")  # fmt: skip


def _write_split_index(split: str, place: Path, task: Task) -> int:
    """Writes the index of one split, in the order of its records; returns its target frames."""
    source = open_records(place, split)
    keys = [stream.key for stream in recorded(task)]
    lengths, speakers = {key: np.empty(len(source), np.int32) for key in keys}, []
    for number in range(len(source)):
        record = source[number]
        speakers.append(record["speaker"].decode())
        for key in keys:
            lengths[key][number] = len(record[key])
    write_index(place / "index" / split, make_index(lengths, speakers))
    return int(lengths[task.target.key].sum())


def _feature(kind: str, tokenizers: Tokenizers) -> tfds.features.Tensor:
    form = KINDS[kind].form
    if form == "codes":
        return tfds.features.Tensor(shape=(None, tokenizers.codec.codebooks), dtype=np.int16)
    if form == "vectors":
        return tfds.features.Tensor(shape=(None, tokenizers.text_vectors.width), dtype=np.float16)
    return tfds.features.Tensor(shape=(None,), dtype=np.int16)


def _field(clip: Clip, source: str, task: Task) -> Any:
    value = getattr(clip, source, None)
    if value is None:
        raise ValueError(f"clip {clip.id!r}: no {source}, which task {task.name} is made from; add it to the manifest")
    return value


def _fingerprint(corpus: Path) -> str:
    """Hash of the names, sizes and times of a corpus's files."""
    if not corpus.is_dir():
        raise ValueError(f"{corpus}: no such folder; --corpus wants a folder of audio files")
    files = sorted(path for path in corpus.rglob("*") if path.is_file())
    rows = [f"{path.relative_to(corpus)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _summary(passport: dict) -> str:
    seconds = (
        sum(passport["target_frames"].values()) * passport["codec"]["hop_samples"] / passport["codec"]["sample_rate_hz"]
    )
    return ", ".join(
        [f"{number} {what}" for what, number in passport["counts"].items()] + [f"{seconds / 60:.1f} minutes"]
    )


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
        tokenizers = Tokenizers(load_codec(options.codec))
        for name in tasks:
            build(options, name, tokenizers)


if __name__ == "__main__":
    main()
