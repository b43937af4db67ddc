"""What generate and evaluate leave on disk: whatever the ids of the data, and wherever they are interrupted."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import soundfile

from data_pipelines.batches import open_training_data
from data_pipelines.heldout import Example, HeldOut
from data_pipelines.views import About, View
from tests.small_run import REPO, write_untrained_run
from uniaudio_jax import evaluate, generate
from uniaudio_jax.audio.files import write_audio
from uniaudio_jax.evaluate import Evaluator
from uniaudio_jax.evaluation.examples import other_clips
from uniaudio_jax.generate import Listing
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.tasks import get_task

TASKS = ("tts", "enhancement", "audio_tagging")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_untrained_run(folder, TASKS)
    return folder


@pytest.fixture
def run(folder, monkeypatch) -> Path:
    """A run that makes the same few tokens of everything, without its model."""

    def few_tokens(self, task, prompts, *options):
        shape = (5, 3) if get_task(task).makes_audio else 5
        return ((prompt.number, np.full(shape, 7)) for prompt in prompts)

    monkeypatch.setattr(Run, "results", few_tokens)
    monkeypatch.setenv("UNIAUDIO_CACHE", str(REPO / ".jax_cache"))
    for path in folder.glob("run/evaluation*.*"):
        path.unlink()
    return folder / "run"


@pytest.fixture
def start(monkeypatch):
    """Calls the main function of a command with these words; returns its exit code."""

    def start(command, *words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        try:
            command.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return start


def files_below(folder: Path, *but: Path) -> dict[Path, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in paths if not any(path.is_relative_to(other) for other in but)}


def rows_in(out: Path) -> list[dict]:
    return json.loads((out / "samples.json").read_text(), parse_constant=pytest.fail)


def name_clips(monkeypatch, ids: list[str]) -> None:
    monkeypatch.setattr(View, "about", lambda self, number: About(ids[number], "words", "s0"))


# generate


@pytest.mark.parametrize("task", ["enhancement", "audio_tagging"])
def test_no_id_leads_out_of_the_folder_or_onto_a_users_file(task, run, start, monkeypatch, tmp_path):
    soundfile.write(tmp_path / "u0.wav", np.full(101, 0.5), 16000)
    out = tmp_path / "out"
    out.mkdir()
    (out / "a_b.wav").write_bytes(b"mine")
    ids = [str(tmp_path / "u0"), "../escaped", "a/b", "A/B", ".hidden", "音/" * 157, "x" * 307]
    name_clips(monkeypatch, ids)
    before = files_below(tmp_path)
    words = ("--run", run, "--task", task, "--split", "heldout", "--count", 7, "--out", out)
    assert start(generate, *words) == 0
    assert files_below(tmp_path, out) == {path: data for path, data in before.items() if not path.is_relative_to(out)}
    assert (out / "a_b.wav").read_bytes() == b"mine"
    rows = rows_in(out)
    assert sorted(row["id"] for row in rows) == sorted(ids)
    key = "generated" if task == "enhancement" else "generated_file"
    names = {row["id"]: row[key].split(".")[0] for row in rows}
    assert len({name.casefold() for name in names.values()}) == 7
    assert names["../escaped"] == "escaped" and names[".hidden"] == "hidden" and "a_b" not in names.values()
    assert {path.name for path in out.iterdir()} == {"a_b.wav", "samples.json"} | {
        value for row in rows for value in row.values() if str(value).endswith((".wav", ".txt"))
    }
    again = files_below(out)
    assert start(generate, *words) == 0 and files_below(out) == again


def test_two_datasets_and_two_tasks_with_one_id_keep_their_files(tmp_path):
    listing, stems = Listing(tmp_path), []
    for task, corpus in (("tts", "one"), ("tts", "two"), ("enhancement", "one"), ("tts", "one")):
        about = {"id": "clip", "task": task, "corpus": corpus}
        stems.append(listing.stem_of(about))
        listing.put(about | {"generated": f"{stems[-1]}.wav"})
    assert stems == ["clip", "clip-2", "clip-3", "clip"]
    assert len(rows_in(tmp_path)) == 3 and Listing(tmp_path).stem_of(about) == "clip"


def test_results_are_numbered_after_the_highest_file_or_row(tmp_path):
    for name in ("tts_000.wav", "tts_007.wav", "tts_x.wav", "asr_019.txt"):
        (tmp_path / name).touch()
    assert Listing(tmp_path).next_stem("tts") == "tts_008" and Listing(tmp_path).next_stem("lm") == "lm_000"
    Listing(tmp_path).put({"id": "tts_012", "task": "tts", "generated": "tts_012.wav"})
    assert Listing(tmp_path).next_stem("tts") == "tts_013"


def test_a_kill_leaves_no_file_without_its_row(run, start, monkeypatch, tmp_path, capsys):
    written = []

    def write(path, *wav):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write_audio(path, *wav)

    monkeypatch.setattr(generate, "write_audio", write)
    words = ("--run", run, "--task", "enhancement", "--split", "heldout", "--count", 3, "--out", tmp_path / "out")
    assert start(generate, *words) == 130
    rows = rows_in(tmp_path / "out")
    named = {row[key] for row in rows for key in ("generated", "reference", "noisy_audio")}
    files = {path.name for path in (tmp_path / "out").glob("*.wav")}
    assert len(rows) == 2 and len(files) == 5 and files < named
    assert "interrupted: the results that samples.json lists are kept" in capsys.readouterr().err


def test_a_listing_of_someone_else_is_refused_and_kept(run, start, tmp_path, capsys):
    (tmp_path / "samples.json").write_text('{"a": 3}')
    words = ("--run", run, "--task", "enhancement", "--split", "heldout", "--out", tmp_path)
    assert start(generate, *words) == 2 and "choose another --out" in capsys.readouterr().err
    assert (tmp_path / "samples.json").read_text() == '{"a": 3}'


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "tts", "plain_tts", "--split", "heldout", "--out", "out"], "no corpus for task 'plain_tts'"),
        (["--task", "tts", "--text", "Hello.", "--out", "out"], "missing ['speaker_prompt']"),
        (["--task", "ttts", "--out", "out"], "did you mean 'tts'"),
        (["--task", "tts", "--text", "Hello.", "--out", "file/below"], "file is a file"),
        (["--task", "tts", "--texts", "none.txt", "--out", "out"], "none.txt"),
        (["--task", "tts", "--texts", "a.txt", "--stream", "--out", "out"], "--texts makes a result"),
        (["--task", "tts", "--text", "Hello.", "--rows", 0, "--out", "out"], "--rows: got 0, wanted at least 1"),
        (["--task", "tts", "--text", "Hello.", "--out", "gs://bucket/out"], "address of remote storage"),
    ],
)
def test_a_mistake_is_told_before_the_weights_are_read(words, message, run, start, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Run, "params", property(lambda self: pytest.fail("the weights were read")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert start(generate, "--run", run, *words) == 2
    assert message in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_guidance_of_a_run_that_dropped_no_condition_is_warned_of_once(folder, monkeypatch, capsys):
    run = load_run(folder / "run")
    made = SimpleNamespace(results=lambda *_: iter([(0, np.zeros((5, 3), int))]))
    monkeypatch.setattr(Run, "generator", made)
    for guidance in (1.0, 3.0, 2.0):
        run.generate("enhancement", noisy_audio=np.zeros(3001, np.float32), sampling=Sampling(guidance=guidance))
    (line,) = capsys.readouterr().err.splitlines()
    assert "guidance=3, but the run was trained with data.condition_dropout=0" in line
    assert "train with --data.condition-dropout 0.1" in line


def test_training_drops_conditions_and_what_is_held_out_keeps_them(folder):
    run = load_run(folder / "run")
    config = replace(run.config, data=replace(run.config.data, condition_dropout=0.9))
    passport, model = run.codec.passport(), config.model
    kept, still = (HeldOut(of, "enhancement", passport).batches() for of in (run.config, config))
    for batch, same in zip(kept, still, strict=True):
        np.testing.assert_array_equal(batch.tokens, same.tokens)
    trained = open_training_data(config.data, "target", model.ids, model.text_width, passport, 0, 1)
    described = [example for row in range(31) for example in trained.examples(row)]
    dropped = np.mean([example.get("conditions") == "dropped" for example in described])
    assert abs(dropped - 0.9) < 4 * np.sqrt(0.9 * 0.1 / len(described))
    assert not any({"conditions", "prompt_id"} <= example.keys() for example in described)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_of_dropped_conditions_below_0_or_of_all_is_refused(share, folder):
    with pytest.raises(ValueError, match=f"condition_dropout: got {share}, wanted at least 0 and less than 1"):
        replace(load_run(folder / "run").config.data, condition_dropout=share)


# a list of texts


@pytest.fixture
def heard(monkeypatch) -> list[tuple[int, int]]:
    """The number of each prompt that was generated, and the rows at once."""
    heard = []

    def few_tokens(self, task, prompts, sampling, rows):
        for prompt in prompts:
            heard.append((prompt.number, rows))
            yield prompt.number, np.full((5, 3), 7)

    monkeypatch.setattr(Run, "results", few_tokens)
    return heard


@pytest.fixture
def voice(tmp_path) -> Path:
    soundfile.write(tmp_path / "voice.wav", np.random.default_rng(0).normal(0, 0.1, 3001), 16000)
    return tmp_path / "voice.wav"


def test_a_line_is_made_once_and_again_when_it_or_an_option_changes(run, start, heard, voice, tmp_path):
    texts, out = tmp_path / "lines.txt", tmp_path / "out"
    words = ("--run", run, "--task", "tts", "--texts", texts, "--speaker-prompt", voice, "--out", out, "--rows", 3)
    texts.write_text("One.\n\nTwo.\nThree.\n")
    assert start(generate, *words) == 0 and heard == [(0, 3), (2, 3), (3, 3)]
    assert {row["id"]: row["text"] for row in rows_in(out)} == {
        "lines_0000": "One.",
        "lines_0002": "Two.",
        "lines_0003": "Three.",
    }
    assert all(len(soundfile.read(out / f"{row['id']}.wav")[0]) == 5 * 320 for row in rows_in(out))
    heard.clear()
    assert start(generate, *words) == 0 and heard == []
    (out / "lines_0003.wav").unlink()
    texts.write_text("One.\n\nTwo, again.\nThree.\nFour.\n")
    assert start(generate, *words) == 0 and heard == [(2, 3), (3, 3), (4, 3)]
    assert len(rows_in(out)) == 4 and {path.suffix for path in out.iterdir()} == {".wav", ".json"}
    heard.clear()
    assert start(generate, *words, "--sampling.seed", 1) == 0 and [number for number, _ in heard] == [0, 2, 3, 4]
    assert len(rows_in(out)) == 4 and len(list(out.glob("*.wav"))) == 4


def test_a_line_of_json_has_its_own_conditions_and_id(run, start, heard, voice, tmp_path):
    texts = tmp_path / "lines.jsonl"
    lines = [{"id": "a/b", "text": "One."}, {"text": "Zwei.", "language": "de", "speaker_prompt": str(voice)}]
    texts.write_text("\n".join(map(json.dumps, lines)))
    words = ("--run", run, "--task", "tts", "--texts", texts, "--out", tmp_path / "out", "--speaker-prompt", voice)
    assert start(generate, *words, "--language", "en-us") == 0
    rows = {row["id"]: row for row in rows_in(tmp_path / "out")}
    assert rows["a/b"]["language"] == "en-us" and rows["a/b"]["generated"] == "a_b.wav"
    assert rows["lines_0001"]["language"] == "de" and rows["lines_0001"]["speaker_prompt"] == str(voice)


def test_a_line_that_fails_costs_itself_alone(run, start, heard, voice, tmp_path, capsys):
    texts, out = tmp_path / "lines.jsonl", tmp_path / "out"
    lines = [{"speaker_prompt": "none.wav"}, {}, {"language": "xx-nowhere"}]
    texts.write_text("\n".join(json.dumps({"text": "One."} | line) for line in lines))
    words = ("--run", run, "--task", "tts", "--texts", texts, "--out", out, "--speaker-prompt", voice)
    assert start(generate, *words) == 2 and [number for number, _ in heard] == [1]
    error = capsys.readouterr().err
    assert "2 of 3 lines could not be generated" in error
    assert f"{texts}:1: none.wav" in error and f"{texts}:3: " in error and (out / "lines_0001.wav").is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "got no line"),
        ('{"text": "One."}\n{"txt": "Two."}', "lines.jsonl:2: got 'txt', wanted one of text, "),
        ('{"text": "One."', "lines.jsonl:1: got text that is not JSON"),
        ("3", "lines.jsonl:1: got a JSON int"),
        ('{"text": 3}', "lines.jsonl:1: text: got 3, wanted a text"),
        ('{"words_per_minute": "90"}', "words_per_minute: got '90', wanted a whole number"),
        ('{"masked_seconds": [1]}', "masked_seconds: got [1], wanted two numbers"),
        ('{"id": "a", "text": "One."}\n{"id": "a", "text": "Two."}', "lines.jsonl:2: got the id 'a' of "),
    ],
)
def test_a_list_with_a_mistake_is_refused_with_its_line(content, message, run, start, heard, tmp_path, capsys):
    (tmp_path / "lines.jsonl").write_text(content)
    words = ("--run", run, "--task", "tts", "--texts", tmp_path / "lines.jsonl", "--out", tmp_path / "out")
    assert start(generate, *words) == 2 and message in capsys.readouterr().err and heard == []


# evaluate


@pytest.fixture
def losses(monkeypatch):
    """The held-out losses by task that an evaluation finds; the tasks that it asked for."""
    asked, values = [], {}

    def task_losses(run, programs, untrained, task, heldout, examples):
        asked.append(task.name)
        value = values.get(task.name, 2.0)
        if isinstance(value, BaseException):
            raise value
        levels = {f"{name}_per_level": [value] for name in ("loss", "accuracy", "unigram_loss")}
        return {"loss": value, "unigram_loss": 3.0, "untrained_loss": 5.0, "heldout_examples": len(examples)} | levels

    monkeypatch.setattr(evaluate, "task_losses", task_losses)
    monkeypatch.setattr(Evaluator, "untrained", None)
    return asked, values


def record_of(run: Path) -> dict:
    return json.loads((run / "evaluation.json").read_text(), parse_constant=pytest.fail)


def test_an_interrupted_evaluation_goes_on_with_what_is_missing(run, start, losses, capsys):
    asked, values = losses
    values["enhancement"] = KeyboardInterrupt()
    assert start(evaluate, "--run", run, "--count", 2) == 130
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("interrupted: the tasks that are finished are in evaluation.json")
    first = record_of(run)
    assert list(first["tasks"]) == ["tts"] and first["step"] == 3 and first["options"]["count"] == 2
    values.clear()
    asked.clear()
    assert start(evaluate, "--run", run, "--count", 2) == 0
    assert asked == ["enhancement", "audio_tagging"]
    assert "goes on with what is missing; of step 3 it has tts" in capsys.readouterr().out
    assert list(record_of(run)["tasks"]) == list(TASKS) and record_of(run)["tasks"]["tts"] == first["tasks"]["tts"]
    text = (run / "evaluation.md").read_text()
    assert all(f"| {task} | 2.000 |" in text for task in TASKS)
    assert (run / "evaluation.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--count", 3), ("--count", 2, "--sampling.seed", 1)])
def test_an_evaluation_with_other_options_begins_anew(words, run, start, losses):
    asked, values = losses
    values["audio_tagging"] = KeyboardInterrupt()
    assert start(evaluate, "--run", run, "--count", 2) == 130
    values.clear()
    asked.clear()
    assert start(evaluate, "--run", run, *words) == 0 and asked == list(TASKS)
    asked.clear()
    assert start(evaluate, "--run", run, *words) == 0 and asked == list(TASKS)  # one that is whole is made again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "reason"),
    [(RuntimeError("out of memory"), "RuntimeError: out of memory"), (np.nan, "loss at step 3 is nan")],
)
def test_a_task_that_fails_costs_itself_alone(value, reason, run, start, losses, capsys):
    asked, values = losses
    values["enhancement"] = value
    assert start(evaluate, "--run", run, "--count", 2) == 2
    record, shown = record_of(run), capsys.readouterr()
    assert list(record["tasks"]) == ["tts", "audio_tagging"] and reason in record["failed"]["enhancement"]
    assert "1 of 3 tasks could not be evaluated (enhancement: " in shown.err and reason in shown.out
    values.clear()
    asked.clear()
    assert start(evaluate, "--run", run, "--count", 2) == 0 and asked == ["enhancement"]
    assert record_of(run)["failed"] == {}


@pytest.mark.slow
def test_weights_that_are_no_numbers_are_told_and_not_written(run, start, monkeypatch, capsys):
    broken = jax.tree.map(lambda leaf: leaf * np.nan, load_run(run).params)
    monkeypatch.setattr(Run, "params", broken)
    assert start(evaluate, "--run", run, "--task", "tts", "--count", 1) == 2
    assert "tts: ValueError: the held-out loss at step 3 is nan" in capsys.readouterr().err
    assert record_of(run)["tasks"] == {}


@pytest.mark.slow
def test_empty_results_and_a_torn_line_of_metrics_end_no_evaluation(run, start, losses, monkeypatch):
    nothing = np.zeros((0, 3), int)
    monkeypatch.setattr(Run, "results", lambda self, task, prompts, *_: ((p.number, nothing) for p in prompts))
    (run / "metrics.jsonl").write_text('{"step": 1, "loss/tts": 5.0}\n{"step": 2, "loss/tt')
    assert start(evaluate, "--run", run, "--task", "tts", "enhancement", "--count", 2) == 0
    metrics = record_of(run)["tasks"]["enhancement"]["metrics"]["generated"]
    assert metrics["length_ratio"]["value"] == 0 and metrics["si_sdr_db"]["value"] == -100
    assert (run / "evaluation.png").is_file()


def test_chance_is_another_clip_even_for_one_example(run, start, losses):
    assert start(evaluate, "--run", run, "--task", "enhancement", "--count", 1) == 0
    chance = record_of(run)["tasks"]["enhancement"]["metrics"]["another reference"]
    assert chance["si_sdr_db"]["value"] < 30 and chance["mel_distance"]["value"] > 0
    assert chance["si_sdr_db"]["examples"] == chance["mel_distance"]["examples"] == 1


def example(name: str, *codes: int) -> Example:
    return Example(name, "", "s", {"audio": np.array(codes), "events": np.array(codes)}, "corpus")


def test_the_other_clip_is_never_the_example_itself_nor_its_copy():
    enhancement, tagging = get_task("enhancement"), get_task("audio_tagging")
    clips = [example("a", 3, 5), example("copy of a", 3, 5), example("a", 7), example("b", 11), example("c", 13)]
    assert other_clips(enhancement, clips, 5) == [3, 2, 3, 4, 0]
    assert other_clips(enhancement, clips, 2) == [3, 2]  # of clips after the first two, where these are the same
    assert other_clips(enhancement, clips[:2], 2) == [] and other_clips(enhancement, clips[:1], 1) == []
    assert other_clips(tagging, clips[:2], 2) == [1, 0]  # two clips may have the same labels


def test_a_task_that_is_unknown_or_has_no_data_is_told_first(run, start, capsys, losses):
    assert start(evaluate, "--run", run, "--task", "tts", "ttts") == 2
    assert "did you mean 'tts'" in capsys.readouterr().err
    assert start(evaluate, "--run", run, "--task", "tts", "plain_tts") == 2
    assert "no corpus for task 'plain_tts'" in capsys.readouterr().err and losses[0] == []
