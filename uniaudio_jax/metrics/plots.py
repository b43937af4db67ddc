"""Pictures: of an evaluation (losses, and what was generated beside its reference), and of metrics by step."""

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uniaudio_jax.files import atomic_write
from uniaudio_jax.metrics.sample import Sample
from uniaudio_jax.packages import load_package
from uniaudio_jax.sinks.jsonl import FILE, read_metrics


def draw_evaluation(run: Path, tasks: dict[str, dict[str, Any]], shown: Mapping[str, Sample]) -> Path | None:
    """Writes RUN/evaluation.png and returns its path; None without matplotlib, an optional extra.

    A row for each task: its losses, and the spectrograms of the sample in `shown`, if there is one.
    """
    plt = _pyplot()
    if plt is None:
        return None
    figure, axes = plt.subplots(len(tasks), 3, figsize=(15, 2.8 * len(tasks)), squeeze=False, layout="constrained")
    for (losses, *spectrograms), (name, entry) in zip(axes, tasks.items(), strict=True):
        _draw_losses(losses, run, name, entry)
        if name in shown:
            _draw_spectrograms(spectrograms, name, shown[name])
        else:
            for axis in spectrograms:
                axis.set_axis_off()
    return _save(plt, figure, run / "evaluation.png")


def draw_metrics(path: Path, lines: list[dict[str, Any]], panels: Mapping[str, Iterable[str]]) -> Path | None:
    """Writes a picture with one panel for each title, of these metrics by `step`; None without matplotlib."""
    plt = _pyplot()
    if plt is None:
        return None
    figure, axes = plt.subplots(1, len(panels), figsize=(6 * len(panels), 4), squeeze=False, layout="constrained")
    for axis, (title, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            points = {line["step"]: line[name] for line in lines if name in line}
            axis.plot(list(points), list(points.values()), label=name, linewidth=1)
        axis.set(title=title, xlabel="step")
        axis.legend()
    return _save(plt, figure, path)


def _pyplot() -> Any:
    """matplotlib.pyplot that draws into files, or None where it is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    install = "pip install uniaudio_jax[quickstart]"
    load_package("matplotlib", "pictures", install).use("Agg")
    return load_package("matplotlib.pyplot", "pictures", install)


def _save(plt: Any, figure: Any, path: Path) -> Path:
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=80)
    plt.close(figure)
    return path


def _draw_losses(axis: Any, run: Path, name: str, entry: dict[str, Any]) -> None:
    """The training loss of one task by step, and as lines the held-out loss and the unigram baseline."""
    points = {line["step"]: line[f"loss/{name}"] for line in read_metrics(run / FILE) if f"loss/{name}" in line}
    axis.plot(list(points), list(points.values()), label="training")
    axis.axhline(entry["loss"], color="tab:green", label="held out, at the end")
    axis.axhline(entry["unigram_loss"], color="tab:red", linestyle="--", label="unigram")
    axis.set(title=name, xlabel="step", ylabel="nats per token")
    axis.legend()


def _draw_spectrograms(axes: list[Any], name: str, sample: Sample) -> None:
    """The reference and the estimate over the same time, the shorter one followed by silence."""
    samples = max(len(sample.reference), len(sample.estimate))
    signals = {"codec's resynthesis": sample.reference, "generated": sample.estimate}
    for axis, (title, signal) in zip(axes, signals.items(), strict=True):
        signal = np.pad(signal, (0, samples - len(signal))) + 1e-6
        axis.specgram(signal, NFFT=512, Fs=sample.sample_rate_hz, noverlap=384, cmap="magma", vmin=-140, vmax=-30)
        axis.set(title=f"{name}: {title}", xlabel="seconds", ylabel="Hz")
