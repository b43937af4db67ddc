"""The weights of a run as a model that comes with the package, whose name then stands for a run.

    python -m uniaudio_jax.ship --run RUN --out uniaudio_jax/weights/NAME --paces tts 165 --voices joe.wav

writes them as integers of eight bits with scales (`shipped.py`), a passport, and the losses of the training. `python -m
uniaudio_jax.evaluate` of the run and of the model tells what that costs.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from uniaudio_jax.audio.files import read_audio, write_audio
from uniaudio_jax.checked import Checked
from uniaudio_jax.cli import main_guard, parse
from uniaudio_jax.config.pairs import TaskWeights
from uniaudio_jax.files import atomic_write, write_json
from uniaudio_jax.paths import PlaceOption
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.shipped import PASSPORT_FILE, VOICES, WEIGHTS_FILE, from_integers, to_integers
from uniaudio_jax.sinks.jsonl import FILE as METRICS_FILE
from uniaudio_jax.sinks.jsonl import read_metrics
from uniaudio_jax.trees import flatten

CURVE_FILE, CURVE_STEPS = "curve.csv", 100
LOSS = re.compile(r"loss/[a-z_]+")


@dataclass(frozen=True, kw_only=True)
class About:
    """What the passport of a shipped model says of it."""

    licence: str = "Apache-2.0"
    """Licence of the weights."""
    paces: TaskWeights = field(default_factory=dict)
    """Tasks that were trained on phones with durations, and the pace in words per minute at which espeak tells these
    where a user names none."""
    temperatures: TaskWeights = field(default_factory=dict)
    """Tasks, and the temperature of each where a user names none."""
    guidances: TaskWeights = field(default_factory=dict)
    """Tasks, and the guidance of each where a user names none."""


@dataclass(frozen=True, kw_only=True)
class ShipOptions(About, Checked):
    """Write the weights of a run as a model that comes with the package."""

    run: PlaceOption
    """Folder of a training."""
    out: Path
    """Folder of the model, whose name is the model's."""
    codec: str | None = None
    """The codec that the model comes with, one of the codes that the run was trained on; None keeps the run's own."""
    voices: tuple[Path, ...] = ()
    """Recordings of voices to come with the model, the first of which speaks where a user gives none."""


def pack(run: Run, folder: Path, about: About, codec: str | None = None) -> str:
    """Writes the weights of a run and a passport into a folder; returns a line about them.

    A running mean of the weights is kept as the weights. codec: stands in place of the run's own. Raises ValueError
    for a codec of other codes.
    """
    axes, flat = flatten(run.definition.axes()), flatten(run.params)
    packed = {name + end: part for name, array in flat.items() for end, part in to_integers(array, axes[name]).items()}
    blob = safetensors.numpy.save(packed)
    meta = {**run.meta, "config": {**run.meta["config"], "start_from": None}}
    meta["config"] |= {"train": meta["config"]["train"] | {"ema_decay": None}}
    if codec is not None:
        run.config = replace(run.config, codec=codec)
        meta["config"]["codec"], meta["codec"] = codec, run.codec.passport()
    passport = {"weights_sha256": hashlib.sha256(blob).hexdigest(), "step": run.step, **asdict(about), "meta": meta}
    with atomic_write(folder / WEIGHTS_FILE) as partial:
        partial.write_bytes(blob)
    write_json(folder / PASSPORT_FILE, passport)
    error = max(float(np.abs(from_integers(packed)[name] - flat[name]).max()) for name in flat)
    return f"{len(blob) / 1e6:.1f} MB, {len(flat)} arrays of step {run.step}, none more than {error:.2g} off: {folder}"


def curve_of(metrics: Sequence[Mapping[str, Any]]) -> str:
    """The training losses of each task as CSV, in nats per token: a line for every CURVE_STEPS updates, with means over
    what was logged since the line before."""
    lines = [line for line in metrics if "loss/all" in line]
    names = list(dict.fromkeys(key for line in lines for key in line if LOSS.fullmatch(key)))
    parts: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        parts[-(-line["step"] // CURVE_STEPS) * CURVE_STEPS].append(line)
    rows = [",".join(["step", *(name.removeprefix("loss/") for name in names)])]
    for step, part in parts.items():
        known = [[line[name] for line in part if line.get(name) is not None] for name in names]
        rows.append(",".join([str(step), *(f"{np.mean(values):.3f}" if values else "" for values in known)]))
    return "\n".join(rows) + "\n"


def main() -> None:
    with main_guard():
        options = parse(ShipOptions, __doc__)
        about = About(**{each.name: getattr(options, each.name) for each in fields(About)})
        run = load_run(options.run)
        for voice in options.voices:
            wav = read_audio(voice, run.codec.sample_rate_hz).samples
            write_audio(options.out / VOICES / f"{voice.stem}.wav", wav, run.codec.sample_rate_hz)
        print("shipped:", pack(run, options.out, about, options.codec))
        if metrics := read_metrics(run.path / METRICS_FILE):
            (options.out / CURVE_FILE).write_text(curve_of(metrics), encoding="utf-8")


if __name__ == "__main__":
    main()
