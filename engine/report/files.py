"""Reports: the table for the terminal, and the files report.json, report.md, report.csv and report.html.

The report is a plain dict; engine/evaluate makes it. All files are written from the same tidied copy: strict JSON (NaN and
missing values are null), 100 dB for identical frames, picture paths relative to the report. Keys, all optional:

    title, protocol, crop, scale, baseline, created, commit
    config          the config with all defaults
    weights         path, sha256
    key_weights     FILE: sha256, of the networks that restore the key frames
    machine         processor, threads, gpu, python, torch, dcn, system
    network         name, parameters, gmac_per_frame, gmac_counted_at, seconds_per_frame, peak_memory_mb
    data            root, kind, clips
    clips           NAME: psnr_y, ssim_y, psnr_rgb, ssim_rgb, the same with bicubic_, gain_psnr_y;
                    tof, warping_error (also bicubic_), gt_warping_error where eval.temporal is on;
                    objects (all, by_class, by_size, skipped, margin, ring, sizes, protocol) where there are boxes;
                    frames: list of frame, time, kind (key | between), gap_time (position between two key frames), and the
                    figures above
    mean            the same figures over clips (protocol paper_mtdo: over all frames)
    mean_over_clips, mean_over_frames    both means by name
    settings        settings that restrict or change the evaluation, as text
    groups          key, between: the same figures of these frames only
    objects         all, by_class, by_size over all clips
    detection       LR, baseline, ours, GT: precision, recall, f1, detections, boxes, over all clips
    sweep           scales, times, psnr_y, bicubic_psnr_y, ssim_y, ...: one list per scale, one number per time. Times are
                    factors (2: twice the frame rate) or, below 1, times between two key frames
    pictures        list of clip, frame, bicubic, ours, gt (paths, relative to the report), boxes

The report of a comparison has methods instead of clips, mean and groups: NAME: source, clips, mean_over_clips,
mean_over_frames, groups, objects; detection with the methods' names; and crop, measures, differences (a, b, measure, difference,
low, high, frames, clips), bootstrap (replicates, seed, level), figures, notes. Its pictures have files and slices by method, and row.
"""

from __future__ import annotations

import dataclasses
import html
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.files import write_texts
from engine.report.page import render_page
from engine.report.tables import (
    LUMA,
    clip_table,
    detection_table,
    frame_table,
    object_table,
    provenance,
    sweep_table,
    tables,
)
from engine.report.text import csv_text, escaped, fenced, markdown_table, plain_table
from metrics import PSNR_CEILING

CONSOLE_CLIPS = 40  # clips listed in the terminal, so that the mean stays in view
MARKDOWN_FRAMES = 2000  # frames listed in report.md; report.csv has all
OBJECT_ROWS = "objects.csv"


def write_report(report: Mapping[str, Any], folder: str | Path) -> None:
    """Write report.json, .md, .csv and .html to `folder` (and objects.csv if the report lists single objects).

    All files are complete before the first one is renamed. Raises `InputError` if the folder cannot be written.
    """
    folder = Path(folder)
    clean = tidy(report, folder)
    rows = _take_object_rows(clean)
    texts = {
        folder / "report.json": json.dumps(clean, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        folder / "report.csv": csv_text([*_figure_rows(clean), *_sweep_rows(clean)]),
        folder / "report.md": markdown(clean),
        folder / "report.html": render_page(clean, folder),
    }
    if rows:
        texts[folder / OBJECT_ROWS] = csv_text(rows)
    write_texts(texts)


def console_table(report: Mapping[str, Any]) -> str:
    """The result in plain text: baseline, ours and gain per clip and mean; objects and sweeps too."""
    report = tidy(report)
    baseline = report.get("baseline") or "bicubic"
    head = (
        f"{report.get('title') or 'Evaluation'} ({report.get('protocol') or 'standard'} protocol, baseline: {baseline})"
    )
    parts = [head]
    if report.get("clips"):
        table = clip_table(report, LUMA)
        hidden = len(table.rows) - table.totals - CONSOLE_CLIPS
        if hidden > 0:
            table.rows[CONSOLE_CLIPS : CONSOLE_CLIPS + hidden] = [
                ["...", f"{hidden} more", *[""] * (len(table.headings) - 2)]
            ]
        parts.append(plain_table(table))
    if report.get("sweep"):
        parts.append(plain_table(sweep_table(report)))
    if report.get("objects"):
        parts.append(plain_table(object_table(report["objects"], report)))
    if report.get("detection"):
        parts.append(plain_table(detection_table(report)))
    return "\n\n".join(parts)


def markdown(report: Mapping[str, Any]) -> str:
    """report.md: provenance, tables, and the frames of every clip in folding sections."""
    parts = [f"# {escaped(str(report.get('title') or 'Evaluation'))}"]
    parts.append("\n".join(f"- {label}: {escaped(text)}" for label, text in provenance(report)))
    for table in tables(report):
        parts += [f"## {escaped(table.title)}", markdown_table(table)]
        if table.note:
            parts.append(escaped(table.note))
    clips = {name: clip["frames"] for name, clip in (report.get("clips") or {}).items() if clip.get("frames")}
    if clips:
        parts.append("## Frames")
        if sum(map(len, clips.values())) > MARKDOWN_FRAMES:
            parts.append("There are too many to list them here; report.csv has them all.")
        else:
            for name, frames in clips.items():
                body = markdown_table(frame_table(name, frames, report))
                parts.append(
                    f"<details><summary>{html.escape(' '.join(name.split()))}</summary>\n\n{body}\n\n</details>"
                )
    if report.get("config"):
        config = json.dumps(report["config"], indent=1, ensure_ascii=False)
        parts += ["## Config", fenced(config, "json")]
    return "\n\n".join(part for part in parts if part) + "\n"


def tidy(report: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """A copy of plain JSON values: no NaN (None), no infinity (100 dB), gains that agree with the columns next to them.

    Paths within `folder` become relative to it, so that the report can be moved together with its pictures.
    """
    clean = _plain_value(report, "", folder)
    assert isinstance(clean, dict)
    return clean


def _plain_value(value: Any, key: str, folder: Path | None) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "tolist"):  # tensors, numpy arrays and scalars
        value = value.tolist()
    if isinstance(value, Mapping):
        mapping = {str(name): _plain_value(item, str(name), folder) for name, item in value.items()}
        return _with_gains(mapping)
    if isinstance(value, (list, tuple, set)):
        return [_plain_value(item, key, folder) for item in value]
    if isinstance(value, float):
        return _finite(value, key)
    if value is None or isinstance(value, (bool, int)):
        return value
    return _relative(str(value), folder)


def _finite(value: float, key: str) -> float | None:
    if "psnr" in key and "gain" not in key and value > PSNR_CEILING:
        return PSNR_CEILING
    return value if math.isfinite(value) else None


def _with_gains(mapping: dict[str, Any]) -> dict[str, Any]:
    """The gain is the difference of the two columns, even if identical frames made one of them infinite."""
    for key in ("psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb"):
        ours, baseline = mapping.get(key), mapping.get(f"bicubic_{key}")
        wanted = key == "psnr_y" or f"gain_{key}" in mapping
        if wanted and isinstance(ours, (int, float)) and isinstance(baseline, (int, float)):
            mapping[f"gain_{key}"] = ours - baseline
    return mapping


def _relative(text: str, folder: Path | None) -> str:
    if folder is None or ("/" not in text and "\\" not in text):
        return text
    for base in (folder, folder.resolve()):
        if Path(text).is_relative_to(base):
            return Path(text).relative_to(base).as_posix()
    return text


def _take_object_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Move single objects to a separate table: there are too many for report.json."""
    rows = []
    for name, clip in (report.get("clips") or {}).items():
        objects = clip.get("objects") if isinstance(clip, dict) else None
        if objects and "rows" in objects:
            rows += [{"clip": name, **row} for row in objects.pop("rows")]
            objects["rows_in"] = OBJECT_ROWS
    return rows


def _figure_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All frames, then all clips, then the means: the column `level` tells them apart."""
    clips: Mapping[str, Any] = report.get("clips") or {}
    frames = [
        {"level": "frame", "clip": name, **frame} for name, clip in clips.items() for frame in clip.get("frames") or []
    ]
    of_clips = [{"level": "clip", "clip": name, **_numbers(clip)} for name, clip in clips.items()]
    means = [{"level": "mean", **_numbers(report["mean"])}] if report.get("mean") else []
    groups = [
        {"level": "mean", "kind": kind, **_numbers(values)} for kind, values in (report.get("groups") or {}).items()
    ]
    return frames + of_clips + means + groups


def _sweep_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per scale and time."""
    sweep = report.get("sweep") or {"scales": [], "times": []}
    grids = {key: grid for key, grid in sweep.items() if isinstance(grid, list) and grid and isinstance(grid[0], list)}
    return [
        {"level": "sweep", "scale": scale, "times": time} | {key: grid[i][j] for key, grid in grids.items()}
        for i, scale in enumerate(sweep["scales"])
        for j, time in enumerate(sweep["times"])
    ]


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is None or isinstance(value, (int, float))}
