"""Curves of a run as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Curve:
    """Points to be drawn; faint ones are the background of another curve."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False
    points: bool = False


def draw(path: Path, title: str, x_label: str, y_label: str, curves: Sequence[Curve]) -> None:
    """Write one diagram as PNG, 800 x 450 pixels."""
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        axes.plot(
            curve.x,
            curve.y,
            marker="o" if curve.points else None,
            markersize=4,
            linewidth=0.6 if curve.faint else 1.6,
            alpha=0.35 if curve.faint else 1.0,
            color="tab:gray" if curve.faint else None,
            label=curve.label,
        )
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.25)
    if len(curves) > 1:
        axes.legend()
    figure.savefig(path)


def smoothed(values: Sequence[float], weight: float = 0.95) -> list[float]:
    """The exponential moving average, corrected for its start."""
    average, smooth = 0.0, []
    for number, value in enumerate(values, 1):
        average = weight * average + (1 - weight) * value
        smooth.append(average / (1 - weight**number))
    return smooth
