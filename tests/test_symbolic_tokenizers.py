"""Sung phones, lexica, durations, melodies, labels, languages, word pieces."""

import re
import subprocess
import sys
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.espeak import ENGINE, phonemes
from data_pipelines.notes import Notes
from data_pipelines.synthetic.singing import write_midi
from data_pipelines.tokenizers.labels import LABELS, LabelTokenizer
from data_pipelines.tokenizers.languages import LANGUAGE_NAMES, LanguageTokenizer, language_name
from data_pipelines.tokenizers.lexicon import LexiconPhones, with_durations
from data_pipelines.tokenizers.midi import REST, MidiTokenizer, read_midi
from data_pipelines.tokenizers.phone import ARPABET, SYMBOLS, PhoneTokenizer, phone_symbols
from data_pipelines.tokenizers.sung_phone import NEAREST, SUNG_SYMBOLS, SungPhoneTokenizer
from data_pipelines.tokenizers.tables import read_list
from data_pipelines.tokenizers.words import MODEL, WordPieces, train_pieces
from uniaudio_jax.vocab import CLASS_EVENTS, LANGUAGES, MIDI_NOTES, SUNG_PHONES

REPO = Path(__file__).parents[1]
CMUDICT = """;;; as in CMUdict
HELLO  HH AH0 L OW1
WORLD  W ER1 L D
CHURCH 0.97 CH ER1 CH
READ  R IY1 D # to read
READ(1)  R EH1 D
"""
SYMBOLIC = (SungPhoneTokenizer, LanguageTokenizer, LabelTokenizer, WordPieces)


@pytest.fixture(scope="module")
def words() -> WordPieces:
    return WordPieces()


@pytest.fixture
def cmudict(tmp_path) -> Path:
    path = tmp_path / "cmudict.txt"
    path.write_text(CMUDICT)
    return path


# Sung phones


def test_sung_phones_fill_the_slots_of_the_public_vocabulary():
    assert len(set(SUNG_SYMBOLS)) == len(SUNG_SYMBOLS) == SungPhoneTokenizer.size == SUNG_PHONES
    assert set(SUNG_SYMBOLS) - {"<breath>"} <= set(SYMBOLS)
    assert set(NEAREST.values()) <= set(SUNG_SYMBOLS) and not set(NEAREST) & set(SUNG_SYMBOLS)


def test_the_lists_of_ids_are_fixed():
    """Shards and checkpoints hold these ids: a list may only grow at its end, and its hash with it."""
    assert [made().sha256[:8] for made in SYMBOLIC] == ["b289caaf", "9416c1cd", "377ca74f", "3f6810a9"]


def test_sung_phones_are_the_letters_of_the_phones_and_silence_between_clauses():
    tokenizer = SungPhoneTokenizer()
    ids = tokenizer.encode("Row, row, row your boat")
    assert ids.dtype == np.int16
    assert "".join(tokenizer.decode(ids)) == "ɹoʊ|ɹoʊ|ɹoʊjʊɹboʊt"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en-us", "Twinkle, twinkle little star, how I wonder"),
        ("de", "Der Mond ist aufgegangen, schöne Lüfte"),
        ("fr", "Au clair de la lune, mon ami Pierrot, un bon vin"),
        ("es", "Cielito lindo, los corazones"),
        ("it", "O sole mio, gli occhi"),
        ("cmn", "月亮代表我的心"),
        ("ja", "さくらさくら"),
        ("ru", "Калинка моя, щука"),
        ("hi", "बड़ा अच्छा गाना"),
        ("ko", "아리랑"),
    ],
)
def test_lyrics_of_common_languages_have_no_unknown_sung_phone(language, text):
    notes = Notes()
    assert SungPhoneTokenizer().encode(text, language, notes).min() > 0 and not notes


def test_nasal_vowels_keep_their_mark_and_a_strange_letter_is_counted():
    tokenizer, notes = SungPhoneTokenizer(), Notes()
    assert tokenizer.decode(tokenizer.ids(["ɔ", "\u0303", "ː", "ˈ", "ʘ"], notes)) == ["ɔ", "\u0303", "<unknown>"]
    assert notes == {"phones without an id": 1}


@pytest.mark.parametrize(("text", "language"), [("", "en-us"), ("...", "en-us"), ("月亮", "en-us"), ("la la", "xx")])
def test_lyrics_that_cannot_be_sung_are_refused(text, language):
    with pytest.raises(ValueError, match="finds no phones|got voice 'xx'"):
        SungPhoneTokenizer().encode(text, language)


# Lexicon


@pytest.mark.parametrize("text", ["hello", "Hello, WORLD!", "“hello” world", "church-world", "hello. World... read?"])
def test_phones_of_a_lexicon_are_the_ids_of_espeak(cmudict, text):
    ids = LexiconPhones(cmudict).encode(text)
    assert ids.dtype == np.int16 and np.array_equal(ids, PhoneTokenizer().encode(text.replace("-", " ")))


def test_every_arpabet_phone_has_ids():
    tokenizer = PhoneTokenizer()
    for symbols in phone_symbols([*ARPABET, "AA1", "UW2", "ih0"]):
        assert tokenizer.ids(symbols).min() > 0
    assert phone_symbols(["AH1", "AH0", "ER2", "er0", "B"]) == [["ˈ", "ʌ"], ["ə"], ["ˌ", "ɜ", "ː"], ["ɚ"], ["b"]]


def test_a_lexicon_may_be_in_ipa(tmp_path):
    (tmp_path / "ipa.txt").write_text("bon\tb ɔ̃\ngoût\tg u\ntchin\tt͡ʃ i n\nça s a\n", encoding="utf-8")
    tokenizer = LexiconPhones(tmp_path / "ipa.txt")
    assert "".join(tokenizer.decode(tokenizer.encode("Bon goût, TCHIN ça"))) == "bɔ\u0303 ɡu|tʃin sa"


def test_words_out_of_the_lexicon_are_all_told(cmudict):
    with pytest.raises(ValueError, match="got no phones of 2 word.s.: apple, zebra "):
        LexiconPhones(cmudict).encode("Hello zebra, apple world")


def test_espeak_speaks_the_words_out_of_the_lexicon_if_it_may(cmudict):
    tokenizer = LexiconPhones(cmudict, fallback=True)
    assert tokenizer.decode(tokenizer.encode("read zebra")) == [*"ɹˈiːd", " ", *phonemes("zebra")]


def test_what_espeak_leaves_out_of_words_out_of_the_lexicon_is_noted_or_refused(cmudict):
    tokenizer, notes = LexiconPhones(cmudict, fallback=True), Notes()
    ids = tokenizer.encode("Hello church world, 界. Hello read", notes=notes)
    assert "".join(tokenizer.decode(ids)) == "həlˈoʊ tʃˈɜːtʃ wˈɜːld|həlˈoʊ ɹˈiːd"
    assert notes == {"characters not spoken": 1, "clips with characters not spoken": 1}
    with pytest.raises(ValueError, match="does not speak 1 of 6 letters"):
        tokenizer.encode("Hello 界")


def test_the_hash_of_a_lexicon_is_that_of_its_words_and_of_the_fallback(cmudict):
    first = LexiconPhones(cmudict).sha256
    assert first == LexiconPhones(cmudict).sha256 != LexiconPhones(cmudict, fallback=True).sha256
    cmudict.write_text(CMUDICT + "ZOO Z UW1\n")
    assert LexiconPhones(cmudict).sha256 != first


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "got no word"),
        (b"HELLO HH AH0\nWORLD\n", ":2: got 'WORLD'"),
        (b"A AH0\nB B AX9 HH\n", "got phones AX9,"),
        (b"D\xc9J D EH\n", "not UTF-8"),
        ("A a ☃\n".encode(), "got phones ☃,"),
        ("A ˈ\n".encode(), "got phones ˈ,"),
    ],
)
def test_a_broken_lexicon_is_refused(tmp_path, content, told):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        LexiconPhones(tmp_path / "bad.txt")
    with pytest.raises(ValueError, match="cannot be read"):
        LexiconPhones(tmp_path / "none.txt")


def test_a_text_without_words_is_refused_by_a_lexicon(cmudict):
    for text in ("", " ", "?! ...", "'"):
        with pytest.raises(ValueError, match="without words"):
            LexiconPhones(cmudict).encode(text)


# Durations


@settings(deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.floats(0, 0.31), min_size=1, max_size=37).filter(lambda values: sum(values) > 0.05),
    rate=st.sampled_from([12.5, 50, 75]),
)
def test_frames_of_phones_do_not_drift(lengths, rate):
    names = ["K", "AA1", "sil"]
    phones = [(names[number % 3], seconds) for number, seconds in enumerate(lengths)]
    tokenizer = PhoneTokenizer()
    ids = with_durations(tokenizer, phones, rate)
    assert ids.dtype == np.int16 and len(ids) == round(round(sum(lengths) * rate, 6))
    for count in range(1, len(phones)):
        ends = np.cumsum([seconds for _, seconds in phones[:count]]) * rate
        if round(float(ends[-1])) >= 1:
            part = with_durations(tokenizer, phones[:count], rate)
            assert np.array_equal(part, ids[: len(part)]) and abs(len(part) - ends[-1]) <= 0.501


def test_the_letters_of_a_phone_share_its_frames_and_marks_take_none():
    tokenizer = PhoneTokenizer()
    ids = with_durations(tokenizer, [("HH", 0.06), ("AY1", 0.1), ("sil", 0.02), ("IY1", 0.04)], 50)
    assert "".join(tokenizer.decode(ids)) == "hhhaaaɪɪ|ii"


def test_breath_is_a_pause_noise_is_unknown_and_a_tone_has_its_own_frames():
    tokenizer = PhoneTokenizer()
    phones = [("AP", 0.02), ("a", 0.04), ("˥", 0.02), ("spn", 0.02)]
    assert tokenizer.decode(with_durations(tokenizer, phones, 50)) == ["|", "a", "a", "˥", "<unknown>"]


@pytest.mark.parametrize(
    ("phones", "told"),
    [
        ([("a", -0.02)], "got -0.02 s for phone 'a'"),
        ([("a", float("nan"))], "got nan s"),
        ([], "got 0 phones"),
        ([("a", 0.001)], "at least one frame"),
        ([("a", 0.1), ("☃", 0.1)], "got phones ☃,"),
    ],
)
def test_durations_that_are_none_are_refused(phones, told):
    with pytest.raises(ValueError, match=told):
        with_durations(PhoneTokenizer(), phones, 50)


# Melodies


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, REST), st.integers(1, 7)), min_size=1, max_size=31))
def test_a_melody_round_trips_through_a_midi_file(tmp_path_factory, runs):
    ids = np.repeat(*np.array(runs).T)
    path = tmp_path_factory.mktemp("midi") / "a.mid"
    assert write_midi(path, ids)
    if (ids == REST).all():
        with pytest.raises(ValueError, match="got no note"):
            read_midi(path)
    else:
        assert np.array_equal(read_midi(path), ids)


def midi_file(path: Path, *messages: mido.Message | mido.MetaMessage) -> Path:
    """A file of 100 ticks a beat and 4 beats a second, so that 8 ticks are 20 ms."""
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=250_000), *messages])
    mido.MidiFile(tracks=[track], ticks_per_beat=100).save(path)
    return path


def test_the_highest_sounding_note_wins_and_percussion_is_not_heard(tmp_path):
    on, off = ("note_on", "note_off")
    path = midi_file(
        tmp_path / "a.mid",
        *(
            mido.Message(kind, note=note, time=ticks, channel=9 if note == 99 else 0, velocity=velocity)
            for kind, note, ticks, velocity in (
                (on, 60, 8, 1),
                (on, 67, 8, 1),
                (on, 99, 0, 1),
                (off, 67, 16, 0),
                (off, 60, 8, 0),
                (off, 99, 8, 0),
                (on, 59, 0, 1),
                (on, 59, 8, 0),
            )
        ),
    )
    assert read_midi(path).tolist() == [REST, 60, 67, 67, 60, REST, 59]


def test_a_note_that_never_ends_lasts_to_the_end_of_the_file(tmp_path):
    path = midi_file(tmp_path / "a.mid", mido.Message("note_on", note=61), mido.MetaMessage("end_of_track", time=24))
    assert read_midi(path).tolist() == [61, 61, 61]


def test_a_midi_file_without_notes_is_refused(tmp_path):
    rest = mido.MetaMessage("end_of_track", time=24)
    drums = mido.Message("note_on", note=38, channel=9)
    for messages in ([rest], [drums, rest]):
        path = midi_file(tmp_path / "a.mid", *messages)
        with pytest.raises(ValueError, match="got no note"):
            read_midi(path)


@pytest.mark.parametrize("broken", [b"\xff\x59\x02\x0b\x07", b"\xff\x59\x00", b"\xff\x58\x01\x04", b"\xff\x54\x00"])
def test_a_broken_meta_message_changes_no_note(tmp_path, broken):
    key = mido.MetaMessage("key_signature", key="D", time=8)
    end = mido.MetaMessage("end_of_track", time=16)
    path = midi_file(tmp_path / "a.mid", mido.Message("note_on", note=61), key, end)
    whole = b"\xff\x59\x02\x02\x00"
    content = path.read_bytes()
    length = len(content) - 22  # of the track, after the two headers
    shorter = length - len(whole) + len(broken)
    assert content.count(whole) == 1 and content[18:22] == length.to_bytes(4, "big")
    path.write_bytes(content.replace(whole, broken).replace(content[18:22], shorter.to_bytes(4, "big"), 1))
    assert read_midi(path).tolist() == [61, 61, 61]


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (b"\0\2\0\1\0\x60", "type 2, whose tracks do not sound together"),
        (b"\0\1\0\1\0\0", "0 ticks a beat"),
        (b"\0\1\0\1\xe7\x28", "SMPTE time, in parts of a film's frames, is not read"),
        (b"\0\1\0\3\0\x60", "it breaks off"),
    ],
)
def test_a_midi_file_that_is_not_read_is_told_why_in_words(header, told, tmp_path):
    content = midi_file(tmp_path / "a.mid", mido.Message("note_on", note=61)).read_bytes()
    (tmp_path / "a.mid").write_bytes(content[:8] + header + content[14:])
    with pytest.raises(ValueError, match=re.escape(f"a.mid: got a file that cannot be read as MIDI ({told}), wanted")):
        read_midi(tmp_path / "a.mid")


def test_a_midi_file_of_more_than_an_hour_is_refused(tmp_path):
    path = midi_file(tmp_path / "a.mid", mido.Message("note_on", note=61, time=2**28 - 1))
    with pytest.raises(ValueError, match="a.mid: got 671089 s of MIDI, wanted at most 3600 s"):
        read_midi(path)


def test_a_language_that_nothing_is_near_gets_no_guess():
    with pytest.raises(ValueError, match="got language 'Klingon'.*'de-AT'$"):
        language_name("Klingon")


def test_a_file_that_is_no_midi_is_refused(tmp_path):
    (tmp_path / "a.mid").write_bytes(b"RIFF")
    for name in ("a.mid", "none.mid"):
        with pytest.raises(ValueError, match="cannot be read as MIDI"):
            read_midi(tmp_path / name)


def test_melodies_out_of_range_are_refused():
    tokenizer = MidiTokenizer()
    assert tokenizer.size == MIDI_NOTES and tokenizer.encode(np.array([0, 127, 128])).dtype == np.int16
    for bad in ([-1, 3], [129], [], [0.5], [[60]]):
        with pytest.raises(ValueError, match="MidiTokenizer.encode: got"):
            tokenizer.encode(np.array(bad))


@pytest.mark.parametrize(
    ("rate", "wanted"),
    [
        (50, [60, 60, REST, 61, 61, 61, 62]),
        (100, [60, 60, 60, 60, REST, REST, 61, 61, 61, 61, 61, 61, 62, 62]),
        (25, [60, 61, 61, 62]),
        (12.5, [REST, 62]),
        (75, [60, 60, 60, REST, 61, 61, 61, 61, 61, 62, 62]),
    ],
)
def test_each_frame_of_a_melody_has_the_pitch_in_its_middle(rate, wanted):
    tokenizer = MidiTokenizer(rate)
    assert tokenizer.name == f"midi_{rate:g}hz"
    assert tokenizer.encode(np.array([60, 60, REST, 61, 61, 61, 62])).tolist() == wanted


# Labels and languages


def test_labels_come_sorted_once_and_go_back_to_names():
    tokenizer = LabelTokenizer()
    ids = tokenizer.encode(("rain", "Speech", "dog barking", "rain"))
    assert ids.dtype == np.int16 and ids.tolist() == sorted(ids.tolist()) and len(ids) == 3
    assert tokenizer.decode(ids) == ["speech", "rain", "dog barking"]


def test_the_own_labels_fit_and_are_unlike():
    assert len({label.casefold() for label in LABELS}) == len(LABELS) <= CLASS_EVENTS == LabelTokenizer.size


def test_instruments_and_moods_of_the_tunes_are_labels():
    from data_pipelines.synthetic.tunes import INSTRUMENTS, MOODS

    names = {*INSTRUMENTS, *(mood for moods in MOODS.values() for mood in moods)}
    tokenizer = LabelTokenizer()
    assert set(tokenizer.decode(tokenizer.encode(tuple(names)))) == names


def test_an_unknown_label_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="got label 'dog barkin'.*did you mean 'dog barking'"):
        LabelTokenizer().encode(["rain", "dog barkin"])
    for empty in ((), "rain"):
        with pytest.raises(ValueError, match="wanted a list of at least one name"):
            LabelTokenizer().encode(empty)


def test_labels_of_a_file_are_its_lines(tmp_path):
    names = [f"Sound {number}, of a kind" for number in range(CLASS_EVENTS)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    tokenizer = LabelTokenizer(tmp_path / "names.txt")
    assert tokenizer.encode([names[526], names[3]]).tolist() == [3, 526] and tokenizer.decode([526]) == [names[526]]
    assert tokenizer.sha256 != LabelTokenizer().sha256


def test_a_line_separator_within_a_name_parts_no_lines(tmp_path):
    (tmp_path / "names.txt").write_text("dog\u2028bark\nra\u0085in\n", encoding="utf-8-sig")
    assert LabelTokenizer(tmp_path / "names.txt").names == ("dog\u2028bark", "ra\u0085in")
    (tmp_path / "words.txt").write_text("one W AH1 N\u2028W AH1\n", encoding="utf-8-sig")
    assert LexiconPhones(tmp_path / "words.txt").words == {"one": list("wˈʌnwˈʌ")}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "got 0 names"),
        ("a\n" * 528, "got 528 names"),
        ("a\nb\nA\n", ":3: got 'A' again .line 1."),
        ("a\n\nb\n", ":2: got ''"),
    ],
)
def test_a_broken_file_of_labels_is_refused(tmp_path, content, told):
    (tmp_path / "names.txt").write_text(content)
    with pytest.raises(ValueError, match=told):
        LabelTokenizer(tmp_path / "names.txt")
    with pytest.raises(ValueError, match="cannot be read"):
        LabelTokenizer(tmp_path / "none.txt")


def test_every_language_has_an_id_and_espeak_speaks_it(capfd):
    ENGINE.stop()  # the next one writes to this test's stderr
    tokenizer = LanguageTokenizer()
    assert len(set(LANGUAGE_NAMES)) == len(LANGUAGE_NAMES) <= LANGUAGES == tokenizer.size
    for number, language in enumerate(LANGUAGE_NAMES):
        assert tokenizer.encode(language.upper()).tolist() == [number] and tokenizer.decode([number]) == [language]
        assert phonemes("1 2 3", language)
    assert capfd.readouterr().err == ""  # espeak tells of a missing dictionary there


@pytest.mark.parametrize(
    ("written", "name"),
    [
        *((text, "en-us") for text in ("English", "ENGLISH", "en", "eng", "en_US", "en-US", "American English")),
        *((text, "en") for text in ("en-GB", "British English", "en_AU", "en-UK")),
        *((text, "de") for text in ("German", "Deutsch", "ger", "deu", "DE", "de-AT", "de_CH", " german ")),
        *((text, "cmn") for text in ("zh", "zh-CN", "zh_TW", "zh-Hans", "zh-Hant-TW", "Chinese", "中文", "chi", "cn")),
        *((text, "yue") for text in ("Cantonese", "zh-HK", "zh-yue")),
        *((text, "ja") for text in ("jp", "jpn", "Japanese", "日本語")),
        *((text, "pt-br") for text in ("pt_BR", "Brazilian Portuguese")),
        *((text, "es-419") for text in ("es-MX", "es_419")),
        ("fr-CA", "fr"),
        ("no", "nb"),
        ("kr", "ko"),
        ("ua", "uk"),
        ("iw", "he"),
        ("Farsi", "fa"),
        ("русский", "ru"),
        ("en-gb-x-rp", "en-gb-x-rp"),
        ("en-us-nyc", "en-us-nyc"),
    ],
)
def test_a_language_has_one_name_however_it_is_written(written, name):
    assert language_name(written) == name


def test_every_name_of_a_language_but_plain_english_stays_and_espeak_knows_it():
    names = {*LANGUAGE_NAMES, *read_list("further_languages.txt")}
    assert {name for name in names if language_name(name) != name} == {"en"}
    assert all(phonemes("1 a", name) for name in names)


@pytest.mark.parametrize(
    ("written", "guess"),
    [("nn", "'nb'"), ("germn", "'german'"), ("klingon", ""), ("xx", ""), ("", ""), ("x-whisper", ""), ("en-us+f2", "")],
)
def test_a_language_that_espeak_does_not_speak_is_refused_with_the_nearest(written, guess):
    with pytest.raises(ValueError, match=f"got language {re.escape(repr(written))}, wanted one .*{guess}"):
        language_name(written)


def test_a_region_without_an_id_has_that_of_its_language():
    tokenizer = LanguageTokenizer()
    assert tokenizer.encode("en-gb-x-rp").tolist() == tokenizer.encode("en").tolist()
    assert tokenizer.encode("es-419").tolist() == tokenizer.encode("es").tolist()


def test_an_unknown_language_is_refused_with_the_nearest():
    for bad in ("en-uk", "", "klingon"):
        with pytest.raises(ValueError, match=f"got language '{bad}', wanted one of en-us"):
            LanguageTokenizer().encode(bad)


# Word pieces


@settings(deadline=None, derandomize=True)
@given(st.text(min_size=1))
def test_any_text_round_trips(words, text):
    ids = words.encode(text)
    assert ids.dtype == np.int16 and words.decode(ids) == text


@pytest.mark.parametrize(
    "text",
    [
        " two  spaces ",
        "▁▁a▁",
        "日本語 한국어 عربي हिन्दी",
        "👩‍👩‍👧 😀",
        "<unk> <0x41> </s>",
        "a\n\tb\0",
        "e\u0301 é \ufeff\ufffd",
    ],
)
def test_signs_that_word_pieces_use_themselves_round_trip(words, text):
    assert words.decode(words.encode(text)) == text


def test_the_shipped_model_is_small_and_short_on_english(words):
    assert words.size == 1000 and MODEL.stat().st_size < 100_000
    text = "Please paint the garden gate before noon, said the old fisherman quietly."
    assert len(words.encode(text)) < len(text) / 3


def test_the_same_text_and_size_give_the_same_model(tmp_path):
    lines = [f"the {number} quick brown foxes jump over lazy dogs, naïvely" for number in range(101)]
    assert train_pieces(lines, 307) == train_pieces(lines, 307) != train_pieces(lines[:50], 307)
    (tmp_path / "text.txt").write_text("\n".join(lines))
    command = [sys.executable, "-m", "data_pipelines.tokenizers.words", "--text", str(tmp_path / "text.txt")]
    command += ["--size", "307", "--out", str(tmp_path / "new" / "F.model")]
    subprocess.run(command, cwd=REPO, check=True, capture_output=True)
    trained = WordPieces(tmp_path / "new" / "F.model")
    assert (tmp_path / "new" / "F.model").read_bytes() == train_pieces(lines, 307)
    assert trained.size == 307 and trained.decode(trained.encode("naïve 😀")) == "naïve 😀"


@pytest.mark.parametrize(
    ("lines", "size", "told"),
    [(["a b c"] * 3, 300, "got 3 lines"), (["a"] * 20, 256, "258 to"), (["a"] * 20, 9000, "too few")],
)
def test_too_little_text_for_the_pieces_is_refused(lines, size, told):
    with pytest.raises(ValueError, match=told):
        train_pieces(lines, size)


def test_texts_that_are_none_and_files_that_are_no_model_are_refused(tmp_path, words):
    for bad, told in (("", "empty text"), ("\ud800", "wanted Unicode")):
        with pytest.raises(ValueError, match=told):
            words.encode(bad)
    (tmp_path / "bad.model").write_bytes(b"no model")
    for name in ("bad.model", "none.model"):
        with pytest.raises(ValueError, match="cannot be read as a sentencepiece model"):
            WordPieces(tmp_path / name)


def test_bytes_that_are_no_text_become_a_replacement_sign(words):
    assert words.decode([1 + 0xE2]) == "\ufffd" == words.decode([0])


# All


@pytest.mark.parametrize("made", SYMBOLIC)
def test_ids_out_of_range_are_refused(made):
    for bad in (-1, 1000):
        with pytest.raises(ValueError, match=rf"got ids \[{bad}\], wanted 0 to"):
            made().decode([0, bad])


@pytest.mark.parametrize(
    ("package", "call", "told"),
    [
        ("mido", "midi import read_midi; import pathlib; read_midi(pathlib.Path('a'))", "pip install mido=="),
        ("sentencepiece", "words import WordPieces; WordPieces()", "pip install sentencepiece=="),
    ],
)
def test_a_missing_package_is_told_with_its_command(package, call, told):
    code = f"import sys; sys.modules[{package!r}] = None\nfrom data_pipelines.tokenizers.{call}"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert told in done.stderr and "ValueError" in done.stderr
