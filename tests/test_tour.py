"""The tour: what it wishes for, the page it writes, and, slowly, the shipped model itself."""

import json

import numpy as np
import pytest
import soundfile

from tests.small_run import finish, python, write_untrained_run
from uniaudio_jax.audio.files import write_audio
from uniaudio_jax.report.listening import Heard, listening_page
from uniaudio_jax.run import load_run
from uniaudio_jax.tasks import get_task
from uniaudio_jax.tour import SIGNAL_TO_NOISE_DB, TUNE, TourOptions, tour, wishes, with_noise

VOICE = 0.1 * np.sin(np.arange(16000) / 7).astype(np.float32)


def test_each_wish_has_what_its_task_wants():
    made = list(wishes("Good morning.", {"ann": VOICE, "bob": VOICE}, 16000))
    assert [wish.task for wish in made] == [
        *("tts", "tts", "voice_conversion", "enhancement", "singing", "text_to_sound", "text_to_music")
    ]
    assert len({wish.name for wish in made}) == len(made)
    for wish in made:
        wanted = {stream.source for stream in get_task(wish.task).conditions}
        assert set(wish.conditions) == wanted
        assert wish.given is None or wish.conditions[wish.given].dtype == np.float32
    sung = next(wish for wish in made if wish.task == "singing").conditions["midi"]
    assert len(sung) == sum(round(50 * seconds) for _, seconds in TUNE)


def test_the_noise_is_as_loud_as_stated():
    noise = with_noise(VOICE) - VOICE
    assert 10 * np.log10(np.mean(VOICE**2) / np.mean(noise**2)) == pytest.approx(SIGNAL_TO_NOISE_DB, abs=0.01)


def test_a_run_without_voices_is_refused(tmp_path):
    run = load_run(write_untrained_run(tmp_path, ("tts",)))
    with pytest.raises(ValueError, match="brings no voices; name a model that comes with the package"):
        tour(run, TourOptions(out=tmp_path / "samples"))


def test_the_page_holds_every_sound_and_says_what_it_is(tmp_path):
    pytest.importorskip("PIL")
    write_audio(tmp_path / "a.wav", VOICE, 16000)
    page = listening_page("<All>", [Heard("“A & B”", "tts", {"given": "a.wav", "made": "a.wav"})], tmp_path)
    assert "&lt;All&gt;" in page and "“A &amp; B”" in page
    assert page.count("data:audio/mpeg;base64,") == page.count("data:image/webp;base64,") == 2
    with pytest.raises(ValueError, match=r"b\.wav: got no readable audio"):
        listening_page("All", [Heard("b", "tts", {"made": "b.wav"})], tmp_path)


@pytest.mark.slow
def test_the_shipped_model_makes_every_sample(tmp_path):
    out, _ = finish(python("uniaudio_jax.tour", "--text", "Good morning.", "--out", tmp_path))
    rows = json.loads((tmp_path / "samples.json").read_text())
    assert len(rows) == 7 and "tour: 7 samples by universal_tiny" in out
    for row in rows:
        for file in row["files"].values():
            samples, rate = soundfile.read(tmp_path / file)
            assert rate == 16000 and len(samples) > 1600 and np.abs(samples).max() > 0.01
    assert (tmp_path / "index.html").read_text().count("<audio") == 9
