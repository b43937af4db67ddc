"""Every metric gives known values, and keeps one rule each for silence, no samples, and unequal lengths."""

import math
from typing import Any

import numpy as np
import pytest

from uniaudio_jax.metrics import whisper
from uniaudio_jax.metrics.registry import METRICS, scores_of
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, mean_score
from uniaudio_jax.tasks import TASKS

RATE = 16000
WAVEFORM_METRICS = ("stoi", "pesq", "mel_distance", "si_sdr_db")
EMPTY = np.zeros(0, np.float32)


def score(name: str, reference, estimate, rate: int = RATE, **texts: Any) -> Score:
    sample = Sample(reference=np.asarray(reference), estimate=np.asarray(estimate), sample_rate_hz=rate, **texts)
    return scores_of(sample, {name: METRICS[name]})[name]


def value(name: str, reference, estimate, rate: int = RATE) -> float:
    total, weight = score(name, reference, estimate, rate)
    assert weight == 1
    return total


@pytest.fixture(params=WAVEFORM_METRICS)
def metric(request) -> str:
    if not METRICS[request.param].installed:
        pytest.skip(f"{request.param} is an optional extra")
    return request.param


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Noise with a syllable-like envelope, 2.1 s: STOI hears its modulation."""
    rng = np.random.default_rng(0)
    time = np.arange(33601) / RATE
    return (rng.standard_normal(33601) * (1.05 + np.sin(2 * np.pi * 3.7 * time)) * 0.05).astype(np.float32)


def noisy(signal: np.ndarray, snr_db: float) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(len(signal)).astype(np.float32)
    noise -= np.dot(noise, signal) / np.dot(signal, signal) * signal
    return signal + noise * np.linalg.norm(signal) / np.linalg.norm(noise) * 10 ** (-snr_db / 20)


# Known values


def test_stoi_is_1_at_any_gain_and_one_half_of_what_is_silent_half_of_the_time(speech):
    pytest.importorskip("pystoi")
    assert value("stoi", speech, 0.3 * speech) == pytest.approx(1, abs=1e-5)
    long = np.tile(speech, 17)
    half = np.where(np.arange(len(long)) < len(long) / 2, long, np.float32(0))
    assert value("stoi", long, half) == pytest.approx(0.5, abs=0.01)


def test_pesq_of_the_reference_is_the_highest_value_of_its_standard(speech):
    """P.862.2 maps the raw score x to 0.999 + 4 / (1 + exp(3.8224 - 1.3669 x)); the raw score is at most 4.5."""
    pytest.importorskip("pesq")
    highest = 0.999 + 4 / (1 + math.exp(3.8224 - 1.3669 * 4.5))
    assert value("pesq", speech, speech) == pytest.approx(highest, abs=1e-3)
    assert value("pesq", np.repeat(speech, 3), np.repeat(speech, 3), 3 * RATE) == pytest.approx(highest, abs=0.01)


def test_mel_distance_of_a_gain_is_its_logarithm(speech):
    for gain in (1, math.e, 0.2):
        assert value("mel_distance", speech, gain * speech) == pytest.approx(abs(math.log(gain)), abs=0.02)


@pytest.mark.parametrize("snr_db", [-7, 0, 13])
@pytest.mark.parametrize("scale", [0.3, -1, 5])
def test_si_sdr_is_the_ratio_of_orthogonal_noise_at_any_scale(speech, snr_db, scale):
    speech = speech - speech.mean()
    assert value("si_sdr_db", speech, scale * noisy(speech, snr_db)) == pytest.approx(snr_db, abs=0.05)


def test_si_sdr_is_that_of_torchmetrics_and_at_most_100_db(speech):
    """The example of torchmetrics' scale_invariant_signal_noise_ratio, which subtracts means too."""
    assert value("si_sdr_db", [3.0, -0.5, 2.0, 7.0], [2.5, 0.0, 2.0, 8.0]) == pytest.approx(15.0918, abs=1e-4)
    assert value("si_sdr_db", speech, 7 * speech + 0.3) == 100


def test_length_ratio_is_the_estimates_length_over_the_references():
    assert value("length_ratio", np.zeros(7), np.zeros(14)) == 2


def test_kitten_is_three_edits_from_sitting():
    assert score("token_error_rate", [*b"kitten"], [*b"sitting"]) == (3, 6)


def test_words_are_compared_in_lower_case_and_without_punctuation():
    """`hello duck` for `hello world`, the first example of jiwer, is 1 error in 2 words."""
    assert score("word_error_rate", [], [], text="Hello, world!", estimate_text="hello duck") == (1, 2)
    assert score("word_error_rate", [], [], text="It's 3 o'clock.", estimate_text="its 3 o'clock") == (1, 3)
    assert score("word_error_rate", [], [], text="one") == NO_SCORE


def test_what_whisper_hears_is_compared_with_the_text(monkeypatch):
    monkeypatch.setattr(whisper, "transcript", lambda wav, rate_hz: "Hello duck.")
    assert score("whisper_word_error_rate", [0.0], [0.0], text="Hello, world!") == (1, 2)
    assert score("whisper_word_error_rate", [0.0], [0.0]) == NO_SCORE


@pytest.mark.skipif(not METRICS["whisper_word_error_rate"].installed, reason="Whisper is an optional extra")
def test_words_are_heard_in_speech_and_not_in_noise():
    speech_clip = pytest.importorskip("data_pipelines.synthetic.voices").speech_clip
    pytest.importorskip("espeakng_loader")
    text = "The old fisherman bought two large suitcases yesterday."
    clip = speech_clip("en-us+m3", text)
    assert score("whisper_word_error_rate", clip, clip, text=text).total <= 2
    assert score("whisper_word_error_rate", clip, noisy(clip, -20), text=text).total >= 6


# What the metrics have in common


def test_more_noise_is_worse_by_every_metric_of_waveforms(metric, speech):
    values = [value(metric, speech, noisy(speech, snr_db)) for snr_db in (30, 15, 0)]
    assert values == sorted(values, reverse=metric != "mel_distance") and len(set(values)) == 3


def test_an_estimate_is_cut_or_followed_by_silence_to_the_length_of_the_reference(metric, speech):
    estimate = noisy(speech, 5)
    assert value(metric, speech[:20011], estimate) == value(metric, speech[:20011], estimate[:20011])
    padded = np.concatenate([estimate[:20011], np.zeros(13590, np.float32)])
    assert value(metric, speech, estimate[:20011]) == value(metric, speech, padded)


@pytest.mark.parametrize(("metric", "worst"), [("stoi", 0), ("pesq", 1.04), ("si_sdr_db", -100)])
def test_a_silent_or_empty_estimate_has_the_worst_value(metric, worst, speech):
    if not METRICS[metric].installed:
        pytest.skip(f"{metric} is an optional extra")
    for estimate in (np.zeros_like(speech), EMPTY):
        assert value(metric, speech, estimate) == pytest.approx(worst, abs=1e-3)


def test_mel_distance_has_a_value_for_silence_on_either_side():
    silence, noise = np.zeros(RATE, np.float32), np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    assert value("mel_distance", silence, silence) == 0
    assert value("mel_distance", noise, EMPTY) == value("mel_distance", noise, silence) > 3
    assert value("mel_distance", silence, noise) == value("mel_distance", noise, silence)


def test_a_reference_without_sound_or_too_short_has_no_score(metric, speech):
    assert score(metric, EMPTY, speech) == NO_SCORE
    if metric != "mel_distance":
        assert score(metric, np.zeros_like(speech), speech) == NO_SCORE
    if metric in ("stoi", "pesq"):
        for samples in (1, 101, 3989):
            assert score(metric, speech[:samples], speech[:samples]) == NO_SCORE
    if metric == "si_sdr_db":
        assert score(metric, np.full_like(speech, 0.1), speech) == NO_SCORE


def test_empty_sequences_count_their_edits():
    assert score("length_ratio", EMPTY, [0.5]) == NO_SCORE
    assert value("length_ratio", [0.5], EMPTY) == 0
    assert score("token_error_rate", [], [5, 7, 7]) == (3, 0)
    assert score("token_error_rate", [5, 7, 7], []) == (3, 3)
    assert score("word_error_rate", [], [], text="", estimate_text="one two") == (2, 0)
    assert score("word_error_rate", [], [], text="one two", estimate_text="") == (2, 2)
    assert score("whisper_word_error_rate", EMPTY, EMPTY, text="one two") == (2, 2)


@pytest.mark.parametrize("bad", [np.zeros((7, 2)), np.array([0.1, np.nan])])
def test_what_is_no_waveform_is_refused(metric, speech, bad):
    with pytest.raises(ValueError, match="got estimate of shape .* wanted finite samples"):
        score(metric, speech, bad)
    with pytest.raises(ValueError, match="got reference of shape"):
        score(metric, bad, speech)


def test_a_rate_is_all_errors_over_all_references_and_undefined_samples_change_nothing():
    rates = [score("token_error_rate", [3] * 10, [3] * 9), score("token_error_rate", [3, 5], [7, 11])]
    assert mean_score(rates) == 3 / 12
    assert mean_score([Score(0.25, 1), NO_SCORE, Score(0.75, 1)]) == 0.5
    assert mean_score([NO_SCORE]) is None and mean_score([]) is None


def test_every_task_names_metrics_that_there_are():
    for task in TASKS.values():
        assert set(task.metrics) <= set(METRICS), task.name


def test_only_a_task_that_is_given_the_audio_of_its_target_is_compared_sample_by_sample():
    for task in TASKS.values():
        aligned = any(stream.kind == task.target.kind == "audio" for stream in task.conditions)
        assert aligned or not {"stoi", "pesq", "si_sdr_db"} & set(task.metrics), task.name
