"""Curves of metrics by step."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

MOST_POINTS = 300
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 220, 44, 26


@dataclass(frozen=True)
class Curve:
    """A line of a figure, scaled to its pixels: `points` as SVG writes them; about: what a reader who cannot see it is
    told."""

    letter: str
    kind: str
    points: str
    about: str


@dataclass(frozen=True)
class Figure:
    """Curves within one frame, and the (pixel, label) of the marks on its axes."""

    curves: list[Curve]
    steps: list[tuple[float, str]]
    values: list[tuple[float, str]]


def draw(series: Iterable[tuple[str, str, list[dict[str, Any]], str]]) -> Figure | None:
    """The figure of (letter, kind, lines of metrics, name of the metric); None where no line has its metric.

    A curve of more than MOST_POINTS points is drawn as that many means.
    """
    found = [(letter, kind, _thinned(lines, name)) for letter, kind, lines, name in series]
    found = [(letter, kind, points) for letter, kind, points in found if len(points)]
    if not found:
        return None
    every = np.concatenate([points for _, _, points in found])
    (low_step, low), (high_step, high) = every.min(axis=0), every.max(axis=0)
    marks = np.linspace((low_step, low), (max(high_step, low_step + 1), max(high, low + 1e-3)), 5)
    corners = marks[[0, -1]]

    def placed(points: np.ndarray) -> np.ndarray:
        x = np.interp(points[:, 0], corners[:, 0], (LEFT, WIDTH - 6))
        return np.stack([x, np.interp(points[:, 1], corners[:, 1], (HEIGHT - BOTTOM, 6))], axis=1)

    pixels = placed(marks)
    return Figure(
        [_curve(letter, kind, points, placed(points)) for letter, kind, points in found],
        [(x, f"{step:.0f}") for x, step in zip(pixels[:, 0], marks[:, 0], strict=True)],
        [(y, f"{value:.3g}") for y, value in zip(pixels[:, 1], marks[:, 1], strict=True)],
    )


def _thinned(lines: list[dict[str, Any]], name: str) -> Float[np.ndarray, "P 2"]:
    points = np.array([(line["step"], line[name]) for line in lines if line.get(name) is not None], float)
    parts = np.array_split(points, min(len(points), MOST_POINTS)) if len(points) else []
    return np.array([part.mean(axis=0) for part in parts]).reshape(-1, 2)


def _curve(letter: str, kind: str, points: np.ndarray, pixels: np.ndarray) -> Curve:
    (first_step, first), (last_step, last) = points[0], points[-1]
    about = f"{letter}, {kind}: {first:.3g} at step {first_step:.0f}, {last:.3g} at step {last_step:.0f}"
    return Curve(letter, kind, " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels), about)
