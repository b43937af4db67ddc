"""The rows of an evaluation: the same clips with estimates of other origin, judged by the same metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from uniaudio_jax.evaluation.examples import ORIGINAL, RESYNTHESIS, Judged
from uniaudio_jax.evaluation.intervals import interval_of
from uniaudio_jax.metrics.registry import Metrics, scores_of, set_values
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Scores
from uniaudio_jax.run import Run
from uniaudio_jax.tasks import Task

GENERATED, INPUT, ANOTHER = "generated", "input", "another reference"
Rows = Mapping[str, Sequence[Sample]]
"""The samples of each row, in one order of clips."""


def rows_of(
    run: Run, task: Task, judged: Judged, generated: Mapping[int, np.ndarray] | None
) -> dict[str, list[Sample]]:
    """The rows of a task: ground truth, the codec's resynthesis, what was generated, the condition that is of the
    target's kind, and the reference of another clip, which is chance. A row that a task does not have is left out.

    generated: raw items by number, None where only the references are judged.
    """
    rows = {}
    if judged.reference == ORIGINAL:
        rows[ORIGINAL] = judged.samples
    if judged.resynthesis is not None:
        pairs = zip(judged.samples, judged.resynthesis, strict=True)
        rows[RESYNTHESIS] = [replace(sample, estimate=wav) for sample, wav in pairs]
    if generated is not None:
        rows[GENERATED] = [_estimated(run, task, sample, generated[n]) for n, sample in enumerate(judged.samples)]
    for stream in task.conditions:
        if stream.kind == task.target.kind:
            rows[INPUT] = [replace(sample, estimate=sample.conditions[stream.key]) for sample in judged.samples]
    if judged.others:
        rows[ANOTHER] = [
            replace(sample, estimate=other.reference, estimate_text=other.estimate_text)
            for sample, other in zip(judged.samples, judged.others, strict=True)
        ]
    return rows


def _estimated(run: Run, task: Task, sample: Sample, items: np.ndarray) -> Sample:
    """The sample with these raw items as its estimate, codes as a waveform."""
    if task.makes_audio:
        return replace(sample, estimate=run.waveform_of(items))
    return replace(sample, estimate=items, estimate_text=run.text_of(task.name, items))


def judge(rows: Rows, metrics: Metrics) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The metrics of each row with their intervals, and of each clip its scores as [total, weight] by row.

    A metric of all clips together has neither an interval nor scores, and other references are the same clips to it.
    """
    scores = {row: [scores_of(sample, metrics) for sample in samples] for row, samples in rows.items()}
    values = {row: _values(scores[row]) for row in rows}
    for row in rows.keys() - {ANOTHER}:
        for name, value in set_values(rows[row], metrics).items():
            values[row][name] = {"value": value, "low": None, "high": None, "examples": len(rows[row])}
    clips = len(next(iter(rows.values()), ()))
    return values, [{row: of_clips[number] for row, of_clips in scores.items()} for number in range(clips)]


def _values(scores: Sequence[Scores]) -> dict[str, Any]:
    """The metrics of one row, out of the scores of its clips."""
    values = {}
    for name in scores[0]:
        column = [clip[name] for clip in scores]
        value, low, high = interval_of(column) or (None, None, None)
        defined = sum(score != NO_SCORE for score in column)
        values[name] = {"value": value, "low": low, "high": high, "examples": defined}
    return values
