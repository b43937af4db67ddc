"""The TFDS builder that writes parts as ArrayRecord shards, in this process or on Apache Beam."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.corpora import SPLITS, Split
from data_pipelines.parts import Worker, examples_of_part
from data_pipelines.streams import Tokenizers, recorded
from uniaudio_jax.tasks import KINDS

VERSION = "1.0.0"


class Beam(NamedTuple):
    """The module apache_beam, and the options of a pipeline."""

    module: Any
    options: Any


class TokenBuilder(tfds.core.GeneratorBasedBuilder):
    """The TFDS builder of one task and corpus; a subclass carries the task's name."""

    VERSION = tfds.core.Version(VERSION)
    pkg_dir_path = None

    def __init__(self, *, worker: Worker, parts: Path, passport: dict, beam: Beam | None, **options: Any):
        self.job, self.task, self.parts, self.passport, self.beam = worker.job, worker.task, parts, passport, beam
        self.part_counts = {split: worker.part_count(split) for split in SPLITS}
        self.stream_features = {s.key: _feature(s.kind, worker.tokenizers) for s in recorded(worker.task)}
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        text = {"id": tfds.features.Text(), "speaker": tfds.features.Text(), "text": tfds.features.Text()}
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Token streams of task {self.task.name}",
            features=tfds.features.FeaturesDict({**text, **self.stream_features}),
            metadata=tfds.core.MetadataDict(self.passport),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: Split) -> Any:
        numbers, make = range(self.part_counts[split]), partial(examples_of_part, self.job, self.parts, split)
        if self.beam is not None:
            beam = self.beam.module
            return beam.Create(list(numbers)) | beam.Reshuffle() | beam.FlatMap(make)
        return self._in_process(numbers, make)

    def _in_process(self, numbers: Any, make: Any) -> Iterator[tuple[str, dict]]:
        for number in numbers:
            yield from make(number)


def prepare_beam(runner: str, options: tuple[str, ...]) -> Beam:
    """Beam with the options of its runner. Raises ValueError without the package."""
    try:
        import apache_beam  # pyright: ignore[reportMissingImports]
        from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"--runner {runner}: got no package apache-beam, wanted it; run `bash launch/install.sh beam`"
        ) from error
    return Beam(apache_beam, PipelineOptions(flags=[f"--runner={runner}", *options]))


def download_config(shards: int, beam: Beam | None) -> tfds.download.DownloadConfig:
    """How TFDS writes: into so many files a split, with Beam's options where it runs."""
    return tfds.download.DownloadConfig(num_shards=shards, beam_options=beam.options if beam else None)


def _feature(kind: str, tokenizers: Tokenizers) -> tfds.features.Tensor:
    form = KINDS[kind].form
    if form == "codes":
        return tfds.features.Tensor(shape=(None, tokenizers.codec.codebooks), dtype=np.int16)
    if form == "vectors":
        return tfds.features.Tensor(shape=(None, tokenizers.text_vectors.width), dtype=np.float16)
    return tfds.features.Tensor(shape=(None,), dtype=np.int16)
