"""The report page: one HTML file that needs no network and opens from a file:// address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.page.markup import element, together
from engine.tables import facts, tables


def render_page(report: Mapping[str, Any], folder: Path) -> str:
    """The whole page of a tidied report; `folder` is where its relative picture paths start."""
    body = [element("h1", report.get("title") or "Evaluation")]
    for table in tables(report):
        rows = [element("tr", [element("td", cell) for cell in row]) for row in table.rows]
        body += [element("h2", table.title), element("table", rows)]
    body.append(element("dl", [[element("dt", k), element("dd", v)] for k, v in facts(report)]))
    return "<!doctype html>\n" + together(body)
