"""The builder: seconds of audio that it turns into shards a second, each stream of audio counted."""

import contextlib
import io
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from data_pipelines.builder import BuilderOptions, build
from data_pipelines.corpora.opening import open_corpus
from data_pipelines.index import read_passport
from data_pipelines.streams import Tokenizers, recorded
from data_pipelines.synthetic import corpus as synthetic
from uniaudio_jax.bench.options import BuilderBench
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.tasks import KINDS, get_task


def run(options: BuilderBench) -> dict[str, Any]:
    """Times real time by task, the first build (which compiles) apart."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        made = synthetic.SyntheticOptions(
            out=Path(folder) / "corpus", minutes=options.minutes, domain=("speech",), voices="espeak"
        )
        synthetic.main(made)
        speech = Path(folder) / "corpus" / "speech"
        rates = {task: median(_rates(options, task, speech, Path(folder))) for task in options.tasks}
    return {"unit": "x real time", "rates": rates, "ratios": {}, "rounds": options.rounds}


def _rates(options: BuilderBench, name: str, corpus: Path, folder: Path) -> list[float]:
    tokenizers, task = Tokenizers(load_codec(options.codec)), get_task(name)
    streams = sum(KINDS[stream.kind].form == "codes" for stream in recorded(task))
    found = []
    for number in range(options.rounds + 1):
        settings = BuilderOptions(corpus=str(corpus), task=(name,), out=folder / f"{name}{number}", codec=options.codec)
        start = time.perf_counter()
        place = build(settings, name, open_corpus(str(corpus)), tokenizers)
        seconds = time.perf_counter() - start
        frames = sum(of["audio_frames"] for of in read_passport(place)["frames"].values())
        found.append(streams * frames / tokenizers.codec.config.frame_rate_hz / seconds)
    return found[1:]
