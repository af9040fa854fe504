"""Pictures of measurements, for the other benchmarks (matplotlib, in requirements-dev.txt)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from errors import InputError

Points = Sequence[tuple[float, float]]


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
    """One line of points per name, each labelled at its end, as a PNG.

    axes: what is along x and y. log: the axes that are logarithmic ("", "x", "y", "xy"). ticks: labels along x instead of
    numbers. Raises InputError where matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError("matplotlib is not installed: pip install -r requirements-dev.txt") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    figure, area = pyplot.subplots(figsize=size, layout="constrained")
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
    area.autoscale_view()  # so that places are known
    lowest = -float("inf")
    for place, name, colour in sorted(ends, key=lambda end: end[0][1]):  # one above the other where lines end together
        height = max(area.transData.transform(place)[1], lowest + 15)
        lowest = height
        area.annotate(
            name,
            (place[0], area.transData.inverted().transform((0, height))[1]),
            xytext=(8, -3),
            textcoords="offset points",
            color=colour,
            annotation_clip=False,
        )
    area.set(title=title, xlabel=axes[0], ylabel=axes[1])
    area.grid(alpha=0.3)
    area.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
