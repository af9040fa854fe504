"""The files of a comparison: report.md, .tex, .json, .html, and CSV per clip, per frame and per object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from data.files import write_texts
from engine.compare.page import render_comparison
from engine.compare.tables import MEANS, tables
from engine.report.files import tidy
from engine.report.latex import document
from engine.report.tables import provenance
from engine.report.text import csv_text, escaped, fenced, markdown_table, plain_table

Report = Mapping[str, Any]
FILES = ("report.json", "clips.csv", "frames.csv", "differences.csv", "report.tex", "report.md", "report.html")


def write_comparison(report: Report, folder: Path) -> None:
    """Write all files to `folder`; all are complete before the first one is renamed. Raises InputError if it cannot be written."""
    clean = tidy(report, folder)
    found = tables(clean)
    head = "\n".join([str(clean["title"]), *(f"{label}: {text}" for label, text in provenance(clean))])
    contents = (
        json.dumps(clean, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        csv_text(clip_rows(clean)),
        csv_text(frame_rows(clean)),
        csv_text(clean["differences"]),
        document(found, head),
        markdown(clean),
        render_comparison(clean, folder),
    )
    write_texts({folder / name: text for name, text in zip(FILES, contents, strict=True)})


def console(report: Report) -> str:
    """The tables in plain text; an asterisk marks the best."""
    clean = tidy(report)
    head = f"{clean['title']} ({clean['protocol']} protocol, border of {clean['crop']} pixels left out)"
    notes = [f"note: {note}" for note in clean.get("notes") or []]
    return "\n\n".join([head, *notes, *(f"{table.title}\n{plain_table(table)}" for table in tables(clean))])


def markdown(report: Report) -> str:
    """report.md: provenance, notes, tables, figures, config."""
    parts = [f"# {escaped(str(report['title']))}"]
    parts.append("\n".join(f"- {label}: {escaped(text)}" for label, text in provenance(report)))
    if report.get("notes"):
        parts += ["## Notes", "\n".join(f"- {escaped(note)}" for note in report["notes"])]
    for table in tables(report):
        parts += [f"## {escaped(table.title)}", markdown_table(table)]
        if table.note:
            parts.append(escaped(table.note))
    figures = report.get("figures") or []
    if figures:
        parts.append("## Figures")
    for figure in figures:
        place = f"{figure['clip']}, frame {figure['frame']}, {figure['width']}x{figure['height']} at "
        parts.append(escaped(f"{place}({figure['x']}, {figure['y']})"))
        parts += [f"![]({_address(name)})" for name in figure["files"] if name.endswith(".png")]
    parts += ["## Config", fenced(json.dumps(report["config"], indent=1, ensure_ascii=False), "json")]
    return "\n\n".join(parts) + "\n"


def _address(path: str) -> str:
    """A relative path as a link: `#`, `?` and others would end it."""
    return quote(path.replace("\\", "/"), errors="surrogateescape")


def clip_rows(report: Report) -> list[dict[str, Any]]:
    """One row per method and clip, then both means of every method."""
    rows = []
    for name, method in report["methods"].items():
        rows += [{"method": name, "clip": clip, **_numbers(values)} for clip, values in method["clips"].items()]
        rows += [{"method": name, "clip": text, **_numbers(method.get(key) or {})} for key, text in MEANS.items()]
        rows += [
            {"method": name, "clip": f"mean over {kind} frames", **_numbers(values)}
            for kind, values in (method.get("groups") or {}).items()
        ]
    return rows


def frame_rows(report: Report) -> list[dict[str, Any]]:
    """One row per method, clip and frame."""
    return [
        {"method": name, "clip": clip, **frame}
        for name, method in report["methods"].items()
        for clip, values in method["clips"].items()
        for frame in values["frames"]
    ]


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    frames = {"frames": len(values["frames"])} if "frames" in values else {}
    return frames | {key: value for key, value in values.items() if value is None or isinstance(value, (int, float))}
