"""Laws of the phones with durations: they fill the audio, and those found by alignment are those that espeak told."""

import numpy as np
import pytest
import soxr

from data_pipelines import espeak
from data_pipelines.durations import PAUSE, aligned_phones, lengths_of
from data_pipelines.synthetic.sentences import sentence

RATE = 16000


def told(text: str, voice: str, words_per_minute: int) -> tuple[np.ndarray, list[tuple[str, float]]]:
    speech = espeak.speak_with_phones(text, voice, words_per_minute=words_per_minute)
    return soxr.resample(speech.samples, speech.sample_rate_hz, RATE), list(speech.phones)


def test_lengths_fill_the_audio_whatever_the_starts():
    assert lengths_of([("h", 0.25), ("aɪ", 0.5)], 1.0) == (("sil", 0.25), ("h", 0.25), ("aɪ", 0.5))
    assert lengths_of([("h", 0.0), ("aɪ", 0.5), ("z", 7.0)], 1.0) == (("h", 0.5), ("aɪ", 0.5))


@pytest.mark.parametrize(("voice", "words_per_minute"), [("en-us+f4", 149), ("en-us+m7", 191)])
def test_phones_found_beside_another_voice_begin_where_espeak_says(voice, words_per_minute):
    errors = []
    for seed in range(7):
        text = sentence(np.random.default_rng(seed))
        wav, phones = told(text, voice, words_per_minute)
        found = aligned_phones(text, "en-us+m3", wav)
        assert sum(seconds for _, seconds in found) == pytest.approx(len(wav) / RATE)
        names = [name for name, _ in found if name != PAUSE]
        if names == [name for name, _ in phones if name]:
            starts = np.cumsum([0.0, *(seconds for _, seconds in found)])[:-1]
            ours = [start for (name, _), start in zip(found, starts, strict=True) if name != PAUSE]
            errors += [abs(a - start) for a, (_, start) in zip(ours, [row for row in phones if row[0]], strict=True)]
    assert len(errors) > 50 and np.median(errors) < 0.02 and np.quantile(errors, 0.9) < 0.06


def test_audio_too_short_to_align_is_refused():
    with pytest.raises(ValueError, match="got 7 samples of 'Hello.', wanted 0.025 s or more"):
        aligned_phones("Hello.", "en-us+m3", np.zeros(7))
