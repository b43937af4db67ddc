"""Clips as they were before the codec: their waveforms, out of the corpus that a column was made from."""

import functools
from typing import Any

import numpy as np
from jaxtyping import Float

from data_pipelines.corpora import Entry, Split
from data_pipelines.mixers import MixerOptions
from data_pipelines.parts import Job, Worker
from data_pipelines.streams import Tokenizers
from uniaudio_jax.config_files import from_dict
from uniaudio_jax.tasks import Stream


class Originals:
    """The waveforms that one stream of audio codes was made from, for the clips of a split.

    Raises ValueError, which says why, where they cannot be had: the corpus has moved, or sounds or rooms were mixed in
    that the column's passport knows by their hashes alone.
    """

    def __init__(self, passport: dict[str, Any], stream: Stream, split: Split, tokenizers: Tokenizers):
        self.stream, self.clock = stream, tokenizers.codec.clock
        self.split: Split = split
        mixers, seed, where = MixerOptions(), 0, f"the passport of {passport['corpus']}/{passport['stream']}"
        if "corpus_place" not in passport:
            raise ValueError(f"{where} does not say where the corpus is")
        if mixing := passport["mixing"]:
            if mixing["sounds"] or mixing["options"].get("rooms_from"):
                raise ValueError(f"{where}: sounds or rooms were mixed in, which it knows by their hashes alone")
            mixers, seed = from_dict(MixerOptions, mixing["options"], where), mixing["seed"]
        job = Job(corpus=passport["corpus_place"], codec=passport["codec"]["codec"], mixers=mixers, seed=seed)
        self.worker = Worker(job, tokenizers)

    @functools.cached_property
    def entries(self) -> dict[str, Entry]:
        """The split's entries by id."""
        corpus = self.worker.corpus
        listed = (corpus.entries[int(number)] for number in corpus.numbers(self.split))
        return {entry.id: entry for entry in listed}

    def waveform(self, clip: str, frames: int) -> Float[np.ndarray, " S"]:
        """The samples of a clip, whose codes have so many frames, at the codec's rate.

        Raises ValueError for a clip that the corpus does not hold, or holds in another length.
        """
        where = f"{self.worker.job.corpus}: clip {clip!r}"
        if clip not in self.entries:
            raise ValueError(f"{where} is not there; put back the corpus that the tokens were made from")
        wav = getattr(self.worker.clip_of(self.stream, self.entries[clip]), self.stream.source)
        if self.clock.frames_of_samples(len(wav)) != frames:
            raise ValueError(
                f"{where} has {len(wav)} samples, its codes stand for {frames} frames of {self.clock.hop_samples}; "
                "build the tokens again with `python -m data_pipelines.builder`"
            )
        return wav
