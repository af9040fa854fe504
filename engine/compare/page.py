"""The page of a comparison: tables, the slider with every method's picture, rows over time, curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.compare.tables import MEASURES, tables
from engine.report.page.charts import curves
from engine.report.page.document import assemble, circumstances, html_table
from engine.report.page.markup import Markup, element, together
from engine.report.page.scenes import Names, load_pictures, picture_section
from engine.report.tables import number

CLIPS = 24  # whose curves are drawn
COLOURS = 8  # that curves have

Report = Mapping[str, Any]


def render_comparison(report: Report, folder: Path) -> str:
    """The HTML page of a tidied report; its relative paths start at `folder`."""
    comparisons, notes = load_pictures(report, folder)
    names = Names("bicubic", [name for name in report["methods"] if name != "bicubic"])
    sections = {
        "Figures": together([html_table(table) for table in tables(report)]),
        "Notes": note_list(report),
        "Pictures": picture_section(comparisons, notes, names),
        "Curves": curve_section(report),
        "How it was measured": circumstances(report),
    }
    return assemble(str(report["title"]), headline(report), sections)


def headline(report: Report) -> Markup:
    """Every method's first measure, best first."""
    key = next((key for key in MEASURES if key in report["measures"]), None)
    means = {name: method["mean_over_clips"].get(key) for name, method in report["methods"].items()}
    known = {name: value for name, value in means.items() if value is not None}
    if key is None or not known:
        return Markup("")
    measure = MEASURES[key]
    ranked = sorted(known, key=lambda name: known[name] * (-measure.better or 1))
    tiles = [
        element(
            "div",
            element("dt", f"{name}, {measure.title}"),
            element("dd", number(known[name], measure.style), element("small", measure.unit)),
        )
        for name in ranked
    ]
    return element("dl", tiles, _class="tiles")


def note_list(report: Report) -> Markup | None:
    notes = report.get("notes") or []
    return element("ul", [element("li", note) for note in notes]) if notes else None


def curve_section(report: Report) -> Markup | None:
    """PSNR Y over the frames of every clip that has at least three, one line per method."""
    methods = report["methods"]
    clips = list(next(iter(methods.values()))["clips"])
    charts = []
    for clip in clips[:CLIPS]:
        lines = {name: method["clips"][clip]["frames"] for name, method in methods.items()}
        if len(next(iter(lines.values()))) >= 3 and "psnr_y" in report["measures"]:
            charts.append(element("figure", element("figcaption", clip), curves(lines)))
    if not charts:
        return None
    legend = [element("span", name, _class=f"key line{index % COLOURS}") for index, name in enumerate(methods)]
    parts = [element("p", "PSNR Y in dB over the frames. ", legend, _class="legend")]
    parts.append(element("div", charts, _class="charts"))
    if len(clips) > CLIPS:
        parts.append(element("p", f"The first {CLIPS} of {len(clips)} clips; frames.csv has all.", _class="note"))
    return together(parts)
