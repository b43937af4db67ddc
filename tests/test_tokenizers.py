"""Phones and text vectors."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data_pipelines.encoders.minilm import PACKAGE, MiniLmVectors
from data_pipelines.encoders.weights import package_folder
from data_pipelines.espeak import phonemes
from data_pipelines.notes import Notes
from data_pipelines.tokenizers.phone import SYMBOLS, PhoneTokenizer, spoken_symbols
from data_pipelines.tokenizers.sung_phone import SungPhoneTokenizer

TEXTS = ("Hello, world!", "Why did Hugh weigh 42 zebras?", "The church bell", "A\nline break", "I'm 3.5 % sure.")


@pytest.fixture(scope="module")
def vectors() -> MiniLmVectors:
    return MiniLmVectors()


def test_the_symbols_fit_the_slots_of_the_public_vocabulary():
    assert PhoneTokenizer.size == 305 and len(SYMBOLS) <= 305
    assert len(set(SYMBOLS)) == len(SYMBOLS)


def test_the_symbol_list_is_fixed():
    """Shards and checkpoints hold these ids: the list may only grow at its end, and this hash with it."""
    assert PhoneTokenizer().sha256.startswith("4a04a090")


@pytest.mark.parametrize("text", TEXTS)
def test_phones_round_trip(text):
    tokenizer, notes = PhoneTokenizer(), Notes()
    ids = tokenizer.encode(text, notes=notes)
    assert ids.dtype == np.int16 and ids.min() > 0 and not notes
    assert tokenizer.decode(ids) == phonemes(text)
    assert np.array_equal(tokenizer.ids(tokenizer.decode(ids)), ids)


def test_words_and_clauses_are_parted_by_symbols():
    assert phonemes("the lake, the lake") == list("ðə lˈeɪk|ðə lˈeɪk")


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Die schöne Straße in Zürich"),
        ("fr", "Un bon vin blanc"),
        ("es", "El niño pequeño"),
        ("cmn", "你好吗"),
        ("ru", "Привет"),
        ("ar", "مرحبا"),
        ("hi", "नमस्ते"),
        ("ja", "こんにちは"),
        ("vi", "Xin chào"),
    ],
)
def test_other_languages_have_no_unknown_phones(language, text):
    notes = Notes()
    assert len(PhoneTokenizer().encode(text, language, notes)) > 4 and not notes


@pytest.mark.parametrize(
    ("language", "text", "spoken", "unspoken"),
    [
        ("en-us", "我们 hello", "hello", {"我": 1, "们": 1}),
        ("de", "Welt и Да и", "Welt", {"и": 2, "Д": 1, "а": 1}),
        ("ja", "漢字、こんにちは", "、こんにちは", {"漢": 1, "字": 1}),
        ("en-us", "la नमस्ते", "la", dict.fromkeys("नमस्ते", 1)),
        ("en-us", "♪ la la ♪", "la la", {"♪": 2}),
        ("en-us", "hello ᚠ", "hello", {"ᚠ": 1}),
        ("fr", "カード oui", "oui", {"カ": 1, "ー": 1, "ド": 1}),
        ("cmn", "ひ你好", "你好", {"ひ": 1}),
    ],
)
def test_characters_that_espeak_does_not_speak_are_left_out(language, text, spoken, unspoken):
    symbols, left_out = spoken_symbols(text, language)
    assert left_out == unspoken
    assert [symbol for symbol in symbols if symbol != "|"] == [
        symbol for symbol in phonemes(spoken, language) if symbol != "|"
    ]


@pytest.mark.parametrize("encode", [PhoneTokenizer().encode, SungPhoneTokenizer().encode])
def test_left_out_characters_are_noted_up_to_a_tenth_of_the_letters_and_refused_beyond(encode):
    notes = Notes()
    encode("♪ Seven plain letters 界 ♪", "en-us", notes)
    encode("Eighteen are to be read 世界", "en-us", notes)  # 2 of 21 letters
    encode("All of this.", "en-us", notes)
    assert notes == {"characters not spoken": 5, "clips with characters not spoken": 2}
    message = "does not speak 2 of 18 letters in language 'en-us' (世 界), wanted at most 10%"
    with pytest.raises(ValueError, match=re.escape(message)):
        encode("Eighteen are to be r 世界", "en-us", notes)
    assert notes.total() == 7


@pytest.mark.parametrize(("language", "text"), [("en-us", "你好"), ("de", "привет"), ("en-us", "नमस्ते"), ("ar", "♪♫")])
def test_a_text_of_which_nothing_is_spoken_is_refused(language, text):
    with pytest.raises(ValueError, match=f"finds no phones in language '{language}'"):
        PhoneTokenizer().encode(text, language)


@pytest.mark.parametrize(
    ("language", "text"),
    [("en-us", "naïve café — “5½ %” 😀"), ("th", "มนุษย์ทั้งหลาย"), ("ko", "안녕하세요"), ("fa", "می‌آیند گچ")],
)
def test_accents_vowel_signs_and_spoken_signs_are_kept(language, text):
    tokenizer, notes = PhoneTokenizer(), Notes()
    assert tokenizer.decode(tokenizer.encode(text, language, notes)) == phonemes(text, language)
    assert not notes


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match="got voice 'xx'"):
        PhoneTokenizer().encode("bonjour", "xx")


def test_language_switches_leave_no_trace_among_the_phones():
    assert not set("()") & set(phonemes("Привет hello", "ru"))


def test_unknown_symbols_are_counted_and_get_their_own_id():
    tokenizer, notes = PhoneTokenizer(), Notes()
    assert tokenizer.ids(["a", "☃", "b", "☃"], notes).tolist() == [SYMBOLS.index("a"), 0, SYMBOLS.index("b"), 0]
    assert tokenizer.ids(["<unknown>"], notes).tolist() == [0]
    assert notes == {"phones without an id": 2}
    assert tokenizer.decode([0]) == ["<unknown>"]


@pytest.mark.parametrize("text", ["", "   ", "...", "\n", "—"])
def test_a_text_without_phones_is_refused(text):
    with pytest.raises(ValueError, match="finds no phones"):
        PhoneTokenizer().encode(text)


def test_an_id_without_a_symbol_is_refused():
    for bad in (-1, len(SYMBOLS)):
        with pytest.raises(ValueError, match=re.escape(f"got ids [{bad}]")):
            PhoneTokenizer().decode([1, bad])


def test_phones_of_many_threads_equal_those_of_one():
    texts = list(TEXTS) * 20
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(phonemes, texts)) == [phonemes(text) for text in texts]


def test_a_missing_espeak_package_is_told_with_its_extra():
    code = (
        "import sys; sys.modules['espeakng_loader'] = None\n"
        "from data_pipelines.tokenizers.phone import PhoneTokenizer\nPhoneTokenizer().encode('a')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install uniaudio_jax[quickstart]" in done.stderr and "ValueError" in done.stderr


def sentence_vector(vectors: MiniLmVectors, text: str) -> np.ndarray:
    mean = vectors.encode(text).astype(np.float32).mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_vectors_have_the_stated_form_and_are_deterministic(vectors):
    found = vectors.encode("a calm tune")
    assert found.shape == (5, 384) and found.dtype == np.float16  # [CLS] a calm tune [SEP]
    assert np.array_equal(found, vectors.encode("a calm tune"))
    assert vectors.sha256.startswith("53aa51172d142c89")


def test_a_paraphrase_is_nearer_than_another_text(vectors):
    texts = ("A happy fast piano tune", "Cheerful quick music for the piano", "The train leaves at noon")
    tune, same, other = (sentence_vector(vectors, text) for text in texts)
    assert tune @ same > 0.6 > 0.3 > tune @ other


def test_long_texts_are_cut_to_a_hundred_tokens_and_noted(vectors):
    notes, last = Notes(), vectors.after
    whole, cut, long = (vectors.encode("word " * count, notes) for count in (98, 99, 331))
    assert len(whole) == len(cut) == len(long) == 100 and np.array_equal(whole, long) and len(last) == 1
    assert notes == {"texts cut to 100 tokens": 2}


@pytest.mark.parametrize("text", ["", "   "])
def test_a_text_without_tokens_is_refused(vectors, text):
    with pytest.raises(ValueError, match="without any token"):
        vectors.encode(text)


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got no model.safetensors, config.json, tokenizer.json"):
        MiniLmVectors(tmp_path)


def test_the_vectors_equal_those_of_transformers(vectors):
    import torch
    import transformers

    folder = package_folder(PACKAGE, "", "")
    transformers.utils.logging.disable_progress_bar()
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    text = "In F sharp minor, the violin sounds restless: arpeggios, fast, around 148 beats per minute."
    ids = torch.tensor([[*vectors.before, *vectors.tokens(text), *vectors.after]])
    with torch.no_grad():
        wanted = model(ids).last_hidden_state[0].numpy()
    assert np.allclose(vectors.encode(text), wanted, rtol=1e-3, atol=1e-4)
