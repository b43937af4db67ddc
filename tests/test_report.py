"""The report: one page of several runs' evaluations, which a browser shows, plays and lets vote on."""

import base64
import io
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tyro

from tests.browser import Page, needs_chromium, open_browser
from tests.evaluation_files import RATE_HZ, tone, write_evaluation
from uniaudio_jax.checkpoint import Checkpoints
from uniaudio_jax.cli import checked
from uniaudio_jax.files import read_json, write_json
from uniaudio_jax.report.__main__ import ReportOptions, main
from uniaudio_jax.report.curves import MOST_POINTS, draw
from uniaudio_jax.report.evaluations import equal_across_runs, read_evaluations
from uniaudio_jax.report.media import BANDS, COLUMNS, Sound, mp3_address, spectrogram_address
from uniaudio_jax.report.page import to_html

HURTFUL = """<script>window.hurt = 1</script>"><img src=x onerror="window.hurt = 2">'{{ 7 * 7 }}"""


class Reader(HTMLParser):
    """The elements of a page as (tag, attributes), and its text outside of style and program."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] not in ("style", "script"):
            self.text += f" {data.strip()}"

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]


def page_of(*runs: Path) -> str:
    return to_html(read_evaluations(runs))


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Both were evaluated on the same examples of enhancement, and in part on others of tts."""
    folder = tmp_path_factory.mktemp("runs")
    write_evaluation(folder / "one", {"enhancement": ("a", "bc", "def"), "tts": ("x", "shared")}, 440)
    write_evaluation(folder / "other", {"enhancement": ("a", "bc", "def"), "tts": ("shared", "yz")}, 880)
    return folder / "one", folder / "other"


@pytest.fixture(scope="module")
def page_file(two_runs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page_of(*two_runs), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


def test_what_runs_share_is_heard_once_and_what_they_generated_for_each(page_file):
    page = Reader(page_file.read_text())
    enhancement = [("noisy_audio", "AB"), ("caption", "AB"), ("ground_truth", "AB"), ("codec", "AB")]
    clips = [(clip["data-role"], clip["data-runs"]) for clip in page.all("figure") if "data-role" in clip]
    assert clips[:6] == [*enhancement, ("generated", "A"), ("generated", "B")]
    players = [player for player in page.all("audio") if "src" in player]
    assert len(players) == 3 * 5 + (5 + 4 + 4)  # of tts one example is both runs'
    assert all(player["src"].startswith("data:audio/mpeg;base64,") and player["aria-label"] for player in players)
    assert all(image["alt"].startswith("Spectrogram of ") for image in page.all("img"))


def test_runs_that_were_evaluated_on_other_examples_are_told_apart(page_file):
    text = Reader(page_file.read_text()).text
    assert text.count("evaluated on different examples of this task") == 1
    assert "(1 in common): their numbers cannot be compared" in text
    assert len(re.findall(r"Example \d, only of", text)) == 2


def test_examples_of_one_id_with_other_words_are_not_matched(tmp_path):
    for name, text in (("one", "some words"), ("other", "further words")):
        write_evaluation(tmp_path / name, {"tts": ("a",)}, text=text)
    page = Reader(page_of(tmp_path / "one", tmp_path / "other"))
    assert len(page.all("article")) == 2 and "(0 in common)" in page.text


def test_metrics_stand_with_their_intervals_and_judges(page_file):
    text = " ".join(Reader(page_file.read_text()).text.split())
    assert "codec resynthesis A B 0.875 [0.625, 1.12] – 7" in text
    assert "generated A 0.440 [0.190, 0.690] – 7, 0" in text and "generated B 0.880 [0.630, 1.13]" in text
    assert text.index("codec resynthesis") < text.index("generated") < text.index("another reference")
    assert "stoi higher is better" in text and "pystoi, version 0.4.1" in text
    assert "stoi 0.500" in text and "stoi nan" not in text


def test_references_that_were_judged_without_the_model_are_shown_alone(tmp_path):
    record = write_evaluation(tmp_path / "run", {"tts": ("a",)})
    entry = record["tasks"]["tts"]
    record["tasks"]["tts"] = {key: entry[key] for key in ("reference", "metrics", "samples")}
    del entry["metrics"]["generated"], entry["samples"][0]["files"]["generated"]
    write_json(tmp_path / "run" / "evaluation.json", record | {"judges": {"stoi": {}}})
    text = " ".join(Reader(page_of(tmp_path / "run")).text.split())
    assert "tts A – – – –" in text and "compared with the ground truth" in text and "this package itself" in text


def test_texts_that_were_made_stand_beside_their_reference(tmp_path):
    for name, words in (("one", "a wet dog"), ("other", "a red fog")):
        record = write_evaluation(tmp_path / name, {"asr": ("a",)})
        texts = {"generated": words, "reference": "a red dog"}
        record["tasks"]["asr"]["samples"][0] |= {"files": {}, "texts": texts}
        write_json(tmp_path / name / "evaluation.json", record)
    page = Reader(page_of(tmp_path / "one", tmp_path / "other"))
    assert "reference a red dog generated A a wet dog" in " ".join(page.text.split())
    assert [clip["data-role"] for clip in page.all("figure") if "data-role" in clip] == [
        "reference",
        *["generated"] * 2,
    ]


def test_text_from_data_is_shown_as_text_and_nothing_else(tmp_path):
    record = write_evaluation(tmp_path / "run", {"tts": ("a",)}, text=HURTFUL)
    entry = record["tasks"].pop("tts")
    entry["samples"][0] |= {"id": HURTFUL, "speaker": HURTFUL, "corpus": HURTFUL, "texts": {HURTFUL: HURTFUL}}
    entry["metrics"][HURTFUL] = {HURTFUL: entry["metrics"]["generated"]["stoi"]}
    record |= {"tasks": {HURTFUL: entry}, "failed": {HURTFUL: HURTFUL}, "options": {HURTFUL: HURTFUL}}
    write_json(tmp_path / "run" / "evaluation.json", record | {"judges": {HURTFUL: {HURTFUL: HURTFUL}}})
    page, plain = Reader(page_of(tmp_path / "run")), Reader(page_of(harmless(tmp_path)))
    assert [tag for tag, _ in page.elements].count("script") == len(plain.all("script")) == 1
    assert {image["src"][:16] for image in page.all("img")} == {"data:image/webp;"}
    assert page.text.count(HURTFUL) > 12 and "49" not in page.text


def harmless(folder: Path) -> Path:
    write_evaluation(folder / "harmless", {"tts": ("a",)})
    return folder / "harmless"


def test_only_the_pages_own_program_and_style_may_act(page_file):
    html = page_file.read_text()
    page = Reader(html)
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:; style-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on") or name == "style"}
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)


def test_a_sound_comes_back_whole_from_the_page():
    sound = Sound(tone(0.7, 1000), RATE_HZ)
    packed = base64.b64decode(mp3_address(sound).partition(",")[2])
    heard, rate_hz = soundfile.read(io.BytesIO(packed))
    assert rate_hz == RATE_HZ and len(heard) == len(sound.samples)
    assert np.corrcoef(heard, sound.samples)[0, 1] > 0.999


def test_a_spectrogram_is_bright_where_the_tone_is_and_empty_after_its_end():
    image = pytest.importorskip("PIL.Image")
    address = spectrogram_address(Sound(tone(0.5, 1000), RATE_HZ), seconds=1.0)
    pixels = np.asarray(image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))), np.float32).sum(axis=2)
    assert pixels.shape == (BANDS, COLUMNS)
    mel = np.log10(1 + np.array([1000, 8000]) / 700)
    tone_row = BANDS - 1 - round(BANDS * mel[0] / mel[1])
    assert abs(int(pixels[:, 20:180].mean(axis=1).argmax()) - tone_row) <= 2
    assert pixels[:, 220:].max() < 60 < pixels[:, 20:180].max()


def test_three_examples_of_eleven_tasks_of_two_runs_stay_under_15_mb():
    """Of noise, which compresses least, 6 s each: two conditions, ground truth, resynthesis, and two generated."""
    noise = np.random.default_rng(0).normal(0, 0.1, 6 * RATE_HZ).astype(np.float32)
    sound = Sound(noise, RATE_HZ)
    assert 11 * 3 * 6 * len(mp3_address(sound) + spectrogram_address(sound, 6.0)) < 15e6


def test_a_curve_is_drawn_from_first_to_last_step_in_means():
    lines = [{"step": step, "loss/tts": 10.0 - step / 1000} for step in range(1, 5001)] + [{"step": 6000}]
    figure = draw([("A", "training", lines, "loss/tts"), ("A", "held out", lines, "heldout/tts")])
    assert figure is not None and len(figure.curves) == 1
    (curve,) = figure.curves
    pixels = [tuple(map(float, pair.split(","))) for pair in curve.points.split()]
    assert len(pixels) == MOST_POINTS and pixels == sorted(pixels) and pixels[0][1] < pixels[-1][1]
    assert curve.about == "A, training: 9.99 at step 9, 5.01 at step 4992"
    assert draw([("A", "training", lines, "loss/asr")]) is None
    lone = draw([("A", "training", lines[:1], "loss/tts")])
    assert lone is not None and np.isfinite([float(x) for x in lone.curves[0].points.split(",")]).all()


def test_equal_values_are_told_once_with_the_runs_that_have_them():
    assert equal_across_runs([("A", 3), ("B", 5), ("C", 3)]) == [("AC", 3), ("B", 5)]


def test_each_run_is_named_by_an_option_of_its_own():
    options = checked(tyro.cli(ReportOptions, args=["--run", "one", "--run", "s3/other", "--out", "page.html"]))
    assert options.run == (Path("one"), Path("s3/other")) and options.out == Path("page.html")


def test_what_cannot_be_reported_is_refused_with_a_remedy(tmp_path):
    record = write_evaluation(tmp_path / "run", {"tts": ("a",)})
    with pytest.raises(ValueError, match=r"wanted different runs; name each once"):
        read_evaluations([tmp_path / "run", tmp_path / "run"])
    with pytest.raises(ValueError, match=r"got 0 runs, wanted 1 to 8; repeat --run"):
        read_evaluations([])
    with pytest.raises(ValueError, match=r"no such file; make it with `python -m uniaudio_jax.evaluate --run .*none`"):
        read_evaluations([tmp_path / "none"])
    wav = tmp_path / "run" / "evaluation/tts/0.codec.wav"
    wav.write_bytes(b"no audio")
    with pytest.raises(ValueError, match=r"0\.codec\.wav: got no readable audio .* evaluate the run again"):
        page_of(tmp_path / "run")
    wav.unlink()
    with pytest.raises(ValueError, match=r"0\.codec\.wav: got no file, wanted the audio"):
        page_of(tmp_path / "run")
    del record["judges"]  # as in an earlier version
    write_json(tmp_path / "run" / "evaluation.json", record)
    with pytest.raises(ValueError, match=r"wanted those of an evaluation of this version; make it again"):
        read_evaluations([tmp_path / "run"])


def test_an_empty_result_is_told_and_not_played(tmp_path):
    record = write_evaluation(tmp_path / "run", {"tts": ("a",)})
    soundfile.write(tmp_path / "run" / record["tasks"]["tts"]["samples"][0]["files"]["generated"], np.zeros(0), RATE_HZ)
    page = Reader(page_of(tmp_path / "run"))
    assert "empty: no sample of audio" in page.text
    assert len([player for player in page.all("audio") if "src" in player]) == 3


def test_what_a_run_was_trained_on_stands_in_the_page(tmp_path):
    passport = {"licence": "CC-BY-4.0", "source": "LibriTTS", "codec": {"codec": "tiny"}, "corpus_sha256": "9" * 64}
    meta = {"datasets": {"tts/libri": passport}, "hours_seen": {"tts/libri": 7.25}, "config": {"name": "small"}}
    with closing(Checkpoints(harmless(tmp_path))) as checkpoints:
        checkpoints.save(3, {"counters": {"step": np.zeros(())}}, meta)
    text = " ".join(Reader(page_of(tmp_path / "harmless")).text.split())
    assert "tts / libri A 7.25 CC-BY-4.0 LibriTTS tiny 999999999999" in text and "small" in text


def test_the_command_writes_the_page_whole(two_runs, page_file, tmp_path, monkeypatch, capsys):
    words = ["--run", str(two_runs[0]), "--run", str(two_runs[1]), "--out", str(tmp_path / "new/page.html")]
    monkeypatch.setattr(sys, "argv", ["report", *words])
    main()
    assert (tmp_path / "new/page.html").read_text() == page_file.read_text()
    assert "open it in a browser" in capsys.readouterr().out
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new/page.html"]


@needs_chromium
def test_the_page_plays_every_sound_one_at_a_time_without_a_complaint(browser, page_file):
    browser.open(page_file)
    browser.value("Promise.all([...document.querySelectorAll('article audio')].map(a => a.play().catch(() => 0)))")
    browser.until("[...document.querySelectorAll('article audio')].every(a => a.duration > 0.25 && !a.error)")
    browser.value("(window.last = [...document.querySelectorAll('article audio')].at(-1), last.play())")
    assert browser.value("[...document.querySelectorAll('audio')].filter(a => !a.paused).length") <= 1
    browser.until("last.ended")
    assert browser.complaints == []


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_are_the_systems_until_the_switch_is_pressed(browser, page_file, scheme):
    browser.look(1103, scheme=scheme)
    browser.open(page_file)
    brightness = "Number(getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0])"
    assert (browser.value(brightness) > 127) == (scheme == "light")
    browser.value("document.querySelector('#theme').click()")
    assert (browser.value(brightness) > 127) == (scheme == "dark")
    assert browser.complaints == []


@needs_chromium
def test_a_narrow_screen_scrolls_tables_and_not_the_page(browser, page_file):
    browser.look(360)
    browser.open(page_file)
    assert browser.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert browser.value("[...document.querySelectorAll('.scrolling')].some(e => e.scrollWidth > e.clientWidth)")
    assert browser.value("[...document.querySelectorAll('.scrolling')].every(e => e.tabIndex === 0 && e.ariaLabel)")


@needs_chromium
def test_a_vote_by_keys_is_sealed_until_its_end_and_saved(browser, page_file, tmp_path):
    browser.look(1103)
    browser.open(page_file)
    browser.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.value("document.querySelector('#ballot-options button').click()")
    seen = []
    for vote in "1021":
        pair = "[...document.querySelectorAll('#ballot-pair audio')].map(a => a.src)"
        seen.append((browser.value(pair), vote))
        words = browser.value("document.querySelector('#ballot-pair').outerHTML.replace(/data:[^\"]*/g, '')")
        assert not re.search(r"run|codec|generated|\bone\b|other", words)
        assert browser.value("document.querySelector('#votes').hidden")
        browser.press(vote)
    browser.until("!document.querySelector('#votes').hidden && !document.querySelector('dialog').open")
    browser.value("document.querySelector('#save').click()")
    saved = wait_for(tmp_path / "votes.json")
    assert saved["sides"] == ["generated A", "generated B"] and sum(saved["totals"].values()) == 4
    assert [run["name"] for run in saved["runs"]] == ["one", "other"] and saved["totals"]["none"] == 1
    assert sorted((cast["task"], cast["id"]) for cast in saved["votes"]) == [
        ("enhancement", "a"),
        ("enhancement", "bc"),
        ("enhancement", "def"),
        ("tts", "shared"),
    ]
    for (sources, vote), cast in zip(seen, saved["votes"], strict=True):
        heard = "document.querySelector('[data-task={}][data-id={}] [data-role=generated][data-runs={}] audio').src"
        sides = [cast["first"], cast["second"]]
        assert sources == [browser.value(heard.format(cast["task"], cast["id"], side[-1])) for side in sides]
        assert cast["preferred"] == {"1": sides[0], "2": sides[1], "0": None}[vote]
    assert browser.complaints == []


def wait_for(path: Path) -> dict:
    """The JSON of a file that is being downloaded, which takes its name when it is whole."""
    for _ in range(1000):
        if path.is_file():
            break
        time.sleep(0.01)
    return read_json(path, "the saved votes")


@needs_chromium
def test_text_from_data_runs_nothing_in_a_browser(browser, tmp_path):
    write_evaluation(tmp_path / "run", {"tts": ("a",)}, text=HURTFUL)
    (tmp_path / "page.html").write_text(page_of(tmp_path / "run"), encoding="utf-8")
    browser.open(tmp_path / "page.html")
    browser.value("document.querySelector('#ballot-options button').click()")
    assert browser.value("document.querySelector('#ballot-text').textContent") == HURTFUL
    assert browser.value("typeof window.hurt") == "undefined" and json.dumps(browser.complaints) == "[]"
