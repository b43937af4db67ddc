"""Clips before and after an edit, and the order to edit them."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from data_pipelines.corpora import SAMPLE_RATE_HZ, Clip
from data_pipelines.mixers import MixerOptions, Pool
from data_pipelines.mixers.edit import EDITS, WORDINGS, described, edit_audio, inserted
from data_pipelines.mixers.noise import rms, safe_gain
from data_pipelines.mixers.pool import OPERATIONS
from tests.mixer_clips import (
    CLIP,
    LABELS,
    OPTIONS,
    SAMPLES,
    SOUNDS,
    SPEECH,
    STEP_SAMPLES,
    corpus_of,
    generator,
    sound_clips,
    voice,
)


def edited(operation: Any, seed: int = 0, clip: Any = CLIP, **more: Any) -> Any:
    options = dataclasses.replace(OPTIONS, operations=(operation,), **more)
    return edit_audio(clip, generator(seed), SOUNDS, options)


@pytest.mark.parametrize("seed", range(5))
def test_adding_and_removing_the_same_event_give_back_the_audio(seed):
    added, removed = edited("add", seed), edited("remove", seed)
    np.testing.assert_array_equal(added.source_audio, CLIP.audio)
    np.testing.assert_array_equal(removed.audio, CLIP.audio)
    np.testing.assert_array_equal(added.audio, removed.source_audio)
    np.testing.assert_allclose(added.audio - (removed.source_audio - removed.audio), CLIP.audio, atol=1e-7)
    assert rms(added.audio - CLIP.audio) > 0.1 * rms(CLIP.audio)


def test_an_event_lies_in_one_span_at_the_stated_ratio_and_is_zero_elsewhere():
    base, events = voice(1).astype(np.float64), (voice(2, 9001), voice(3, 7001))
    first, second = inserted(events, base, generator(), (4, 4), 16000)
    for event in (first, second):
        span = np.flatnonzero(event)
        assert len(span) == span[-1] - span[0] + 1 <= 7001
        assert 20 * np.log10(rms(base) / rms(event[span])) == pytest.approx(4, abs=1e-6)
    np.testing.assert_array_equal(first != 0, second != 0)


def test_a_replaced_event_leaves_the_rest_as_it_was():
    clip = edited("replace", 2)
    changed = np.flatnonzero(clip.audio != clip.source_audio)
    outside = np.ones(SAMPLES, bool)
    outside[changed[0] : changed[-1] + 1] = False
    assert 0 < len(changed) < SAMPLES and outside.any()
    np.testing.assert_allclose(clip.audio[outside] / CLIP.audio[outside], safe_gain(clip.audio), rtol=1e-6)


@pytest.mark.parametrize("seed", range(7))
def test_an_inpainting_source_is_silent_in_the_span_that_the_text_names_and_equal_elsewhere(seed):
    clip = edited("inpaint", seed)
    start, stop = (round(float(seconds) * SAMPLE_RATE_HZ) for seconds in re.findall(r"\d+\.\d\d", clip.text))
    assert not clip.source_audio[start:stop].any() and clip.audio[start:stop].any()
    assert 0.1 * SAMPLES - STEP_SAMPLES < stop - start < 0.5 * SAMPLES + STEP_SAMPLES
    outside = np.r_[0:start, stop:SAMPLES]
    np.testing.assert_array_equal(clip.source_audio[outside], CLIP.audio[outside])
    np.testing.assert_array_equal(clip.audio, CLIP.audio)


@pytest.mark.parametrize("seed", range(7))
def test_a_super_resolution_source_lacks_only_what_is_above_the_frequency_that_the_text_names(seed):
    hiss = dataclasses.replace(CLIP, audio=(0.1 * generator(seed).standard_normal(SAMPLES)).astype(np.float32))
    clip = edited("super_resolution", seed, hiss)
    (hertz,) = (int(number) for number in re.findall(r"\d+", clip.text))
    assert 2000 <= hertz <= 3000
    np.testing.assert_array_equal(clip.audio, hiss.audio)
    inside = slice(257, SAMPLES - 257)
    window = np.hanning(SAMPLES - 514)
    before, after = (np.fft.rfft(window * audio[inside]) for audio in (clip.source_audio, clip.audio))
    axis = np.fft.rfftfreq(SAMPLES - 514, 1 / SAMPLE_RATE_HZ)
    low, high = axis < hertz - 200, axis > hertz + 200
    assert rms(np.abs(before - after)[low]) < 0.01 * rms(np.abs(after)[low])
    assert rms(np.abs(before)[high]) < 0.01 * rms(np.abs(after)[high])


def test_orders_come_in_several_wordings_and_name_what_was_done():
    texts = {operation: {edited(operation, seed).text for seed in range(60)} for operation in OPERATIONS}
    assert "Add the sound of rain." in texts["add"] and "Remove the sound of dog bark." in texts["remove"]
    for operation in ("add", "remove"):
        assert len(texts[operation]) > len(WORDINGS[operation])
        assert all(any(label.replace("_", " ").lower() in text for label in LABELS) for text in texts[operation])
    for text in texts["replace"]:
        names = re.findall(r"the sound of (rain|dog bark|siren|wind|bell)", text)
        assert len(names) == 2 and names[0] != names[1]
    assert not any("{" in text for some in texts.values() for text in some)


def test_labels_words_and_captions_name_an_event():
    rain = Clip(id="1", split="train", labels=("Thunder", "light_rain"))
    assert described(rain) == "the sound of light rain and thunder"
    assert described(Clip(id="2", split="train", text="Good  day.", speaker="Bo")) == 'a voice that says "Good day"'
    assert described(Clip(id="3", split="train", text="A bell {rings}.")) == 'the sound described as "A bell {rings}"'
    assert described(Clip(id="4", split="train", text=" ")) == ""


def test_an_event_has_a_name_that_the_clip_has_not():
    rain = next(clip for clip in sound_clips() if clip.labels == ("rain",))
    for seed in range(30):
        assert "rain" not in edited("add", seed, rain).text
    twins = [dataclasses.replace(rain, id=f"rain {number}") for number in range(3)]
    with pytest.raises(ValueError, match="'rain 0': got 0 of 1 events"):
        edit_audio(twins[0], generator(), Pool(corpus_of(twins)), MixerOptions(operations=("remove",)))


def test_an_edit_takes_events_from_other_clips_where_there_are_no_sounds():
    text = edit_audio(CLIP, generator(), SPEECH, MixerOptions(operations=("add",))).text or ""
    assert 'a voice that says "sentence ' in text and 'sentence 0"' not in text


def test_what_was_told_of_the_audio_before_the_edit_is_left_out():
    told = dataclasses.replace(
        CLIP, labels=("speech",), language="en", midi=np.zeros(3, int), phones=(("a", 0.1),), noisy_audio=CLIP.audio
    )
    clip = edited("add", clip=told)
    assert clip.labels is clip.language is clip.midi is clip.phones is clip.noisy_audio is None
    assert (clip.id, clip.speaker) == (CLIP.id, CLIP.speaker)


def test_loud_edits_are_scaled_down_together():
    loud = dataclasses.replace(CLIP, audio=(CLIP.audio / np.abs(CLIP.audio).max()).astype(np.float32))
    clip = edited("add", 1, loud, event_db=(-5, -5))
    assert np.abs(clip.audio).max() <= 1
    gains = clip.source_audio / loud.audio
    np.testing.assert_allclose(gains, gains[0], rtol=1e-5)
    assert gains[0] < 0.95


def test_every_operation_has_its_edit_and_its_wordings():
    assert set(EDITS) == set(WORDINGS) == set(OPERATIONS)
