"""Pictures: of an evaluation (losses, and what was generated beside its reference), of metrics by step, of tables."""

import importlib.util
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from uniaudio_jax.files import atomic_write
from uniaudio_jax.packages import load_package
from uniaudio_jax.paths import AnyPlace, Place

SHOWN = {"ground_truth": "ground truth", "codec": "codec's resynthesis", "generated": "generated"}
"""Titles of the spectrograms of a clip by the role of their waveforms."""


def draw_evaluation(run: Place, tasks: dict[str, dict[str, Any]], lines: list[dict[str, Any]]) -> Place | None:
    """Writes RUN/evaluation.png and returns its path; None without matplotlib, an optional extra.

    lines: of the run's metrics. A row for each task: its losses, and the spectrograms of its first clip, if it is kept.
    """
    plt = _pyplot()
    if plt is None:
        return None
    height, width = len(tasks), 1 + len(SHOWN)
    figure, axes = plt.subplots(height, width, figsize=(5 * width, 2.8 * height), squeeze=False, layout="constrained")
    for (losses, *spectrograms), (name, entry) in zip(axes, tasks.items(), strict=True):
        _draw_losses(losses, lines, name, entry)
        files = entry["samples"][0].get("files", {})
        _draw_spectrograms(spectrograms, name, {role: run / files[role] for role in SHOWN if role in files})
    return _save(plt, figure, run / "evaluation.png")


def draw_metrics(
    path: Path, lines: list[dict[str, Any]], panels: Mapping[str, Iterable[str]], by: str = "step"
) -> Path | None:
    """Writes a picture with one panel for each title, of these metrics over the number `by`; None without
    matplotlib."""
    plt = _pyplot()
    if plt is None:
        return None
    figure, axes = plt.subplots(1, len(panels), figsize=(6 * len(panels), 4), squeeze=False, layout="constrained")
    for axis, (title, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            points = {line[by]: line[name] for line in lines if name in line}
            axis.plot(list(points), list(points.values()), label=name, linewidth=1)
        axis.set(title=title, xlabel=by)
        axis.legend()
    return _save(plt, figure, path)


class HeatMap(NamedTuple):
    """A table of numbers as coloured cells, NaN staying empty; signed: those of a cosine, from -1 over 0 to 1."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray
    signed: bool = False


def draw_heat_maps(path: Path, maps: Sequence[HeatMap]) -> Path | None:
    """Writes a picture of these tables, two beside each other; None without matplotlib."""
    plt = _pyplot()
    if plt is None:
        return None
    lines = -(-len(maps) // 2)
    figure, axes = plt.subplots(lines, 2, figsize=(20, 9 * lines), squeeze=False, layout="constrained")
    for axis in axes.flat[len(maps) :]:
        axis.set_axis_off()
    for axis, one in zip(axes.flat, maps, strict=False):
        colours = {"cmap": "RdBu", "vmin": -1, "vmax": 1} if one.signed else {"cmap": "viridis"}
        image = axis.imshow(one.values, aspect="auto", **colours)
        axis.set(title=one.title, xticks=range(len(one.columns)), yticks=range(len(one.rows)), yticklabels=one.rows)
        axis.set_xticklabels(one.columns, rotation=30, ha="right")
        for (row, column), value in np.ndenumerate(one.values):
            red, green, blue, _ = image.to_rgba(value)
            ink = "white" if 0.3 * red + 0.6 * green + 0.1 * blue < 0.5 else "black"
            axis.text(column, row, "" if np.isnan(value) else f"{value:.2f}", ha="center", va="center", color=ink)
    return _save(plt, figure, path)


def _pyplot() -> Any:
    """matplotlib.pyplot that draws into files, or None where it is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    install = "pip install uniaudio_jax[quickstart]"
    load_package("matplotlib", "pictures", install).use("Agg")
    return load_package("matplotlib.pyplot", "pictures", install)


def _save(plt: Any, figure: Any, path: AnyPlace) -> AnyPlace:
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=80)
    plt.close(figure)
    return path


def _draw_losses(axis: Any, lines: list[dict[str, Any]], name: str, entry: dict[str, Any]) -> None:
    """The training loss of one task by step, and as lines the held-out loss and the unigram baseline."""
    points = {line["step"]: line[f"loss/{name}"] for line in lines if f"loss/{name}" in line}
    axis.plot(list(points), list(points.values()), label="training")
    for key, label, style in (("loss", "held out, at the end", "-"), ("unigram_loss", "unigram", "--")):
        if key in entry:
            axis.axhline(entry[key], color="tab:green" if style == "-" else "tab:red", linestyle=style, label=label)
    axis.set(title=name, xlabel="step", ylabel="nats per token")
    axis.legend()


def _draw_spectrograms(axes: list[Any], name: str, files: dict[str, Place]) -> None:
    """The waveforms of a clip over the same time, the shorter ones followed by silence."""
    signals = {role: soundfile.read(io.BytesIO(path.read_bytes())) for role, path in files.items() if path.is_file()}
    samples = max((len(signal) for signal, _ in signals.values()), default=0)
    for axis, role in zip(axes, SHOWN, strict=True):
        if role not in signals or not samples:
            axis.set_axis_off()
            continue
        signal, rate_hz = signals[role]
        signal = np.pad(signal, (0, samples - len(signal))) + 1e-6
        with np.errstate(divide="ignore"):  # silence has no level in dB
            axis.specgram(signal, NFFT=512, Fs=rate_hz, noverlap=384, cmap="magma", vmin=-140, vmax=-30)
        axis.set(title=f"{name}: {SHOWN[role]}", xlabel="seconds", ylabel="Hz")
