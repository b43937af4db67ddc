"""Conditions derived from clips: the pool, noise, another talker, a mask, a pair."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.corpora import ALIGNED_FIELDS, SAMPLE_RATE_HZ, SPLITS, Clip, Corpus, Entry, EntryTable, Segment
from data_pipelines.mixers import DERIVED, MixerOptions, Pool
from data_pipelines.mixers.edit import edit_audio
from data_pipelines.mixers.mask import mask_span, word_steps
from data_pipelines.mixers.options import OPERATIONS
from data_pipelines.mixers.pool import TRIES, SpeakerTable
from data_pipelines.mixers.signals import fit_length
from data_pipelines.synthetic.levels import rms
from tests.mixer_clips import (
    CLIP,
    CLIPS,
    LABELS,
    OPTIONS,
    SAMPLES,
    SOUNDS,
    SPEECH,
    STEP_SAMPLES,
    corpus_of,
    derived,
    generator,
    ratio_db,
    same,
    sound_clips,
    voice,
)


def test_the_same_seed_and_id_give_the_same_samples_in_any_order():
    pool = pickle.loads(pickle.dumps(SOUNDS))
    clips = [clip for clip in CLIPS if clip.speaker != "Solo"]
    forward = {clip.id: derived(clip, DERIVED, SOUNDS, OPTIONS) for clip in clips}
    for clip in reversed(clips):
        assert same(derived(clip, reversed(DERIVED), pool, OPTIONS), forward[clip.id])


@pytest.mark.parametrize("name", [name for name in DERIVED if name != "content_audio"])
def test_another_seed_or_id_gives_another_field(name):
    first = getattr(derived(CLIP, [name], SOUNDS, OPTIONS), name)
    for other in (
        derived(CLIP, [name], SOUNDS, OPTIONS, seed=1),
        derived(dataclasses.replace(CLIP, id="renamed"), [name], SOUNDS, OPTIONS),
    ):
        assert not np.array_equal(getattr(other, name), first)


def test_a_field_that_a_clip_has_is_kept_and_names_that_no_mixer_makes_are_left():
    given = dataclasses.replace(CLIP, noisy_audio=np.ones(SAMPLES, np.float32))
    got = derived(given, ["noisy_audio", "content_audio", "text", "speaker_prompt", "same_speaker"], SPEECH, OPTIONS)
    assert got.noisy_audio is given.noisy_audio
    assert got.content_audio is CLIP.audio
    assert got.same_speaker is None


@pytest.mark.parametrize("samples", [1, 2, 3, 17, 641, 4999])
def test_lengths_are_kept_and_everything_is_finite_for_odd_sizes(samples):
    clip = dataclasses.replace(CLIP, audio=voice(5, samples) + 0.01)
    names = [name for name in DERIVED if name not in ("source_audio", "masked_seconds")]
    for pool in (SPEECH, SOUNDS):
        got = derived(clip, names, pool, OPTIONS)
        for name in ALIGNED_FIELDS:
            assert getattr(got, name).shape == (samples,) and getattr(got, name).dtype == np.float32
            assert np.isfinite(getattr(got, name)).all()
    for operation in set(OPERATIONS) - ({"inpaint"} if samples < 2 * STEP_SAMPLES else set()):
        options = dataclasses.replace(OPTIONS, operations=(operation,))
        edit: Any = edit_audio(clip, generator(), SOUNDS, options)
        assert edit.audio.shape == edit.source_audio.shape == (samples,)
        assert np.isfinite(edit.source_audio).all() and np.isfinite(edit.audio).all()


@pytest.mark.parametrize("name", [name for name in DERIVED if name not in ("masked_seconds", "paired_audio")])
@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(SAMPLES, np.float32), "'train-0': got silent audio"),
        (None, "'train-0': got no audio"),
        (np.zeros(0, np.float32), "'train-0': got no audio"),
    ],
)
def test_a_silent_clip_or_one_without_audio_is_refused_by_name(name, audio, message):
    with pytest.raises(ValueError, match=message):
        derived(dataclasses.replace(CLIP, audio=audio), [name], SOUNDS, OPTIONS)


def test_all_signals_along_the_audio_are_scaled_with_it():
    loud = dataclasses.replace(CLIP, audio=(CLIP.audio / np.abs(CLIP.audio).max()).astype(np.float32))
    got = derived(loud, ALIGNED_FIELDS, SPEECH, dataclasses.replace(OPTIONS, snr_db=(3, 3), talker_db=(-2, -2)))
    assert rms(got.audio) < 0.99 * rms(loud.audio)
    assert max(np.abs(getattr(got, name)).max() for name in ALIGNED_FIELDS) <= 1
    assert ratio_db(got, "noisy_audio") == pytest.approx(3, abs=0.1)
    assert ratio_db(got, "mixture_audio") == pytest.approx(-2, abs=0.1)
    assert rms(got.reverberant_audio) == pytest.approx(rms(got.audio), rel=1e-4)


@pytest.mark.parametrize("split", SPLITS)
def test_no_clip_is_mixed_with_one_of_the_other_split(split):
    read = []
    clips = {clip.id: clip for clip in CLIPS + sound_clips()}

    def watched(entry: Entry, sample_rate_hz: int) -> Clip:
        read.append(entry.split)
        return clips[entry.id]

    corpora = [dataclasses.replace(corpus_of(some), read=watched) for some in (CLIPS, sound_clips())]
    for clip in CLIPS:
        if clip.split == split and clip.speaker != "Solo":
            for seed in range(3):
                for pool in (Pool(*corpora), Pool(corpora[0])):
                    derived(clip, set(DERIVED) - {"source_audio"}, pool, OPTIONS, seed)
                derived(clip, ["source_audio"], Pool(*corpora), OPTIONS, seed)
    assert len(read) > 100 and set(read) == {split}


def test_draws_reach_every_clip_that_they_may_and_no_other():
    rng = generator()
    split = [clip for clip in CLIPS if clip.split == "heldout"]
    for clip in (split[0], split[4]):
        ids = {
            name: {getattr(SPEECH, name)(clip, rng).id for _ in range(300)}
            for name in ("same_speaker", "other_speaker", "another")
        }
        assert ids["same_speaker"] == {other.id for other in split if other.speaker == clip.speaker} - {clip.id}
        assert ids["other_speaker"] == {other.id for other in split if other.speaker != clip.speaker}
        assert ids["another"] == {other.id for other in split} - {clip.id}
    heard = {sound.id for _ in range(99) if (sound := SOUNDS.sound(CLIP, rng))}
    assert heard == {f"sound-train-{label}" for label in LABELS}
    assert SPEECH.sound(CLIP, rng) is None


def test_a_clip_of_no_known_speaker_is_not_another_speaker():
    nameless = [Clip(id=f"nameless-{number}", split="train", audio=voice(number)) for number in range(11)]
    pool = Pool(corpus_of(nameless + CLIPS))
    assert {pool.other_speaker(CLIP, generator(seed)).speaker for seed in range(50)} == {"Bo", "Cy", "Solo"}
    with pytest.raises(ValueError, match="'nameless-0': got no speaker"):
        pool.other_speaker(nameless[0], generator())


def test_a_speaker_with_a_single_utterance_is_refused_by_name():
    (solo,) = [clip for clip in CLIPS if clip.speaker == "Solo" and clip.split == "train"]
    message = f"clip '{solo.id}': speaker 'Solo' has a single utterance in the train split of speech"
    with pytest.raises(ValueError, match=message):
        SPEECH.same_speaker(solo, generator())
    for seed in range(7):
        with pytest.raises(ValueError, match=message):
            derived(solo, ["paired_audio"], SPEECH, OPTIONS, seed)
    assert SPEECH.other_speaker(solo, generator()).speaker != "Solo"


def test_a_single_speaker_a_single_clip_and_a_split_without_sounds_are_refused():
    with pytest.raises(ValueError, match="'train-0': speaker 'Ada' is the only one"):
        Pool(corpus_of(CLIPS[:3])).other_speaker(CLIP, generator())
    with pytest.raises(ValueError, match="'train-0': it is the only clip"):
        Pool(corpus_of(CLIPS[:1])).another(CLIP, generator())
    with pytest.raises(ValueError, match="sounds: got no sound in the heldout split"):
        Pool(corpus_of(CLIPS), corpus_of(sound_clips()[:2], "sounds")).sound(
            dataclasses.replace(CLIP, split="heldout"), generator()
        )


def test_a_clip_that_cannot_be_used_is_drawn_again_and_only_broken_ones_are_refused():
    silent = Clip(id="silent", split="train", speaker="Ada", audio=np.zeros(37, np.float32))
    no_audio = Clip(id="no audio", split="train", speaker="Ada")
    pool = Pool(corpus_of([silent, no_audio, *CLIPS]))
    assert {pool.same_speaker(CLIP, generator(seed)).id for seed in range(20)} == {"train-1", "train-2"}
    with pytest.raises(ValueError, match=f"{TRIES} clips in a row that cannot be mixed.*'silent': got silent audio"):
        Pool(corpus_of([CLIP, silent])).another(CLIP, generator())


def test_a_pool_holds_eight_bytes_a_clip():
    table = SpeakerTable(corpus_of(CLIPS))
    assert sum(array.nbytes for held in (table.numbers, table.codes) for array in held.values()) == 8 * len(CLIPS)


def test_other_clips_are_read_at_the_sample_rate_of_the_clip_and_with_their_audio_alone():
    clips = {clip.id: clip for clip in CLIPS + sound_clips()}
    reads: list[tuple[set, int]] = []

    def watched(entry: Entry, sample_rate_hz: int) -> Clip:
        reads.append((set(entry.audio), sample_rate_hz))
        return clips[entry.id]

    both = {name: Segment(path=Path("x.wav")) for name in ("audio", "content_audio")}
    corpora = []
    for some in (CLIPS, sound_clips()):
        entries = [Entry(where="x", id=c.id, split=c.split, audio=both, about={"speaker": c.speaker}) for c in some]
        corpora.append(Corpus(place="x", entries=EntryTable(entries), read=watched))
    derived(dataclasses.replace(CLIP, sample_rate_hz=23011), DERIVED, Pool(*corpora), OPTIONS)
    assert len(reads) >= 4 and all(read == ({"audio"}, 23011) for read in reads)


@pytest.mark.parametrize("kind", ["white", "pink"])
def test_procedural_noise_reaches_up_to_half_the_sample_rate_of_the_clip(kind):
    options = dataclasses.replace(OPTIONS, noises=(kind,))
    clip = derived(dataclasses.replace(CLIP, sample_rate_hz=48017), ["noisy_audio"], SPEECH, options)
    spectrum = np.abs(np.fft.rfft(clip.noisy_audio - clip.audio))
    hertz = np.fft.rfftfreq(SAMPLES, 1 / 48017)
    assert rms(spectrum[hertz > 20000]) > 0.1 * rms(spectrum[hertz < 20000])


@pytest.mark.parametrize("pool", [SPEECH, SOUNDS], ids=["procedural", "sounds"])
@pytest.mark.parametrize("clip", CLIPS[:5], ids=lambda clip: clip.id)
def test_noise_has_the_stated_ratio_and_is_added_to_the_audio(pool, clip):
    got = derived(clip, ["noisy_audio"], pool, dataclasses.replace(OPTIONS, snr_db=(7, 7)))
    assert ratio_db(got, "noisy_audio") == pytest.approx(7, abs=0.1)
    np.testing.assert_array_equal(got.audio, clip.audio)


def test_a_mixture_has_the_stated_ratio_and_another_speaker_in_it():
    got = derived(CLIP, ["mixture_audio"], SPEECH, dataclasses.replace(OPTIONS, talker_db=(-3, -3)))
    assert ratio_db(got, "mixture_audio") == pytest.approx(-3, abs=0.1)
    other = np.abs(np.fft.rfft(got.mixture_audio - got.audio))
    pitch = np.argmax(other) * SAMPLE_RATE_HZ / SAMPLES
    others = [clip for clip in CLIPS if clip.speaker != "Ada" and clip.split == "train"]
    pitches = [101 + 13 * int(clip.id.split("-")[1]) for clip in others]
    assert min(abs(pitch - one) for one in pitches) < 5


@pytest.mark.parametrize("kind", OPTIONS.noises)
def test_every_kind_of_noise_is_heard_under_a_clip_of_one_sample(kind):
    clip = dataclasses.replace(CLIP, audio=np.full(1, 0.3, np.float32))
    got = derived(clip, ["noisy_audio"], SPEECH, dataclasses.replace(OPTIONS, snr_db=(11, 11), noises=(kind,)))
    assert ratio_db(got, "noisy_audio") == pytest.approx(11, abs=0.1)


def test_ratios_are_drawn_from_their_whole_range():
    ratios = [ratio_db(derived(CLIP, ["mixture_audio"], SPEECH, OPTIONS, seed), "mixture_audio") for seed in range(60)]
    assert -5.1 < min(ratios) < -4 and 4 < max(ratios) < 5.1


def test_a_short_sound_is_repeated_and_a_long_one_is_cut_where_it_can_be_heard():
    short = fit_length(np.arange(1, 8, dtype=np.float32), 23, generator(3))
    np.testing.assert_array_equal(np.diff(short) % 7, np.ones(22))
    mostly_silent = np.zeros(10007, np.float32)
    mostly_silent[5003] = 1
    assert all(fit_length(mostly_silent, 11, generator(seed)).max() == 1 for seed in range(5))


@pytest.mark.parametrize("samples", [640, 641, 959, 16411, 48017])
def test_a_mask_lies_on_frames_inside_the_clip(samples):
    clip = dataclasses.replace(CLIP, audio=voice(1, samples))
    for seed in range(30):
        start, stop = derived(clip, ["masked_seconds"], SPEECH, OPTIONS, seed).masked_seconds
        first, last = round(start * 50), round(stop * 50)
        assert (first / 50, last / 50) == (start, stop) and 0 <= first < last <= samples // STEP_SAMPLES
        share = (last - first) / (samples // STEP_SAMPLES)
        assert 0.1 - 1 / (samples // STEP_SAMPLES) <= share <= 0.5


def test_a_mask_lies_on_the_steps_that_the_options_state_at_any_sample_rate():
    clip = dataclasses.replace(CLIP, sample_rate_hz=8009)
    options = dataclasses.replace(OPTIONS, span_steps_per_second=12.5)
    seconds = SAMPLES / 8009
    for seed in range(30):
        start, stop = derived(clip, ["masked_seconds"], SPEECH, options, seed).masked_seconds
        assert start % 0.08 in (pytest.approx(0), pytest.approx(0.08)) and 0 <= start < stop <= seconds
        assert 0.1 * seconds - 0.08 <= stop - start <= 0.5 * seconds


def test_a_mask_goes_from_word_to_word_where_the_phones_are_known():
    phones = (
        (" ", 0.1),
        ("a", 0.11),
        ("b", 0.09),
        (" ", 0.0),
        ("c", 0.2),
        ("sil", 0.1),
        ("d", 0.07),
        ("e", 0.13),
        ("|", 0.2),
    )
    starts, stops = word_steps(phones, 50)
    assert (starts.tolist(), stops.tolist()) == ([5, 15, 30], [15, 25, 40])
    clip = dataclasses.replace(CLIP, phones=phones)
    options = dataclasses.replace(OPTIONS, masked_share=(0.15, 0.45))
    spans = {mask_span(clip, generator(seed), SPEECH, options).masked_seconds for seed in range(60)}
    assert spans == {(0.1, 0.3), (0.1, 0.5), (0.3, 0.5), (0.6, 0.8)}


def test_phones_without_pauses_are_words_and_phones_too_long_for_the_share_are_ignored():
    assert [part.tolist() for part in word_steps((("a", 0.1), ("b", 0.2)), 50)] == [[0, 5], [5, 15]]
    clip = dataclasses.replace(CLIP, phones=(("a", 1.0),))
    start, stop = derived(clip, ["masked_seconds"], SPEECH, OPTIONS).masked_seconds
    assert 0.1 <= stop - start <= 0.52


def test_a_clip_of_less_than_two_frames_cannot_be_masked():
    short, options = dataclasses.replace(CLIP, audio=voice(1, 639)), MixerOptions(operations=("inpaint",))
    for name in ("masked_seconds", "source_audio"):
        with pytest.raises(ValueError, match="'train-0': got 639 samples of audio, wanted at least 640"):
            derived(short, [name], SPEECH, options)


def test_half_of_the_clips_are_paired_with_their_own_speaker():
    speakers = {hash(clip.audio.tobytes()): clip.speaker for clip in CLIPS}
    count = 401
    halves = 0
    for number in range(count):
        clip = derived(dataclasses.replace(CLIP, id=f"id {number}"), ["paired_audio"], SPEECH, OPTIONS)
        assert clip.same_speaker == (speakers[hash(clip.paired_audio.tobytes())] == CLIP.speaker)
        halves += clip.same_speaker
    assert abs(halves - count / 2) < 3 * np.sqrt(count) / 2


def test_options_are_described_in_json():
    described = MixerOptions().describe()
    assert json.loads(json.dumps(described)) == described
    assert set(described) == {field.name for field in dataclasses.fields(MixerOptions)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"snr_db": (15, 0)}, "snr_db: got 15 to 0, wanted a lowest"),
        ({"talker_db": (0, float("nan"))}, "talker_db: got 0 to nan"),
        ({"reverberation_seconds": (0.2, 2)}, "within 0.1 to 1"),
        ({"masked_share": (0, 0.5)}, "masked_share: got 0 to 0.5"),
        ({"span_steps_per_second": 0}, "span_steps_per_second: got 0, wanted a number above 0"),
        ({"operations": ()}, "operations"),
        ({"noises": ("thunder",)}, "noises: got .*thunder.*, wanted one or more of white"),
    ],
)
def test_options_refuse_what_no_mixer_can_do(wrong, message):
    with pytest.raises(ValueError, match=message):
        MixerOptions(**wrong)
