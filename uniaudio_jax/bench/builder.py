"""The builder: seconds of audio that it turns into shards a second, each stream of audio counted."""

import contextlib
import io
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from data_pipelines.builder import BuilderOptions, build
from data_pipelines.corpora.opening import open_corpus
from data_pipelines.store import read_passport
from data_pipelines.streams import Tokenizers
from data_pipelines.synthetic import corpus as synthetic
from data_pipelines.synthetic.corpus import SyntheticOptions
from uniaudio_jax.bench.options import RoundsOptions
from uniaudio_jax.codec.codec import load_codec


@dataclass(frozen=True, kw_only=True)
class Options(RoundsOptions):
    """Hours of audio that the builder tokenises an hour."""

    minutes: float = 6.0
    """Minutes of espeak speech that are tokenised."""
    tasks: tuple[str, ...] = ("tts", "enhancement")
    """Tasks that are built from it."""
    codec: str = "tiny_16k"
    """The codec's name or folder."""
    rounds: int = 3
    """Builds that are measured, after one that compiles."""


def run(options: Options) -> dict[str, Any]:
    """Times real time by task, the first build (which compiles) apart."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        out = Path(folder) / "corpus"
        synthetic.main(SyntheticOptions(out=out, minutes=options.minutes, domain=("speech",), voices="espeak"))
        speech = out / "speech"
        rates = {task: median(_rates(options, task, speech, Path(folder))) for task in options.tasks}
    return {"unit": "x real time", "rates": rates, "ratios": {}, "rounds": options.rounds}


def _rates(options: Options, task: str, corpus: Path, folder: Path) -> list[float]:
    """Seconds of audio encoded for each second, by round."""
    tokenizers = Tokenizers(load_codec(options.codec))
    rates = []
    for number in range(options.rounds + 1):
        out = folder / f"{task}{number}"
        settings = BuilderOptions(corpus=(str(corpus),), task=(task,), out=out, codec=options.codec)
        (named,) = settings.corpora
        start = time.perf_counter()
        columns = build(settings, named, open_corpus(named.place), tokenizers)
        seconds = time.perf_counter() - start
        passports = [read_passport(folder) for folder in columns]
        frames = sum(sum(passport["items"].values()) for passport in passports if passport["codec"])
        rates.append(frames / tokenizers.codec.clock.frame_rate_hz / seconds)
    return rates[1:]
