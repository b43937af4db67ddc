"""Every metric gives known values, and keeps one rule each for silence, no samples, and unequal lengths."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg

from uniaudio_jax.metrics import mel_cepstral_distortion as mcd
from uniaudio_jax.metrics import whisper
from uniaudio_jax.metrics.frechet import codec_vectors
from uniaudio_jax.metrics.judges import Judges
from uniaudio_jax.metrics.metric import Metric
from uniaudio_jax.metrics.registry import METRICS, make_metrics, scores_of, set_values
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, mean_score
from uniaudio_jax.metrics.vectors import frechet_distance
from uniaudio_jax.tasks import TASKS

RATE = 16000
WAVEFORM_METRICS = ("stoi", "pesq", "visqol", "mel_distance", "si_sdr_db")
EMPTY = np.zeros(0, np.float32)


def score(name: str, reference, estimate, rate: int = RATE, **texts: Any) -> Score:
    """The score of this name, by the metric that gives it."""
    sample = Sample(reference=np.asarray(reference), estimate=np.asarray(estimate), sample_rate_hz=rate, **texts)
    (metric,) = [metric for metric, kind in METRICS.items() if name in kind.scales]
    return scores_of(sample, make_metrics([metric], Judges()))[name]


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


def test_characters_are_compared_with_a_space_between_words():
    """`kitten` is three edits from `sitting`, and the other five characters are equal."""
    assert score("character_error_rate", [], [], text="Kitten, sits.", estimate_text="sitting   sits") == (3, 11)
    assert score("character_error_rate", [], [], estimate_text="one") == NO_SCORE


def test_what_whisper_hears_is_compared_with_the_text(monkeypatch):
    monkeypatch.setattr(whisper, "transcript", lambda wav, rate_hz, model: "Hello duck.")
    sample = Sample(reference=EMPTY, estimate=EMPTY, sample_rate_hz=RATE, text="Hello, world!")
    model: Any = None
    scores = whisper.whisper(sample, model)
    assert scores == {"whisper_word_error_rate": (1, 2), "whisper_character_error_rate": (5, 11)}
    assert set(whisper.whisper(replace(sample, text=None), model).values()) == {NO_SCORE}


def test_nothing_is_heard_in_silence():
    model: Any = None  # it is not asked
    for silence in (EMPTY, np.zeros(RATE, np.float32)):
        sample = Sample(reference=EMPTY, estimate=silence, sample_rate_hz=RATE, text="one two")
        assert whisper.whisper(sample, model)["whisper_word_error_rate"] == (2, 2)


@pytest.mark.skipif(not METRICS["whisper"].installed, reason="Whisper is an optional extra")
def test_words_are_heard_in_speech_and_not_in_noise():
    speech_clip = pytest.importorskip("data_pipelines.synthetic.voices").speech_clip
    pytest.importorskip("espeakng_loader")
    text = "The old fisherman bought two large suitcases yesterday."
    clip = speech_clip("en-us+m3", text)
    assert score("whisper_word_error_rate", clip, clip, text=text).total <= 2
    assert score("whisper_word_error_rate", clip, noisy(clip, -20), text=text).total >= 6
    assert score("whisper_character_error_rate", clip, clip, text=text).total <= 0.2 * len(text)


# Pace


def two_tones(first_hops: int, second_hops: int) -> np.ndarray:
    """1 kHz and then 2 kHz, each for so many hops of the mel spectrum, which hold whole periods."""
    hops = [np.sin(2 * np.pi * frequency * np.arange(256) / RATE) for frequency in (1000, 2000)]
    return np.concatenate([np.tile(hops[0], first_hops), np.tile(hops[1], second_hops)]).astype(np.float32)


def test_aligned_distances_of_the_same_sounds_at_another_pace_are_0():
    reference, estimate = two_tones(23, 17), two_tones(11, 41)
    assert value("aligned_mel_distance", reference, estimate) == pytest.approx(0, abs=1e-6)
    assert value("mel_cepstral_distortion_db", reference, estimate) == pytest.approx(0, abs=1e-5)
    assert value("mel_distance", reference, estimate) > 0.3


def test_an_aligned_distance_is_at_most_that_of_the_same_frames(speech):
    other = noisy(speech, 5)[::-1].copy()
    assert 0 < value("aligned_mel_distance", speech, other) <= value("mel_distance", speech, other)


def test_mel_cepstral_distortion_is_the_root_mean_square_difference_of_spectra_in_db(monkeypatch):
    """A cosine of amplitude a over the bands of log amplitudes is a / sqrt(2) in its root mean square."""
    bands, amplitude = (np.arange(80) + 0.5) / 80, 0.7
    spectra = [np.full((5, 80), 3.0), np.full((5, 80), 2.0) + amplitude * np.cos(np.pi * 7 * bands)]
    monkeypatch.setattr(mcd, "log_mel_frames", lambda wav, rate_hz: spectra[len(wav) - 11])
    decibels = 20 / math.log(10) * amplitude / math.sqrt(2)
    assert value("mel_cepstral_distortion_db", np.ones(11), np.ones(12)) == pytest.approx(decibels, rel=1e-6)


@pytest.mark.parametrize("metric", ["aligned_mel_distance", "mel_cepstral_distortion_db"])
def test_an_empty_estimate_is_as_far_as_silence_and_an_empty_reference_has_no_score(metric, speech):
    silence = np.zeros_like(speech)
    assert value(metric, speech, EMPTY) == value(metric, speech, silence) > 1
    assert value(metric, silence, silence) == value(metric, speech, speech) == 0
    assert score(metric, EMPTY, speech) == NO_SCORE


def test_a_duration_error_is_in_seconds():
    assert value("duration_error_seconds", np.zeros(7 * RATE), np.zeros(5 * RATE)) == 2
    assert value("duration_error_seconds", EMPTY, np.zeros(RATE // 2)) == 0.5


# Pitch


def glide(samples: int, cents: float = 0.0) -> np.ndarray:
    """A sound of five harmonics whose pitch rises from 110 Hz by an octave, raised by `cents`."""
    hertz = 110 * 2 ** (np.arange(samples) / samples + cents / 1200)
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    numbers = np.arange(1, 6)[:, None]
    return (0.1 * (np.sin(numbers * phase) / numbers).sum(axis=0)).astype(np.float32)


@pytest.fixture
def world():
    if not METRICS["pitch"].installed:
        pytest.skip("pyworld is an optional package")


def test_a_tone_a_semitone_higher_is_100_cents_off_and_moves_as_the_reference(world):
    reference, higher = glide(2 * RATE), glide(2 * RATE, cents=100)
    assert value("f0_rmse_cents", reference, higher) == pytest.approx(100, abs=3)
    assert value("f0_correlation", reference, higher) == pytest.approx(1, abs=0.01)
    assert value("f0_correlation", reference, higher[::-1]) == pytest.approx(-1, abs=0.05)
    assert value("voicing_error", reference, higher) == pytest.approx(0, abs=0.05)


def test_aligned_pitch_is_that_of_the_same_melody_at_another_pace(world):
    reference, slower = glide(RATE), glide(2 * RATE)
    assert value("aligned_f0_rmse_cents", reference, slower) < 40 < 200 < value("f0_rmse_cents", reference, slower)
    assert value("aligned_f0_correlation", reference, slower) > 0.99


def test_a_voicing_error_is_the_share_of_time_in_which_one_side_has_no_pitch(world):
    reference = glide(2 * RATE)
    half = np.where(np.arange(2 * RATE) < RATE, reference, np.float32(0))
    assert value("voicing_error", reference, half) == pytest.approx(0.5, abs=0.03)
    assert value("voicing_error", reference, EMPTY) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", ["f0_rmse_cents", "f0_correlation", "voicing_error"])
def test_what_has_no_pitch_has_no_score_of_it(name, world):
    silence = np.zeros(RATE, np.float32)
    for prefix in ("", "aligned_"):
        expected = (0, 1) if name == "voicing_error" else NO_SCORE
        assert score(prefix + name, silence, silence) == expected
        assert score(prefix + name, silence[:101], silence[:101]) == expected
        assert score(prefix + name, EMPTY, glide(RATE)) == NO_SCORE


# Labels, and sets of samples


def test_accuracy_is_1_for_the_same_ids_in_any_order():
    assert value("accuracy", [3, 5], [5, 3]) == 1
    assert value("accuracy", [3, 5], [3]) == value("accuracy", [3], []) == value("accuracy", [], [3]) == 0


def vectors_with(mean: list[float], covariance: np.ndarray) -> np.ndarray:
    """101 vectors that have this mean and covariance exactly."""
    raw = np.random.default_rng(0).standard_normal((101, len(mean)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_the_frechet_distance_of_gaussians_is_the_closed_form():
    """Where covariances share their axes: the squared distances of the means and of the standard deviations."""
    first = vectors_with([0.0, 1.0], np.diag([4.0, 9.0]))
    second = vectors_with([3.0, 5.0], np.diag([1.0, 25.0]))
    assert frechet_distance(first, second) == pytest.approx(9 + 16 + 1 + 4)
    assert frechet_distance(first[:, :1], second[:, :1]) == pytest.approx(9 + 1)


def test_the_frechet_distance_of_other_gaussians_is_that_by_a_matrix_root():
    one, other = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])
    root = np.real(scipy.linalg.sqrtm(one @ other))
    expected = np.trace(one + other - 2 * root) + 4
    assert frechet_distance(vectors_with([0, 0], one), vectors_with([0, 2], other)) == pytest.approx(expected)


def codec_distance(*pairs: tuple[np.ndarray, np.ndarray]) -> float | None:
    samples = [Sample(reference=first, estimate=second, sample_rate_hz=RATE) for first, second in pairs]
    (distance,) = set_values(samples, make_metrics(["frechet_codec_distance"], Judges())).values()
    return distance


def test_the_frechet_codec_distance_grows_with_noise_and_is_0_for_the_references(speech):
    halves = speech[:16000], speech[16000:]
    near, far = (codec_distance(*((half, noisy(half, snr_db)) for half in halves)) for snr_db in (30, 0))
    assert near is not None and far is not None
    assert codec_distance(*zip(halves, halves, strict=True)) == pytest.approx(0, abs=1e-6) and 0 < near < far


def test_the_distance_of_sets_is_undefined_for_one_sample_and_for_empty_estimates(speech):
    assert codec_distance((speech, speech)) is None and codec_distance() is None
    assert codec_distance((speech, EMPTY), (speech, EMPTY)) is None
    first, second, other = speech[:16000], speech[16000:], noisy(speech, 5)
    references = np.concatenate([codec_vectors(wav, RATE) for wav in (first, second)])
    expected = frechet_distance(references, codec_vectors(other, RATE))
    assert codec_distance((first, other), (second, EMPTY)) == pytest.approx(expected)


# What the metrics have in common


def test_more_noise_is_worse_by_every_metric_of_waveforms(metric, speech):
    values = [value(metric, speech, noisy(speech, snr_db)) for snr_db in (30, 15, 0)]
    assert values == sorted(values, reverse=metric != "mel_distance") and len(set(values)) == 3


def test_an_estimate_is_cut_or_followed_by_silence_to_the_length_of_the_reference(metric, speech):
    estimate = noisy(speech, 5)
    assert value(metric, speech[:20011], estimate) == value(metric, speech[:20011], estimate[:20011])
    padded = np.concatenate([estimate[:20011], np.zeros(13590, np.float32)])
    assert value(metric, speech, estimate[:20011]) == value(metric, speech, padded)


@pytest.mark.parametrize(("metric", "worst"), [("stoi", 0), ("pesq", 1.04), ("visqol", 1), ("si_sdr_db", -100)])
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
    if metric in ("stoi", "pesq", "visqol"):
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
        assert aligned or not {"stoi", "pesq", "visqol", "si_sdr_db"} & set(task.metrics), task.name


@pytest.fixture(scope="module")
def installed():
    return make_metrics([name for name, kind in METRICS.items() if not kind.remedy(Judges())], Judges())


def test_the_reference_itself_is_perfect_by_every_metric_that_compares(installed, speech):
    samples = [Sample(reference=wav, estimate=wav, sample_rate_hz=RATE, text="") for wav in (speech, speech[:20011])]
    values = {name: score.total for name, score in scores_of(samples[0], installed).items()}
    values |= set_values(samples, installed)
    for metric in installed.values():
        for name, scale in metric.about.scales.items():
            assert name in values
            if scale.better == "lower":
                assert values[name] == pytest.approx(0, abs=1e-5), name
    assert values["length_ratio"] == values["accuracy"] == 1


def test_a_score_is_within_its_scale(installed, speech):
    for estimate in (noisy(speech, 5), np.zeros_like(speech), EMPTY):
        sample = Sample(reference=speech, estimate=estimate, sample_rate_hz=RATE, text="one two", estimate_text="one")
        for metric in installed.values():
            if isinstance(metric, Metric):
                scores = metric.measure(sample)
                assert set(scores) == set(metric.about.scales)
                for name, (total, weight) in scores.items():
                    scale = metric.about.scales[name]
                    lowest, highest = scale.lowest, scale.highest
                    assert not weight or lowest is None or total / weight >= lowest - 1e-2, name
                    assert not weight or highest is None or total / weight <= highest + 1e-2, name


def test_a_metric_tells_what_it_measures_with(installed):
    about = installed["frechet_codec_distance"].about
    assert about.model == "tiny_16k" and len(about.model_sha256) == 64 and about.rate_hz == 16000
    assert installed["si_sdr_db"].about.library.startswith("uniaudio_jax ")


def test_a_metric_that_lacks_something_is_left_out_with_a_remedy(monkeypatch, capsys):
    monkeypatch.setitem(METRICS, "stoi", replace(METRICS["stoi"], packages=("no_such_package",)))
    assert set(make_metrics(["stoi", "clap_score", "length_ratio"], Judges())) == {"length_ratio"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "stoi is left out; for it run `bash launch/install.sh quickstart`"
    assert lines[1].startswith("clap_score is left out; for it ") and lines[1].endswith("give --judges.clap PATH")
