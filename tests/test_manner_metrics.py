"""Order, tempo, retrieval and masked words: known values of signals whose manner is known."""

from dataclasses import replace

import numpy as np
import pytest

from uniaudio_jax.metrics import masked_words
from uniaudio_jax.metrics.judges import Judges, Model
from uniaudio_jax.metrics.order import pitch_order, rate_order
from uniaudio_jax.metrics.pitch import CENTS, compared
from uniaudio_jax.metrics.registry import METRICS
from uniaudio_jax.metrics.retrieval import retrieval_at_1
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score
from uniaudio_jax.metrics.tempo import tempo

RATE = 16000
EMPTY = np.zeros(0, np.float32)


def of(reference: np.ndarray, estimate: np.ndarray, text: str = "twelve letters") -> Sample:
    return Sample(reference=reference, estimate=estimate, sample_rate_hz=RATE, text=text)


def hum(seconds: float, hertz: float = 131.0, silence: float = 0.0) -> np.ndarray:
    """A tone of five harmonics with silence on both sides."""
    phase = 2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE
    tone = sum(0.1 / number * np.sin(number * phase) for number in range(1, 6))
    return np.pad(np.asarray(tone, np.float32), round(silence * RATE))


def clicks(beats_per_minute: float, seconds: float = 11.0) -> np.ndarray:
    wav, burst = np.zeros(round(seconds * RATE), np.float32), np.random.default_rng(0).standard_normal(800)
    for place in np.arange(0, len(wav) - 800, 60 / beats_per_minute * RATE).astype(int):
        wav[place : place + 800] = 0.3 * burst
    return wav


def test_the_rate_is_letters_over_seconds_without_silence_at_the_ends():
    fast, slow = of(hum(1.1), hum(1.1)), of(hum(2.3), hum(2.3))
    assert rate_order([fast, slow]) == 1
    assert rate_order([replace(fast, estimate=slow.estimate), replace(slow, estimate=fast.estimate)]) == 0
    padded = [replace(fast, estimate=hum(1.1, silence=1.3)), slow]
    assert rate_order(padded) == 1, "silence is no slower speech"
    assert rate_order([fast, replace(fast, text="just half")]) == 1, "the same time with fewer letters is slower"
    assert rate_order([fast, replace(slow, estimate=EMPTY)]) == 0
    assert rate_order([fast, fast]) is rate_order([fast, replace(slow, text="")]) is rate_order([]) is None


def test_pitch_order_counts_pairs_that_clearly_differ():
    if not METRICS["pitch_order"].installed:
        pytest.skip("pyworld is an optional package")
    low, high, higher = (hum(1.1, hertz) for hertz in (110, 170, 174))
    samples = [of(low, low), of(high, higher), of(higher, high)]
    assert pitch_order(samples) == 1, "the second and third differ by less than two semitones"
    assert pitch_order([of(low, high), of(high, low)]) == pitch_order([of(low, high), of(high, EMPTY)]) == 0
    assert pitch_order([of(low, low)]) is pitch_order([of(EMPTY, low), of(high, low)]) is None


@pytest.mark.parametrize(("estimate", "right", "but_for_octave"), [(96, 1, 1), (101, 1, 1), (192, 0, 1), (131, 0, 0)])
def test_a_tempo_is_right_within_a_tenth(estimate, right, but_for_octave):
    scores = tempo(of(clicks(96), clicks(estimate)))
    assert scores == {"tempo_within_10_percent": Score(right, 1), "tempo_but_for_octave": Score(but_for_octave, 1)}


def test_silence_has_no_tempo():
    assert set(tempo(of(clicks(96), EMPTY)).values()) == {Score(0, 1)}
    assert set(tempo(of(EMPTY, clicks(96))).values()) == {NO_SCORE}


def test_retrieval_counts_the_estimates_that_are_nearest_to_their_own_reference():
    sounds = [hum(1.1, hertz) for hertz in (97, 211, 401, 809)]
    quieter = [of(sound, 0.9 * np.resize(sound, 13001)) for sound in sounds]
    assert retrieval_at_1(quieter) == 1
    moved = [of(sound, other) for sound, other in zip(sounds, np.roll(sounds, 1, axis=0), strict=True)]
    assert retrieval_at_1(moved) == 0
    assert retrieval_at_1([*quieter[:3], of(sounds[3], sounds[0])]) == 0.75
    assert retrieval_at_1(quieter[:1]) is retrieval_at_1([of(EMPTY, EMPTY), *quieter]) is None


def test_raw_pitch_accuracy_is_of_the_frames_where_the_reference_has_a_pitch():
    none, note = np.nan, CENTS * np.log2(220)
    reference = np.array([none, note, note, note, note])
    estimate = np.array([note, note + 49, note - 51, none, note])
    assert compared(reference, estimate)["raw_pitch_accuracy"] == (0.5, 1)
    assert compared(reference[:1], estimate[:1])["raw_pitch_accuracy"] == NO_SCORE


def test_words_count_where_their_middle_lies_in_the_longest_silence(monkeypatch, tmp_path):
    words = {1: [("one", 0.2), ("two", 0.9), ("three", 1.4)], 2: [("won", 0.2), ("too", 0.9), ("more", 1.1)]}
    heard = []

    def hear(wav: np.ndarray, rate: int, model: Model) -> list[tuple[str, float]]:
        heard.append(int(wav[0]))
        return words[heard[-1]]

    monkeypatch.setattr(masked_words, "timed_words", hear)
    masked = np.ones(2 * RATE, np.float32)
    masked[100:103] = masked[RATE // 2 : 5 * RATE // 4] = 0
    sample = replace(of(np.full(2 * RATE, 1.0), np.full(2 * RATE, 2.0)), conditions={"masked_audio": masked})
    assert masked_words.longest_silence(masked) == (RATE // 2, 5 * RATE // 4)
    model = Model(tmp_path, "", RATE)
    assert masked_words.masked_words(sample, model) == {"masked_word_error_rate": (2, 1)}
    masked_words.masked_words(sample, model)
    assert heard == [1, 2], "a waveform is heard once"
    assert masked_words.masked_words(replace(sample, conditions={}), model) == {"masked_word_error_rate": NO_SCORE}


def test_whisper_tells_when_it_hears_a_word():
    if METRICS["masked_words"].remedy(Judges()):
        pytest.skip("Whisper is an optional extra")
    espeak = pytest.importorskip("data_pipelines.espeak")
    speech = espeak.speak_with_phones("The garden is green.", "en-us")
    seconds = len(speech.samples) / speech.sample_rate_hz
    model = masked_words.whisper_model(Judges())
    assert model is not None
    heard = masked_words.timed_words(speech.samples, speech.sample_rate_hz, model)
    (middle,) = [middle for word, middle in heard if word.lower().strip(".") == "green"]
    assert seconds / 2 < middle < seconds
    assert masked_words.timed_words(EMPTY, RATE, model) == []
