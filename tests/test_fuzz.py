"""200 spoilt inputs over all commands: each ends well or with an error that a reader can use, and never touches others.

`--fuzz-seed N` draws other inputs.
"""

import contextlib
import hashlib
import importlib
import io
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from tests.small_run import REPO, finish, python, write_run
from tests.spoil import WORDS, pick, spoil, spoil_bytes, spoil_json

# Orbax leaves coroutines behind when it cannot read an array; they warn whenever they happen to be collected.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]
TASKS = ("tts", "enhancement", "singing")
RATE_HZ = 16000
FORMATS = ("wav", "flac", "ogg", "aiff", "au", "w64")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A whole small world: a finished run with its tokens, corpora of each format, weights, a MIDI file."""
    folder = tmp_path_factory.mktemp("world")
    config = write_run(folder, tasks=TASKS, steps=3)
    finish(python("uniaudio_jax.train", config, "--out", folder / "run", *tasks_options()))
    finish(python("uniaudio_jax.export_torch", "--run", folder / "run", "--out", folder / "torch"))
    write_corpora(folder)
    finish(
        python(
            "uniaudio_jax.codec.encode",
            folder / "audio/s0/u0.wav",
            "--codec",
            folder / "codec",
            "--out",
            folder / "codes",
        )
    )
    song = mido.MidiFile(tracks=[mido.MidiTrack([mido.MetaMessage("key_signature", key="D")])])
    for note in (60, 62, 64):
        song.tracks[0] += [mido.Message("note_on", note=note, time=0), mido.Message("note_off", note=note, time=240)]
    song.save(folder / "tune.mid")
    return folder


def tasks_options() -> list[object]:
    return ["--data.tasks", *(word for task in TASKS for word in (task, 1))]


def write_corpora(folder: Path) -> None:
    """The same seven clips of three speakers as a folder, and as Kaldi, NeMo, Lhotse and captions list them."""
    rng, rows, seconds = np.random.default_rng(0), [], 0.31
    for number in range(7):
        path = folder / "audio" / f"s{number % 3}" / f"u{number}.{(*FORMATS, 'wav')[number]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.1, round(RATE_HZ * seconds)), RATE_HZ)
        path.with_suffix(".txt").write_text(f"Good morning number {number}.")
        rows.append((f"u{number}", f"s{number % 3}", path))
    manifest = [
        {
            "id": name,
            "split": "train" if n else "heldout",
            "audio": str(path),
            "text": "Good morning.",
            "speaker": speaker,
        }
        | {"language": "en-us", "phones": [["HH", 0.1], ["AY1", 0.2]], "midi": [60, 61], "masked_seconds": [0.1, 0.2]}
        for n, (name, speaker, path) in enumerate(rows)
    ]
    write_lines(folder / "folder/manifest.jsonl", manifest)
    nemo = [
        {"audio_filepath": str(path), "duration": seconds, "text": "good morning", "speaker": speaker}
        for _, speaker, path in rows
    ]
    write_lines(folder / "nemo/nemo.jsonl", nemo)
    cuts = [
        {
            "id": name,
            "type": "MonoCut",
            "start": 0,
            "duration": seconds,
            "channel": 0,
            "recording": {"id": name, "sources": [{"type": "file", "channels": [0], "source": str(path)}]},
            "supervisions": [{"text": "good morning", "speaker": speaker, "language": "en"}],
        }
        for name, speaker, path in rows
    ]
    write_lines(folder / "lhotse/cuts.jsonl", cuts)
    captions = ["id,path,caption"] + [f'{name},{path},"a voice, number {name}"' for name, _, path in rows]
    (folder / "captions").mkdir()
    (folder / "captions/captions.csv").write_text("\n".join(captions) + "\n")
    (folder / "kaldi").mkdir()
    tables = {"wav.scp": 2, "utt2spk": 1, "text": 0}
    for table, column in tables.items():
        lines = [f"{row[0]} {row[column] if column else 'good morning'}\n" for row in rows]
        (folder / "kaldi" / table).write_text("".join(lines))


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def a_file(folder: Path, rng: np.random.Generator, pattern: str = "*") -> Path:
    return pick(rng, sorted(path for path in folder.rglob(pattern) if path.is_file()))


def build(copy: Path, place: object, *words: object) -> list[object]:
    options = ["--codec", copy / "codec", "--most-rejects", 0.5, "--out", copy / "out", "--name", "c"]
    return ["data_pipelines.builder", "--corpus", place, *options, *words]


def audio_to_columns(copy: Path, rng: np.random.Generator) -> list[object]:
    spoil_bytes(a_file(copy / "audio", rng, "u*.[!t]*"), rng)
    return build(copy, copy / "audio", "--task", pick(rng, ["plain_tts", "enhancement", "speech_edit"]))


def a_listing_to_columns(copy: Path, rng: np.random.Generator) -> list[object]:
    name = pick(rng, ["folder", "nemo/nemo.jsonl", "lhotse/cuts.jsonl", "captions/captions.csv", "kaldi"])
    spoil(copy / name if (copy / name).is_file() else a_file(copy / name, rng), rng)
    return build(copy, copy / name, "--task", pick(rng, ["plain_tts", "singing", "speech_edit", "text_to_sound"]))


def a_name_to_columns(copy: Path, rng: np.random.Generator) -> list[object]:
    path = copy / "folder/manifest.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for key in ("id", "speaker", "text", "language"):
        rows[int(rng.integers(7))][key] = pick(rng, WORDS)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build(
        copy, copy / "folder", "--task", "plain_tts", *([f"--name={pick(rng, WORDS)}"] if rng.random() < 0.3 else [])
    )


def sounds_to_columns(copy: Path, rng: np.random.Generator) -> list[object]:
    shutil.copytree(copy / "audio", copy / "sounds")
    spoil_bytes(a_file(copy / "sounds", rng, "u*.[!t]*"), rng)
    return build(copy, copy / "audio", "--task", "enhancement", "--sounds", copy / "sounds")


def audio_to_codes(copy: Path, rng: np.random.Generator) -> list[object]:
    path = a_file(copy / "audio", rng, "u*.[!t]*")
    spoil_bytes(path, rng)
    return ["uniaudio_jax.codec.encode", path, "--codec", copy / "codec", "--out", copy / "out"]


def codes_to_audio(copy: Path, rng: np.random.Generator) -> list[object]:
    spoil_bytes(copy / "codes/u0.npz", rng)
    return ["uniaudio_jax.codec.decode", copy / "codes/u0.npz", "--out", copy / "out"]


def a_codec(copy: Path, rng: np.random.Generator) -> list[object]:
    spoil(a_file(copy / "codec", rng), rng)
    return ["uniaudio_jax.codec.encode", copy / "audio/s0/u0.wav", "--codec", copy / "codec", "--out", copy / "out"]


def generate(copy: Path, *words: object) -> list[object]:
    return ["uniaudio_jax.generate", "--run", copy / "run", "--out", copy / "out", "--seconds", 0.1, *words]


def a_prompt(copy: Path, rng: np.random.Generator) -> list[object]:
    path = a_file(copy / "audio", rng, "u*.[!t]*")
    spoil_bytes(path, rng)
    return generate(copy, "--task", "enhancement", "--noisy-audio", path)


def a_tune(copy: Path, rng: np.random.Generator) -> list[object]:
    spoil_bytes(copy / "tune.mid", rng)
    words = ["--text", "Good morning.", "--midi", copy / "tune.mid", "--speaker-prompt", copy / "audio/s0/u0.wav"]
    return generate(copy, "--task", "singing", *words)


def a_text(copy: Path, rng: np.random.Generator) -> list[object]:
    text = pick(rng, [word for word in WORDS if "\x00" not in word]) * int(rng.integers(1, 80))
    words = ["--language", pick(rng, ["English", "zh-CN", "jp", "xx", ""])] if rng.random() < 0.5 else []
    return generate(copy, "--task", "tts", f"--text={text}", "--speaker-prompt", copy / "audio/s0/u0.wav", *words)


def a_column(copy: Path, rng: np.random.Generator) -> list[object]:
    spoil(a_file(copy / "tokens", rng), rng)
    if rng.random() < 0.5:
        return ["uniaudio_jax.evaluate", "--run", copy / "run", "--task", "enhancement", "--count", 1]
    return ["uniaudio_jax.train", copy / "config.py", "--out", copy / "out", *tasks_options(), "--train.steps", 2]


def a_checkpoint(copy: Path, rng: np.random.Generator) -> list[object]:
    spoil(a_file(copy / "run/checkpoints", rng), rng)
    if rng.random() < 0.4:
        return ["uniaudio_jax.train", copy / "config.py", "--out", copy / "run", *tasks_options(), "--train.steps", 4]
    if rng.random() < 0.4:
        return ["uniaudio_jax.export_torch", "--run", copy / "run", "--out", copy / "out"]
    return generate(copy, "--task", "enhancement", "--split", "heldout")


def weights(copy: Path, rng: np.random.Generator) -> list[object]:
    name = pick(rng, ["model.pth", "model.safetensors"])
    spoil(copy / "torch" / (name if rng.random() < 0.6 else "config.json"), rng)
    words = ["--weights", copy / "torch" / name, "--config", copy / "torch/config.json", "--out", copy / "out"]
    return ["uniaudio_jax.import_torch", *words]


SPOILT_CONFIGS = (
    ("import ", "import nowhere_to_be_found, "),
    ("def get_config", "def get_konfig"),
    ("return replace", "return print"),
    ("steps=", "stepz="),
    ("layers=2", "layers=-2"),
    ("heads=5", "heads=7"),
    ("width=30", "width='wide'"),
    ("return replace", "raise RuntimeError('mine') or replace"),
    ("return replace", "raise SystemExit(0) or replace"),
    ("return replace", "return run and"),
    ("rows=4", "rows=0"),
    (")\n", "\n"),
    ("name=", "nom="),
    ("    return", "  return"),
)


def a_config(copy: Path, rng: np.random.Generator) -> list[object]:
    path = copy / "config.py"
    if rng.random() < 0.7:
        path.write_text(path.read_text().replace(*pick(rng, SPOILT_CONFIGS)))
    else:
        spoil(path, rng)
    module = pick(rng, ["uniaudio_jax.train", "uniaudio_jax.train", "uniaudio_jax.codec.train"])
    steps = "--steps" if "codec" in module else "--train.steps"
    return [module, path, "--out", copy / "out", *([] if "codec" in module else tasks_options()), steps, 2]


def an_evaluation(copy: Path, rng: np.random.Generator) -> list[object]:
    for name in ("metrics.jsonl", "evaluation.json"):
        if (copy / "run" / name).is_file():
            spoil_bytes(copy / "run" / name, rng)
    words = ["--sampling.min-frames", 0] if rng.random() < 0.5 else []
    return ["uniaudio_jax.evaluate", "--run", copy / "run", "--task", "enhancement", "--count", 1, *words]


def samples(copy: Path, rng: np.random.Generator) -> list[object]:
    words = ["--task", "enhancement", "--split", "heldout"]
    (copy / "out").mkdir()
    (copy / "out/samples.json").write_text(json.dumps([{"id": "a", "task": "enhancement", "generated": "a.wav"}]))
    pick(rng, [spoil_bytes, spoil_json])(copy / "out/samples.json", rng)
    return generate(copy, *words)


KINDS = {
    audio_to_columns: 26,
    a_listing_to_columns: 34,
    a_name_to_columns: 14,
    sounds_to_columns: 8,
    audio_to_codes: 20,
    codes_to_audio: 6,
    a_codec: 10,
    a_prompt: 10,
    a_tune: 10,
    a_text: 10,
    a_column: 14,
    a_checkpoint: 10,
    weights: 14,
    a_config: 8 + len(SPOILT_CONFIGS) // 2,
    an_evaluation: 4,
    samples: 4,
}
"""How many inputs there are of each kind."""
CASES = [(kind, number) for kind, count in KINDS.items() for number in range(count)]


def run(words: list[object]) -> tuple[int, str]:
    """Exit code and output of a command run in this process. An error that leaves `main` is a failure of its own."""
    output, argv = io.StringIO(), sys.argv
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    module = importlib.import_module(str(words[0]))
    sys.argv = [str(words[0]), *map(str, words[1:])]
    code = 0
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                module.main()
            except SystemExit as leaving:
                code = leaving.code if isinstance(leaving.code, int) else 1 if leaving.code else 0
            except BaseException:
                traceback.print_exc()
                code = -1
    finally:
        sys.argv = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return code, output.getvalue()


def contents(folder: Path, without: tuple[Path, ...] = ()) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(path.is_relative_to(out) for out in without):
            yield str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("kind", "number"), CASES, ids=[f"{kind.__name__}-{number}" for kind, number in CASES])
def test_a_spoilt_input_ends_well_or_in_a_useful_error(kind, number, world, tmp_path, request, monkeypatch):
    seed = [request.config.getoption("--fuzz-seed"), number, *kind.__name__.encode()]
    copy = tmp_path / "copy"
    shutil.copytree(world, copy)
    for path in [*copy.glob("*/*.jsonl"), *copy.glob("*/*.csv"), copy / "kaldi/wav.scp", copy / "config.py"]:
        path.write_text(path.read_text().replace(str(world), str(copy)))
    words = kind(copy, np.random.default_rng(seed))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIAUDIO_CACHE", str(REPO / ".jax_cache"))
    results = (
        (copy / "out", copy / "run") if "evaluate" in str(words[0]) or copy / "run" in words[2:5:2] else (copy / "out",)
    )
    before = dict(contents(tmp_path, results))
    code, output = run(words)
    told = f"{' '.join(map(str, words))}\nexit {code}\n{output}"
    assert "Traceback" not in output, told
    assert code in (0, 1, 2), told
    assert code == 0 or any(word in output for word in ("error", "Error", "rror:")), told
    assert dict(contents(tmp_path, results)) == before, told
    left = [path for out in results for path in out.rglob("*.partial")]
    assert not left, f"{told}\n{left}"
    assert not os.path.exists(tmp_path / "gs:")
