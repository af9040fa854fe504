"""The report page: one HTML file that needs no network and opens from a file:// address."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.report.page.charts import curve, heat_map
from engine.report.page.markup import Markup, element, together
from engine.report.page.scenes import Names, load_pictures, object_section, picture_section
from engine.report.tables import Table, baseline_name, number, provenance, scale_name, sweep_grids, tables, time_name

HERE = Path(__file__).parent
ROWS = 200  # of one table
CURVES = 24  # clips drawn


def render_page(report: Mapping[str, Any], folder: Path) -> str:
    """The page of a tidied report; relative picture paths start at `folder`."""
    names = Names(baseline_name(report))
    comparisons, notes = load_pictures(report, folder)
    sections: dict[str, Markup | None] = {
        "Figures": figures(report),
        "Scale and time": sweep(report),
        "Pictures": picture_section(comparisons, notes, names),
        "Moving objects": object_section(comparisons, names, str(report.get("protocol") or "standard")),
        "Curves": curves(report),
        "How it was measured": circumstances(report),
    }
    return assemble(str(report.get("title") or "Evaluation"), headline(report), sections)


def assemble(title: str, head: Markup | None, sections: Mapping[str, Markup | None]) -> str:
    """The page from its parts; sections without content are omitted."""
    shown = {heading: body for heading, body in sections.items() if body}
    links = [element("a", heading, href=f"#{anchor(heading)}") for heading in shown]
    body = [element("section", element("h2", heading), text, id=anchor(heading)) for heading, text in shown.items()]
    parts = {
        "title": together(title),
        "style": Markup((HERE / "page.css").read_text(encoding="utf-8")),
        "script": Markup((HERE / "page.js").read_text(encoding="utf-8")),
        "head": together([element("h1", title), head, element("nav", links, aria_label="Sections")]),
        "body": together(body),
    }
    template = (HERE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def headline(report: Mapping[str, Any]) -> Markup:
    """The main results as large numbers."""
    mean, network = report.get("mean") or {}, report.get("network") or {}
    baseline = str(report.get("baseline") or "bicubic")
    tiles = [
        (number(mean.get("gain_psnr_y"), "+.2f"), "dB", f"gain over {baseline}, PSNR Y"),
        (
            number(mean.get("psnr_y"), ".2f"),
            "dB",
            f"PSNR Y; {baseline} has {number(mean.get('bicubic_psnr_y'), '.2f')}",
        ),
        (number(mean.get("ssim_y"), ".4f"), "", f"SSIM Y; {baseline} has {number(mean.get('bicubic_ssim_y'), '.4f')}"),
    ]
    tiles = [
        tile for tile, key in zip(tiles, ("gain_psnr_y", "psnr_y", "ssim_y"), strict=True) if mean.get(key) is not None
    ]
    if network.get("seconds_per_frame"):
        device = (report.get("machine") or {}).get("gpu") or "CPU"
        tiles.append((number(network["seconds_per_frame"], ".3g"), "s", f"per frame on {device}"))
    if network.get("parameters"):
        tiles.append((number(network["parameters"] / 1e6, ".3g"), "M", "parameters"))
    return element(
        "dl",
        [
            element("div", element("dt", note), element("dd", value, element("small", unit) if unit else None))
            for value, unit, note in tiles
        ],
        _class="tiles",
    )


def figures(report: Mapping[str, Any]) -> Markup | None:
    shown = [html_table(table) for table in tables(report) if "over scale" not in table.title]
    return together(shown) if shown else None


def sweep(report: Mapping[str, Any]) -> Markup | None:
    """The heat maps over scales and times; None for reports without a sweep."""
    if not report.get("sweep"):
        return None
    scales = [scale_name(scale) for scale in report["sweep"]["scales"]]
    times = [time_name(time) for time in report["sweep"]["times"]]
    maps = [heat_map(title, grid, scales, times, style) for title, grid, style in sweep_grids(report)]
    found = [html_table(table) for table in tables(report) if "over scale" in table.title]
    return together([element("div", maps, _class="maps"), element("details", element("summary", "As tables"), found)])


def curves(report: Mapping[str, Any]) -> Markup | None:
    """PSNR over the frames of every clip that has at least three."""
    baseline = baseline_name(report)
    clips = {
        name: clip["frames"]
        for name, clip in (report.get("clips") or {}).items()
        if sum(frame.get("psnr_y") is not None for frame in clip.get("frames") or []) >= 3
    }
    if not clips:
        return None
    drawn = list(clips.items())[:CURVES]
    legend = [element("span", "ours", _class="key ours"), element("span", baseline, _class="key baseline")]
    if report.get("groups"):
        legend.append(element("span", "hollow dots: intermediate frames"))
    parts = [element("p", "PSNR Y in dB over the frames. ", legend, _class="legend")]
    charts = [element("figure", element("figcaption", name), curve(frames, baseline)) for name, frames in drawn]
    parts.append(element("div", charts, _class="charts"))
    if len(clips) > len(drawn):
        parts.append(element("p", f"The first {CURVES} of {len(clips)} clips; report.csv has all.", _class="note"))
    return together(parts)


def circumstances(report: Mapping[str, Any]) -> Markup:
    """The section on data, weights and machine, with the config."""
    pairs = [(element("dt", label), element("dd", text)) for label, text in provenance(report)]
    parts = [element("dl", pairs, _class="facts")]
    if report.get("config"):
        config = json.dumps(report["config"], indent=2, ensure_ascii=False)
        parts.append(element("details", element("summary", "Config"), element("pre", element("code", config))))
    return together(parts)


def html_table(table: Table) -> Markup:
    """A table of a report; it scrolls sideways within itself, so that the page does not."""
    rows, first_total = table.rows, len(table.rows) - table.totals
    hidden = max(0, first_total - ROWS)
    shown = [*rows[: first_total - hidden], *rows[first_total:]]
    body = [
        element(
            "tr",
            _row(table, row, index if index < first_total - hidden else index + hidden),
            _class=_row_class(table, index, first_total - hidden),
        )
        for index, row in enumerate(shown)
    ]
    notes = [table.note] if table.note else []
    if hidden:
        notes.append(f"{hidden} more rows in report.csv.")
    grid = element("table", element("caption", table.title), element("thead", *_heading(table)), element("tbody", body))
    scroll = element("div", grid, _class="scroll", tabindex=0, role="region", aria_label=table.title)
    return together([scroll, *(element("p", note, _class="note") for note in notes)])


def _row_class(table: Table, index: int, first_total: int) -> str | None:
    if index in table.groups or (table.groups and index >= first_total):
        return "group" if index in table.groups else None
    return "total" if index >= first_total else None


def _row(table: Table, row: list[str], index: int) -> list[Markup]:
    cells = [element("th", row[0], scope="row")]
    for column, ((_, name), text) in enumerate(zip(table.headings[1:], row[1:], strict=True), start=1):
        tone = {"+": "better", "-": "worse"}.get(text[:1]) if name == "gain" else None
        word = "word" if column < table.names else None
        cells.append(element("td", text, _class="best" if (index, column) in table.best else tone or word))
    return cells


def _heading(table: Table) -> list[Markup]:
    """One line of headings, or two if columns are grouped."""
    spans: list[list[Any]] = []
    for group, _ in table.headings:
        if spans and group and spans[-1][0] == group:
            spans[-1][1] += 1
        else:
            spans.append([group, 1])
    lower = element(
        "tr",
        [
            element("th", name or group, scope="col", _class="word" if 0 < column < table.names else None)
            for column, (group, name) in enumerate(table.headings)
        ],
    )
    if not any(group and name for group, name in table.headings):
        return [lower]
    named = {group for group, name in table.headings if group and name}
    upper = [
        element(
            "th",
            group if group in named else "",
            colspan=width if width > 1 else None,
            scope="colgroup" if width > 1 else None,
        )
        for group, width in spans
    ]
    return [element("tr", upper, _class="groups"), lower]


def anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
