"""Charts of the page as inline SVG: PSNR over the frames of a clip, heat maps over scale and time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.report.page.markup import Markup, element
from engine.report.tables import number
from formulas import LUMA

WIDTH, HEIGHT = 440, 190
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 12, 30
DOTS = 60  # longer clips are drawn without a dot per frame
RAMP = ((46, 33, 96), (44, 92, 148), (38, 148, 143), (124, 199, 104), (251, 233, 112))  # dark to light, low to high
Grid = Sequence[Sequence[Any]]


def curve(frames: Sequence[Mapping[str, Any]], baseline: str) -> Markup:
    """PSNR Y of ours and of the baseline over a clip's frames; hovering over a frame shows its values."""
    names = (("bicubic_psnr_y", "baseline"), ("psnr_y", "ours"))
    series = {css: [frame.get(key) for frame in frames] for key, css in names}
    return _chart(series, frames, [_frame_values(frame, baseline) for frame in frames])


def curves(lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> Markup:
    """PSNR Y of several methods over the same frames; hovering over a frame shows all values."""
    key = "psnr_y"
    frames = next(iter(lines.values()))
    series = {f"line{index % 8}": [frame.get(key) for frame in rows] for index, rows in enumerate(lines.values())}
    labels = [
        f"frame {frame.get('frame', '')}: "
        + ", ".join(f"{name} {rows[i][key]:.2f}" for name, rows in lines.items() if rows[i].get(key) is not None)
        for i, frame in enumerate(frames)
    ]
    return _chart(series, frames, labels)


def _chart(
    series: Mapping[str, Sequence[float | None]], frames: Sequence[Mapping[str, Any]], labels: Sequence[str]
) -> Markup:
    """Lines over frames; keys of `series` are CSS classes."""
    values = [value for line in series.values() for value in line if value is not None]
    ticks = nice_ticks(min(values), max(values))
    low, high = min(ticks[0], *values), max(ticks[-1], *values)

    def x(index: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (index + 0.5) / len(frames)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [_ruler(y(tick), f"{tick:g}") for tick in ticks]
    parts += [
        element("text", frames[0].get("frame", ""), x=LEFT, y=HEIGHT - 10, _class="axis"),
        element("text", frames[-1].get("frame", ""), x=WIDTH - RIGHT, y=HEIGHT - 10, _class="axis end"),
    ]
    for name, line in series.items():
        points = [(i, x(i), y(value)) for i, value in enumerate(line) if value is not None]
        path = " ".join(f"{px:.1f},{py:.1f}" for _, px, py in points)
        parts.append(element("polyline", points=path, _class=f"line {name}"))
        if len(frames) <= DOTS:
            parts += [
                element("circle", cx=f"{px:.1f}", cy=f"{py:.1f}", r=3, _class=_dot(frames[i], name))
                for i, px, py in points
            ]
    parts += [_hover_area(x(i), len(frames), text) for i, text in enumerate(labels)]
    return element("svg", parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label="PSNR Y in dB over the frames")


def _hover_area(centre: float, count: int, text: str) -> Markup:
    """The invisible column of one of `count` frames, which shows the text under the mouse."""
    width = (WIDTH - LEFT - RIGHT) / count
    place = {"x": f"{centre - width / 2:.1f}", "y": TOP, "width": f"{width:.1f}", "height": HEIGHT - TOP - BOTTOM}
    return element("rect", element("title", text), **place, _class="hit")


def heat_map(title: str, grid: Grid, rows: Sequence[str], columns: Sequence[str], style: str) -> Markup:
    """Numbers in coloured cells: rows are scales, columns times; an empty cell has no number."""
    low, high = extent(grid)
    wide, tall, left, top = 74, 30, 78, 28
    parts = [element("text", "scale, time", x=left - 8, y=18, _class="axis end")]
    parts += [
        element("text", name, x=left + wide * (j + 0.5), y=18, _class="axis middle") for j, name in enumerate(columns)
    ]
    for i, name in enumerate(rows):
        parts.append(element("text", name, x=left - 8, y=top + tall * (i + 0.5) + 4, _class="axis end"))
        for j, value in enumerate(grid[i]):
            if value is None:
                continue
            colour = ramp(fraction(value, low, high))
            x, y = left + wide * j, top + tall * i
            parts.append(element("rect", x=x, y=y, width=wide - 2, height=tall - 2, rx=3, fill=f"rgb{colour}"))
            ink = "dark" if is_light(colour) else "light"
            middle = {"x": x + wide / 2 - 1, "y": y + tall / 2 + 3}
            parts.append(element("text", number(value, style), **middle, _class=f"cell middle {ink}"))
    size = f"0 0 {left + wide * len(columns)} {top + tall * len(rows)}"
    picture = element(
        "svg", parts, viewBox=size, role="img", aria_label=title, style=f"max-width:{left + wide * len(columns)}px"
    )
    return element("figure", element("figcaption", title), picture, _class="heat")


def extent(grid: Grid) -> tuple[float, float]:
    """Lowest and highest number of a grid with missing cells."""
    values = [value for row in grid for value in row if value is not None]
    return (min(values), max(values)) if values else (0.0, 1.0)


def fraction(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def ramp(part: float) -> tuple[int, int, int]:
    """Colour for a fraction of 0 to 1."""
    place = min(max(part, 0.0), 1.0) * (len(RAMP) - 1)
    index = min(int(place), len(RAMP) - 2)
    rest = place - index
    red, green, blue = (round(a + rest * (b - a)) for a, b in zip(RAMP[index], RAMP[index + 1], strict=True))
    return red, green, blue


def is_light(colour: tuple[int, int, int]) -> bool:
    return sum(weight * level for weight, level in zip(LUMA, colour, strict=True)) > 130


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Axis ticks (steps of 1, 2, 2.5 or 5 times a power of ten) that enclose `low` to `high`."""
    span = max(high - low, 0.1)
    power = 10 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if span / (factor * power) <= count)
    first, last = math.floor(low / step), math.ceil(high / step)
    if first == last:
        last += 1
    return [round(k * step, 6) for k in range(first, last + 1)]


def _ruler(y: float, text: str) -> Markup:
    line = element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", _class="ruler")
    return element("g", line, element("text", text, x=LEFT - 6, y=f"{y + 4:.1f}", _class="axis end"))


def _dot(frame: Mapping[str, Any], name: str) -> str:
    return f"dot {name} between" if frame.get("kind") == "between" else f"dot {name}"


def _frame_values(frame: Mapping[str, Any], baseline: str) -> str:
    figures = [f"frame {frame.get('frame', '')}" + (f" ({frame['kind']})" if frame.get("kind") else "")]
    for key, name in (("psnr_y", "ours"), ("bicubic_psnr_y", baseline)):
        if frame.get(key) is not None:
            figures.append(f"{name} {frame[key]:.2f} dB")
    return ", ".join(figures)
