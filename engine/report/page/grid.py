"""The picture of PSNR over scale and time as a PNG, for papers and slides; the page has the same as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.media import write_image
from engine.report.page.charts import Grid, extent, fraction, is_light, ramp
from engine.report.tables import number, scale_name, sweep_grids, time_name
from errors import InputError

CELL, LEFT, TOP, GAP = (112, 52), 96, 84, 48  # pixels
HEADING, LABEL, SMALL = 24, 20, 15  # font sizes, pixels
INK, SOFT, PAPER = (28, 29, 31), (100, 106, 115), (255, 255, 255)


def write_grid(report: Mapping[str, Any], path: str | Path) -> None:
    """Draw the report's `sweep`: PSNR of ours and the gain over the baseline. Raises `InputError` without a sweep."""
    if not report.get("sweep"):
        raise InputError(f"{path}: this report has no sweep over scales and times to draw")
    panels = sweep_grids(report)
    sweep = report["sweep"]
    rows, columns = [scale_name(s) for s in sweep["scales"]], [time_name(t) for t in sweep["times"]]
    widest = max(_font(HEADING).getlength(title) for title, _, _ in panels)
    panel_width = LEFT + max(CELL[0] * len(columns), round(widest)) + GAP
    image = Image.new("RGB", (panel_width * len(panels), TOP + CELL[1] * len(rows) + GAP // 2), PAPER)
    draw = ImageDraw.Draw(image)
    for place, (title, grid, style) in enumerate(panels):
        _draw_panel(draw, place * panel_width, title, grid, rows, columns, style)
    write_image(path, np.asarray(image))


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _draw_panel(
    draw: ImageDraw.ImageDraw, left: int, title: str, grid: Grid, rows: list[str], columns: list[str], style: str
) -> None:
    low, high = extent(grid)
    draw.text((left + LEFT, 24), title, INK, _font(HEADING), anchor="lm")
    draw.text((left + LEFT - 14, TOP - 16), "scale, time", SOFT, _font(SMALL), anchor="rm")
    for j, name in enumerate(columns):
        draw.text((left + LEFT + CELL[0] * (j + 0.5), TOP - 16), name, SOFT, _font(LABEL), anchor="mm")
    for i, name in enumerate(rows):
        y = TOP + CELL[1] * i
        draw.text((left + LEFT - 14, y + CELL[1] / 2), name, SOFT, _font(LABEL), anchor="rm")
        for j, value in enumerate(grid[i]):
            if value is None:
                continue
            x = left + LEFT + CELL[0] * j
            colour = ramp(fraction(value, low, high))
            draw.rounded_rectangle((x, y, x + CELL[0] - 4, y + CELL[1] - 4), 5, colour)
            ink = INK if is_light(colour) else PAPER
            draw.text((x + CELL[0] / 2 - 2, y + CELL[1] / 2 - 2), number(value, style), ink, _font(LABEL), anchor="mm")
