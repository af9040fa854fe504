"""Tables and texts of reports as CSV, Markdown and plain text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.report.tables import (
    Table,
)

FORMULA = ("=", "+", "-", "@")  # first characters of a formula in a spreadsheet


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with one column per key; lists and groups are skipped. Text is escaped, so that it cannot run as a formula."""
    columns = list(
        dict.fromkeys(key for row in rows for key, value in row.items() if not isinstance(value, (dict, list)))
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    """Prefix an apostrophe to a word that a spreadsheet would run as a formula (OWASP, CSV injection)."""
    if not isinstance(value, str) or (not value.lstrip().startswith(FORMULA) and not value.startswith(("\t", "\r"))):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def markdown_table(table: Table) -> str:
    """A table in Markdown; without marked cells, the totals are bold."""
    headings = [escaped(" ".join(filter(None, heading))) for heading in table.headings]
    rule = ["---" if column < table.names else "---:" for column in range(len(headings))]
    first_total = len(table.rows) - table.totals
    rows = []
    for index, row in enumerate(table.rows):
        total = index >= first_total and not table.best
        bold = [cell and (total or (index, column) in table.best) for column, cell in enumerate(row)]
        rows.append(
            [f"**{escaped(cell)}**" if strong else escaped(cell) for cell, strong in zip(row, bold, strict=True)]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in [headings, rule, *rows])


def escaped(text: str) -> str:
    """Escape text for Markdown, in one line: no markup, no HTML, no entity, no heading, no list."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~$!])", r"\\\1", text)
    text = re.sub(r"^(#|[-+=](?=\s|$|[-+=]))", r"\\\1", text)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", text)


def fenced(text: str, language: str = "") -> str:
    """A code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def plain_table(table: Table) -> str:
    """A table in plain text: two heading lines, numbers to the right, a rule above the means."""
    body = [
        [
            f"{cell}*" if (index, column) in table.best else f"{cell} " if table.best else cell
            for column, cell in enumerate(map(_in_line, row))
        ]
        for index, row in enumerate(table.rows)
    ]
    widths = [
        max(len(cell) for cell in column) for column in zip(*([name for _, name in table.headings], *body), strict=True)
    ]
    groups = _group_line(table, widths)

    def line(cells: Iterable[str]) -> str:
        aligned = [
            cell.ljust(width) if column < table.names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(aligned).rstrip()

    lines = [groups, line(name for _, name in table.headings), *map(line, body)]
    if table.totals:
        lines.insert(len(lines) - table.totals, "-" * (sum(widths) + 2 * len(widths) - 2))
    return "\n".join(filter(None, [*lines, table.note]))


def _in_line(cell: str) -> str:
    """A cell without line breaks and other control characters, which names of clips may have."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", cell)


def _group_line(table: Table, widths: list[int]) -> str:
    """The upper heading line; widens columns that are too narrow for a group's name."""
    spans: list[tuple[str, list[int]]] = []
    for column, (group, _) in enumerate(table.headings):
        if spans and spans[-1][0] == group and group:
            spans[-1][1].append(column)
        else:
            spans.append((group, [column]))
    cells = []
    for group, columns in spans:
        room = sum(widths[column] for column in columns) + 2 * (len(columns) - 1)
        widths[columns[0]] += max(0, len(group) - room)
        cells.append(group.rjust(max(room, len(group))))
    return "  ".join(cells).rstrip()
