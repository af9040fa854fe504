"""Plots of measurements, for the other benchmarks (matplotlib, in requirements-dev.txt)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from errors import InputError

Points = Sequence[tuple[float, float]]


def needed() -> None:
    """Raise InputError if matplotlib is missing. Call it before a long measurement."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("matplotlib is not installed: pip install -r requirements-dev.txt")


def plot(
    path: Path,
    title: str,
    axes: tuple[str, str],
    series: Mapping[str, Points],
    *,
    log: str = "",
    ticks: Mapping[float, str] | None = None,
    marker: str = "o",
    size: tuple[float, float] = (8, 4.5),
) -> None:
    """One line of points per name, labelled at its last point, as a PNG.

    axes: labels of x and y. log: the axes that are logarithmic ("", "x", "y", "xy"). ticks: labels along x instead of
    numbers. size: inches. Raises InputError if matplotlib is missing or `series` is empty.
    """
    needed()
    if not all(series.values()) or not series:
        raise InputError(f"nothing to draw into '{path}': the measurements are empty")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    figure, area = pyplot.subplots(figsize=size, dpi=110, layout="constrained")
    ends = []
    for name, points in series.items():
        (line,) = area.plot(*zip(*points, strict=True), marker=marker, markersize=5)
        ends.append((points[-1], name, line.get_color()))
    if "x" in log:
        area.set_xscale("log")
    if "y" in log:
        area.set_yscale("log")
    if ticks:
        area.set_xticks(list(ticks), list(ticks.values()))
        area.xaxis.set_minor_formatter(NullFormatter())
    area.set(title=title, xlabel=axes[0], ylabel=axes[1])
    area.grid(alpha=0.3)
    area.spines[["top", "right"]].set_visible(False)
    labels = [
        area.annotate(name, place, xytext=(8, -3), textcoords="offset points", color=colour, annotation_clip=False)
        for place, name, colour in sorted(ends, key=lambda end: end[0][1])
    ]
    _spread(figure, labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


def _spread(figure: Any, labels: list[Any]) -> None:
    """Move labels, given in ascending order, above those that they would cover."""
    figure.draw_without_rendering()
    placed: list[Any] = []
    for label in labels:
        box = label.get_window_extent()
        for other in placed:
            if box.overlaps(other):
                rise = other.y1 - box.y0 + 1
                x, y = label.get_position()
                label.set_position((x, y + rise * 72 / figure.dpi))
                box = box.translated(0, rise)
        placed.append(box)
