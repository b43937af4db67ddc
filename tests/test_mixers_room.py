"""Clips in simulated and in recorded rooms."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from data_pipelines.corpora import SAMPLE_RATE_HZ
from data_pipelines.mixers import MixerOptions
from data_pipelines.mixers.noise import rms
from data_pipelines.mixers.room import recorded_response, simulated_response
from tests.mixer_clips import CLIP, CLIPS, OPTIONS, SPEECH, derived, generator, voice


def decay_seconds(response: np.ndarray) -> float:
    """Time to fall by 60 dB, from -5 to -25 dB of the energy that is still to come (Schroeder, 1965)."""
    energy = np.cumsum(response[::-1] ** 2)[::-1]
    level = 10 * np.log10(energy / energy[0])
    first, last = np.argmax(level < -5), np.argmax(level < -25)
    slope = np.polyfit(np.arange(first, last) / SAMPLE_RATE_HZ, level[first:last], 1)[0]
    return -60 / slope


@pytest.mark.parametrize("seconds", [0.2, 0.4, 0.8])
@pytest.mark.parametrize("seed", range(5))
def test_a_room_falls_by_60_db_in_about_the_wanted_time(seconds, seed):
    assert seconds / 2 < decay_seconds(simulated_response(generator(seed), seconds, 16000)) < seconds * 2


def test_the_direct_sound_is_where_the_audio_has_it_and_nothing_comes_before():
    click = np.zeros(4001, np.float32)
    click[1009] = 0.5
    for seed in range(11):
        got = derived(dataclasses.replace(CLIP, audio=click), ["reverberant_audio"], SPEECH, OPTIONS, seed)
        peak = np.abs(got.reverberant_audio).max()
        assert np.abs(got.reverberant_audio[:1009]).max() < 1e-6 * peak
        assert got.reverberant_audio[1009] > 0.3 * peak


def test_reverberant_audio_is_as_loud_and_the_audio_stays_dry():
    got = derived(CLIP, ["reverberant_audio"], SPEECH, OPTIONS)
    np.testing.assert_array_equal(got.audio, CLIP.audio)
    assert rms(got.reverberant_audio) == pytest.approx(rms(CLIP.audio), rel=1e-4)
    assert rms(got.reverberant_audio - got.audio) > 0.1 * rms(CLIP.audio)


@pytest.fixture
def rooms(tmp_path) -> Path:
    """Forty recorded responses of two channels, each a direct sound after 331 samples and an echo that is its own."""
    for number in range(40):
        response = np.zeros((2003, 2), np.float32)
        response[331, 0], response[331 + 101 + number, 0], response[17, 1] = -0.5, 0.25, 0.9
        soundfile.write(tmp_path / f"room {number}.wav", response, SAMPLE_RATE_HZ, subtype="FLOAT")
    return tmp_path


def echo_lag(clip: Any, options: MixerOptions, seed: int = 0) -> int:
    click = np.zeros(1511, np.float32)
    click[3] = 0.25
    got = derived(dataclasses.replace(clip, audio=click), ["reverberant_audio"], SPEECH, options, seed)
    direct, echo = np.argsort(np.abs(got.reverberant_audio))[::-1][:2]
    assert direct == 3
    return int(echo - direct)


def test_a_recorded_room_is_heard_and_none_of_them_in_both_splits(rooms):
    options = MixerOptions(rooms_from=rooms)
    heldout = next(clip for clip in CLIPS if clip.split == "heldout")
    lags = [{echo_lag(clip, options, seed) for seed in range(40)} for clip in (CLIP, heldout)]
    assert lags[0] | lags[1] <= set(range(101, 141)) and not lags[0] & lags[1] and all(lags)


def test_the_direct_sound_of_a_response_is_its_first_high_peak(tmp_path):
    response = np.zeros(3001, np.float32)
    response[700], response[707], response[1201] = 0.3, 0.6, 0.8
    soundfile.write(tmp_path / "a.wav", response, SAMPLE_RATE_HZ, subtype="FLOAT")
    got, direct = recorded_response(tmp_path / "a.wav", 16000)
    assert got[direct] == np.float32(0.6) and got[direct - 7] == np.float32(0.3) and direct == 16
    soundfile.write(tmp_path / "silent.wav", np.zeros(7), SAMPLE_RATE_HZ)
    with pytest.raises(ValueError, match="silent.wav: got silence"):
        recorded_response(tmp_path / "silent.wav", 16000)


def test_without_pyroomacoustics_the_error_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    with pytest.raises(ValueError, match="pip install pyroomacoustics"):
        derived(CLIP, ["reverberant_audio"], SPEECH, OPTIONS)


def test_a_folder_without_rooms_for_both_splits_is_refused(tmp_path):
    with pytest.raises(ValueError, match="rooms_from: got 0 impulse responses"):
        MixerOptions(rooms_from=tmp_path / "missing")
    soundfile.write(tmp_path / "one.wav", voice(1, 101), SAMPLE_RATE_HZ)
    with pytest.raises(ValueError, match="got 1 impulse responses in .* wanted at least two"):
        MixerOptions(rooms_from=tmp_path)


def test_options_tell_sets_of_rooms_apart_wherever_they_lie(rooms):
    told = MixerOptions(rooms_from=rooms).describe()
    moved = rooms.rename(rooms.with_name("moved"))
    assert MixerOptions(rooms_from=moved).describe() == told
    (moved / "room 3.wav").unlink()
    assert MixerOptions(rooms_from=moved).describe() != told != MixerOptions().describe()
