"""Laws of the evaluation: originals are what was encoded, intervals cover, equal runs do not differ, devices agree."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import jax
import numpy as np
import pytest
import soundfile

from data_pipelines.heldout import HeldOut
from data_pipelines.originals import Originals
from data_pipelines.streams import Tokenizers
from data_pipelines.views import View
from tests.small_run import finish, python, write_codec, write_run, write_untrained_run
from tests.test_builder import options, run_build, write_corpus
from uniaudio_jax import load_run
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import MeshConfig
from uniaudio_jax.evaluate import EvaluateOptions, Evaluator
from uniaudio_jax.evaluation.comparison import compare, comparison_table
from uniaudio_jax.evaluation.intervals import Interval, interval_of, interval_of_difference
from uniaudio_jax.evaluation.listening import Listener
from uniaudio_jax.evaluation.rows import ANOTHER, GENERATED, judge
from uniaudio_jax.files import write_json
from uniaudio_jax.generators import Generators
from uniaudio_jax.metrics.judges import Judges
from uniaudio_jax.metrics.metric import SetMetric
from uniaudio_jax.metrics.registry import make_metrics
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score
from uniaudio_jax.programs import Programs
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.sinks import Log
from uniaudio_jax.sinks.jsonl import read_metrics
from uniaudio_jax.tasks import get_task

# originals


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A corpus of 13 tones, a codec, and their tokens."""
    folder = tmp_path_factory.mktemp("built")
    corpus, codec = write_corpus(folder / "tones", 13), write_codec(folder / "codec")
    run_build(options(corpus, codec, folder / "tokens", "enhancement", "audio_edit"))
    return folder


@pytest.fixture(scope="module")
def tokenizers(built):
    return Tokenizers(load_codec(built / "codec"))


@pytest.mark.parametrize("name", ["enhancement", "audio_edit"])
def test_an_original_is_the_waveform_that_the_codes_were_made_from(name, built, tokenizers):
    task = get_task(name)
    view = View(built / "tokens", "tones", task, "heldout")
    originals = Originals(view.columns[task.target.key].passport, task.target, "heldout", tokenizers)
    for number in range(len(view)):
        codes = view.tokens(number, task.target.key)
        wav = originals.waveform(view.about(number).id, len(codes))
        np.testing.assert_array_equal(tokenizers.codec.encode(wav), codes)
    assert len(view) == 4
    if name == "enhancement":
        file, _ = soundfile.read(built / "tones/wav/8.wav", dtype="float32")
        np.testing.assert_array_equal(originals.waveform("clip8", len(view.tokens(2, "audio"))), file)


@pytest.mark.parametrize(
    ("change", "clip", "frames", "message"),
    [
        ({}, "clip3", 15, "clip 'clip3' is not there"),  # one of the other split
        ({}, "clip0", 13, "has 4800 samples, its codes stand for 13 frames of 320"),
        ({"corpus_place": "/moved"}, "clip0", 15, "a path that does not exist"),
        ({"mixing": {"sounds": "ab12", "options": {}, "seed": 0}}, "clip0", 15, "knows by their hashes alone"),
    ],
)
def test_an_original_that_cannot_be_had_says_why(change, clip, frames, message, built, tokenizers):
    task = get_task("enhancement")
    passport = View(built / "tokens", "tones", task, "heldout").columns["audio"].passport | change
    with pytest.raises(ValueError, match=message):
        Originals(passport, task.target, "heldout", tokenizers).waveform(clip, frames)


# intervals


def ends(interval: Interval | None) -> tuple[float, float, float]:
    assert interval and interval.low is not None and interval.high is not None
    return interval.value, interval.low, interval.high


def scores(values) -> list[Score]:
    return [Score(float(value), 1.0) for value in values]


def test_an_interval_of_equal_scores_is_a_point_and_of_one_clip_has_no_ends():
    assert interval_of(scores([3.0] * 7)) == (3.0, 3.0, 3.0)
    assert interval_of(scores([3.0])) == (3.0, None, None)
    assert interval_of([NO_SCORE, NO_SCORE]) is None


def test_an_error_rate_weighs_its_clips_by_their_length():
    value, low, high = ends(interval_of([Score(2, 10), Score(0, 30), Score(1, 10), NO_SCORE]))
    assert value == 3 / 50 and 0 <= low < value < high <= 0.2


def test_an_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [ends(interval_of(scores(rng.normal(1.7, 1, 41)))) for _ in range(1000)]
    covered = np.mean([low <= 1.7 <= high for _, low, high in intervals])
    assert 0.92 < covered < 0.97  # the percentiles of 41 clips are a little too narrow


def test_the_same_clips_are_drawn_for_both_sides_of_a_difference():
    values = np.random.default_rng(0).normal(0, 100, 31)
    value, low, high = ends(interval_of_difference(scores(values + 0.1), scores(values)))
    assert abs(value - 0.1) < 1e-9 and abs(low - 0.1) < 1e-9 and abs(high - 0.1) < 1e-9
    assert interval_of_difference([NO_SCORE, Score(1, 1)], [Score(1, 1), NO_SCORE]) is None


def test_a_metric_of_all_clips_is_told_for_each_row_but_other_references_which_are_the_same_clips():
    wav = np.zeros(1009, np.float32)
    samples = [Sample(reference=wav, estimate=wav, sample_rate_hz=16000)] * 3
    metrics = make_metrics(["length_ratio"], Judges())
    metrics["count"] = SetMetric(lambda given: float(len(given)), metrics["length_ratio"].about)
    values, clips = judge({GENERATED: samples, ANOTHER: samples}, metrics)
    assert values[GENERATED]["count"] == {"value": 3.0, "low": None, "high": None, "examples": 3}
    assert values[ANOTHER].keys() == {"length_ratio"} and clips[2][GENERATED].keys() == {"length_ratio"}


# comparison


def write_evaluation(run, stoi, mel, clips=17, **changes) -> None:
    """An evaluation whose clips have STOI and mel distances around these, with the same noise in each run."""
    noise = np.random.default_rng(0).normal(0, 0.01, clips)
    samples = [
        {
            "id": f"c{number}",
            "corpus": "tones",
            "scores": {GENERATED: {"stoi": [stoi + noise[number], 1], "mel_distance": [mel - noise[number], 1]}},
        }
        for number in range(clips)
    ]
    entry = {"reference": "ground truth", "samples": samples} | changes.pop("entry", {})
    record = {"step": 7, "judges": {"stoi": {"pystoi": "1"}}, "tasks": {"enhancement": entry}} | changes
    run.mkdir()
    write_json(run / "evaluation.json", record)


def test_a_comparison_tells_the_better_run_by_each_metric_and_equal_runs_apart_from_none(tmp_path):
    write_evaluation(tmp_path / "a", 0.8, 1.0)
    write_evaluation(tmp_path / "b", 0.7, 1.3)
    write_evaluation(tmp_path / "c", 0.8, 1.0, clips=11)
    verdicts = {each.metric: each.verdict for each in compare((tmp_path / "a", tmp_path / "b"))}
    assert verdicts == {"stoi": "A is better", "mel_distance": "A is better"}
    verdicts = {each.metric: each.verdict for each in compare((tmp_path / "b", tmp_path / "a"))}
    assert verdicts == {"stoi": "B is better", "mel_distance": "B is better"}
    same = compare((tmp_path / "a", tmp_path / "c"))
    assert [(each.verdict, each.clips, each.difference.value) for each in same] == [("no difference seen", 11, 0.0)] * 2
    table = comparison_table((tmp_path / "a", tmp_path / "b"), compare((tmp_path / "a", tmp_path / "b")))
    assert "| enhancement | stoi | 0.100 | 0.100 | 0.100 | 17 | A is better |" in table


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judges": {"stoi": {"pystoi": "2"}}}, "stoi was measured by other packages or models"),
        ({"entry": {"reference": "codec resynthesis"}}, "evaluate both where the corpora are"),
        ({"tasks": {}}, "no clip was generated by both"),
    ],
)
def test_evaluations_that_cannot_be_compared_are_refused(changes, message, tmp_path):
    write_evaluation(tmp_path / "a", 0.8, 1.0)
    write_evaluation(tmp_path / "b", 0.7, 1.3, **changes)
    with pytest.raises(ValueError, match=message):
        compare((tmp_path / "a", tmp_path / "b"))


def test_comparing_a_run_that_was_not_evaluated_is_one_clear_error(tmp_path):
    _, err = finish(python("uniaudio_jax.evaluate", "--compare", tmp_path, tmp_path), code=2)
    assert f"make it with `python -m uniaudio_jax.evaluate --run {tmp_path}`" in err
    _, err = finish(python("uniaudio_jax.evaluate"), code=2)
    assert "wanted --run RUN or" in err


# devices, splits, checkpoints


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_untrained_run(tmp_path_factory.mktemp("evaluated"), ("tts", "enhancement"))


@pytest.mark.slow
def test_two_devices_generate_what_one_does(run):
    loaded, sampling = load_run(run), Sampling(top_k=7, seed=3, min_frames=5)
    examples = HeldOut(loaded.config, "enhancement", loaded.codec.passport()).examples(7)
    prompts = [
        loaded._prompt(get_task("enhancement"), example.streams, number, 3 + 4 * (number % 3))
        for number, example in enumerate(examples)
    ]
    made = []
    for devices in (jax.devices()[:1], jax.devices()[:2]):
        generators = Generators(loaded.definition, loaded.params, loaded.vocabulary, devices)
        made.append(dict(generators.results(get_task("enhancement"), iter(prompts), sampling, rows=2)))
        assert len(generators._generators) == len(devices)
    assert sorted(made[0]) == sorted(made[1]) == list(range(7))
    for number, codes in made[0].items():
        np.testing.assert_array_equal(made[1][number], codes)


def test_a_prompt_that_one_of_several_devices_refuses_is_raised(run):
    loaded, task = load_run(run), get_task("enhancement")
    (example,) = HeldOut(loaded.config, "enhancement", loaded.codec.passport()).examples(1)
    prompt = loaded._prompt(task, example.streams, 0, 3)
    generators = Generators(loaded.definition, loaded.params, loaded.vocabulary, jax.devices()[:2])
    with pytest.raises(ValueError, match="do not fit the model's 151 positions"):
        list(generators.results(task, [prompt, prompt._replace(number=1, frames=997)], Sampling(), rows=1))


def test_references_are_judged_without_the_weights(run, monkeypatch):
    loaded = load_run(run)
    monkeypatch.setattr(type(loaded), "params", property(lambda self: pytest.fail("the weights were read")))
    record = Evaluator(loaded, EvaluateOptions(run=run, reference_only=True, count=3)).evaluate()
    assert record["failed"] == {} and set(record["tasks"]) == {"tts", "enhancement"}
    entry = record["tasks"]["enhancement"]
    assert (
        "loss" not in entry and entry["sampling"] is None and entry["reference"] == "codec resynthesis"
    )  # random tokens have no recording
    assert set(entry["metrics"]) == {"codec resynthesis", "input", "another reference"}
    assert entry["metrics"]["codec resynthesis"]["mel_distance"] == {"value": 0, "low": 0, "high": 0, "examples": 3}
    assert (run / "evaluation/enhancement/2.codec.wav").is_file()
    assert entry["samples"][2]["files"]["noisy_audio"] == "evaluation/enhancement/2.noisy_audio.wav"


def test_a_split_and_a_checkpoint_are_those_that_were_named(run):
    loaded = load_run(run, step=3)
    options = EvaluateOptions(run=run, reference_only=True, split="train", count=2, keep=0, task=("tts",))
    record = Evaluator(loaded, options).evaluate()
    assert [sample["id"].startswith("train") for sample in record["tasks"]["tts"]["samples"]] == [True, True]
    with pytest.raises(ValueError, match=r"no checkpoint of step 5, there are \[3\]"):
        load_run(run, step=5)


# listening to a training


def test_a_training_logs_metrics_and_audio_of_what_it_generates(tmp_path):
    config = write_run(tmp_path, ("enhancement",))
    words = ["--train.generate-every-steps", 3, "--train.steps", 4, "--data.tasks", "enhancement", 1]
    finish(python("uniaudio_jax.train", config, "--out", tmp_path / "run", *words, devices=2))
    lines = read_metrics(tmp_path / "run/metrics.jsonl")
    heard = {line["step"]: line for line in lines if "generated/enhancement/mel_distance" in line}
    assert sorted(heard) == [3, 4] and all(
        0 <= line["generated/enhancement/length_ratio"] < 9 for line in heard.values()
    )
    (events,) = (tmp_path / "run/tensorboard").iterdir()
    data = events.read_bytes()
    assert data.count(b"enhancement/generated") == 2 and data.count(b"enhancement/reference") == 1


@pytest.mark.slow
def test_what_a_training_logs_is_what_its_checkpoint_generates(tmp_path):
    config = write_run(tmp_path, ("enhancement",))
    words = ["--train.generate-every-steps", 4, "--train.steps", 4, "--data.tasks", "enhancement", 1]
    finish(python("uniaudio_jax.train", config, "--out", tmp_path / "run", *words))
    run = load_run(tmp_path / "run")
    options = EvaluateOptions(run=tmp_path / "run", count=run.config.train.generate_count)
    metrics = Evaluator(run, options).evaluate()["tasks"]["enhancement"]["metrics"][GENERATED]
    logged = read_metrics(tmp_path / "run/metrics.jsonl")[-1]
    for name in ("mel_distance", "length_ratio"):
        assert logged[f"generated/enhancement/{name}"] == pytest.approx(metrics[name]["value"], rel=1e-4)


def test_a_judge_that_fails_while_listening_costs_its_task_alone(run, monkeypatch, capsys):
    def failing(*_):
        raise RuntimeError("no licence")

    logged, loaded = {}, load_run(run)
    log = SimpleNamespace(scalars=lambda step, values: logged.update(values), audio=lambda *_: None)
    programs = SimpleNamespace(mesh=make_mesh(MeshConfig(), jax.devices()[:1]), merged=lambda params: params)
    listener = Listener(run, loaded.config, loaded.meta, cast(Programs, programs), cast(Log, log))
    monkeypatch.setitem(listener.metrics, "si_sdr_db", replace(listener.metrics["si_sdr_db"], measure=failing))
    listener.listen(7, loaded.params)
    assert {name.split("/")[1] for name in logged} == {"tts"}
    assert "enhancement was not listened to at step 7: RuntimeError: no licence" in capsys.readouterr().out


def test_an_evaluation_of_other_judges_begins_anew(run):
    evaluator = Evaluator(load_run(run), EvaluateOptions(run=run, reference_only=True, count=2))
    record = evaluator.evaluate()
    del record["tasks"]["enhancement"]  # as if it had been cut off after the first
    write_json(run / "evaluation.json", record)
    assert set(evaluator._begun()["tasks"]) == {"tts"}
    write_json(run / "evaluation.json", record | {"judges": {"stoi": {"pystoi": "another"}}})
    assert evaluator._begun()["tasks"] == {}
