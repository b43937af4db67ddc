"""The list of metrics. A new one is a `MetricKind` in a file of this folder, and one line here."""

from collections.abc import Mapping, Sequence

from uniaudio_jax.metrics.accuracy import ACCURACY
from uniaudio_jax.metrics.clap_score import CLAP_SCORE
from uniaudio_jax.metrics.distillmos import DISTILLMOS
from uniaudio_jax.metrics.dnsmos import DNSMOS
from uniaudio_jax.metrics.error_rates import TEXT_ERROR_RATES, TOKEN_ERROR_RATE
from uniaudio_jax.metrics.frechet import FRECHET_AUDIO_DISTANCE, FRECHET_CODEC_DISTANCE
from uniaudio_jax.metrics.judges import Judges
from uniaudio_jax.metrics.kl_divergence import KL_DIVERGENCE
from uniaudio_jax.metrics.length import DURATION_ERROR, LENGTH_RATIO
from uniaudio_jax.metrics.masked_words import MASKED_WORDS
from uniaudio_jax.metrics.mel_cepstral_distortion import MEL_CEPSTRAL_DISTORTION
from uniaudio_jax.metrics.mel_distance import ALIGNED_MEL_DISTANCE, MEL_DISTANCE
from uniaudio_jax.metrics.metric import Metric, SetMetric
from uniaudio_jax.metrics.order import PITCH_ORDER, RATE_ORDER
from uniaudio_jax.metrics.pesq import PESQ
from uniaudio_jax.metrics.pitch import ALIGNED_PITCH, PITCH
from uniaudio_jax.metrics.retrieval import RETRIEVAL
from uniaudio_jax.metrics.sample import Sample, Scores
from uniaudio_jax.metrics.si_sdr import SI_SDR
from uniaudio_jax.metrics.speaker_similarity import SPEAKER_SIMILARITY, XVECTOR_SIMILARITY
from uniaudio_jax.metrics.stoi import STOI
from uniaudio_jax.metrics.tempo import TEMPO
from uniaudio_jax.metrics.visqol import VISQOL
from uniaudio_jax.metrics.whisper import WHISPER

METRICS = {
    "stoi": STOI,
    "pesq": PESQ,
    "visqol": VISQOL,
    "si_sdr_db": SI_SDR,
    "mel_distance": MEL_DISTANCE,
    "aligned_mel_distance": ALIGNED_MEL_DISTANCE,
    "mel_cepstral_distortion_db": MEL_CEPSTRAL_DISTORTION,
    "pitch": PITCH,
    "aligned_pitch": ALIGNED_PITCH,
    "rate_order": RATE_ORDER,
    "pitch_order": PITCH_ORDER,
    "tempo": TEMPO,
    "retrieval_at_1": RETRIEVAL,
    "length_ratio": LENGTH_RATIO,
    "duration_error_seconds": DURATION_ERROR,
    "dnsmos": DNSMOS,
    "distillmos": DISTILLMOS,
    "speaker_similarity": SPEAKER_SIMILARITY,
    "xvector_similarity": XVECTOR_SIMILARITY,
    "whisper": WHISPER,
    "masked_words": MASKED_WORDS,
    "text_error_rates": TEXT_ERROR_RATES,
    "token_error_rate": TOKEN_ERROR_RATE,
    "accuracy": ACCURACY,
    "clap_score": CLAP_SCORE,
    "kl_divergence": KL_DIVERGENCE,
    "frechet_codec_distance": FRECHET_CODEC_DISTANCE,
    "frechet_audio_distance": FRECHET_AUDIO_DISTANCE,
}
Metrics = Mapping[str, Metric | SetMetric]
"""Metrics that are ready to measure, by name."""


def make_metrics(names: Sequence[str], judges: Judges) -> dict[str, Metric | SetMetric]:
    """The named metrics with these judges, without those that lack a package or a model: a line is printed about each
    of them. Raises ValueError where a path of the judges is wrong."""
    metrics = {}
    for name in names:
        if remedy := METRICS[name].remedy(judges):
            print(f"{name} is left out; for it {remedy}")
        else:
            metrics[name] = METRICS[name].make(judges)
    return metrics


def scores_of(sample: Sample, metrics: Metrics) -> Scores:
    """The scores of one sample by those of the metrics that are of one sample."""
    scores: Scores = {}
    for metric in metrics.values():
        if isinstance(metric, Metric):
            scores |= metric.measure(sample)
    return scores


def set_values(samples: Sequence[Sample], metrics: Metrics) -> dict[str, float | None]:
    """The values of those of the metrics that are of a set of samples, by name."""
    return {name: metric.measure(samples) for name, metric in metrics.items() if isinstance(metric, SetMetric)}


def higher_is_better(score: str) -> bool | None:
    """Whether more of a score is better; None where neither is, or no metric has the score."""
    better = {name: scale.better for kind in METRICS.values() for name, scale in kind.scales.items()}.get(score)
    return {"higher": True, "lower": False}.get(better or "")
