"""Averages of the measures of frames and clips."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import metrics
from engine.config import Config

Rows = Sequence[Mapping[str, Any]]  # one for each frame


def means(rows: Rows) -> dict[str, float | None]:
    """Column means of per-frame rows; names, times, kinds and missing values are skipped. Decibels count up to 100, see `metrics.mean`."""
    columns = dict.fromkeys(
        key
        for row in rows
        for key, value in row.items()
        if isinstance(value, float) and key not in ("time", "gap_time")
    )
    return {
        key: metrics.mean((row.get(key) for row in rows), metrics.PSNR_CEILING if _in_decibels(key) else math.inf)
        for key in columns
    }


def _in_decibels(key: str) -> bool:
    return "psnr" in key or key == "consistency"


def both_means(clips: Collection[Rows], kinds: Iterable[str] = ()) -> dict[str, Any]:
    """`mean_over_clips` (every clip counts the same), `mean_over_frames` (every frame does), and with `kinds` of frames `groups`:
    the means over clips of each kind."""

    def over_clips(some: Iterable[Rows]) -> dict[str, float | None]:
        return means([means(rows) for rows in some])

    result: dict[str, Any] = {
        "mean_over_clips": over_clips(clips),
        "mean_over_frames": means([row for rows in clips for row in rows]),
    }
    groups = {kind: over_clips([row for row in rows if row["kind"] == kind] for rows in clips) for kind in kinds}
    return result | ({"groups": groups} if groups else {})


def detection_results(clips: Iterable[Mapping[str, metrics.DetectionCount]]) -> dict[str, dict[str, Any]]:
    """Precision, recall and counts over all clips, by the name of the frames."""
    found: dict[str, metrics.DetectionCount] = {}
    for clip in clips:
        for name, count in clip.items():
            found[name] = found.get(name, metrics.DetectionCount()) + count
    return {name: count.result() for name, count in found.items()}


def summary(clips: list[dict[str, Any]], config: Config) -> dict[str, Any]:
    """The results over all clips: `mean` (over clips, or over all frames for paper_mtdo), `both_means`, `objects` and `detection`."""
    both = both_means([clip["frames"] for clip in clips], ("key", "between") if config.space_time else ())
    per_frame = config.eval.protocol == "paper_mtdo"
    result = {"mean": both["mean_over_frames" if per_frame else "mean_over_clips"], **both}
    objects = [row for clip in clips for row in clip.get("objects", {}).get("rows", [])]
    if objects:
        result["objects"] = metrics.summarise(objects)
    counts = [clip.get("detection", {}) for clip in clips]
    if any(counts):
        result["detection"] = detection_results(
            {name: metrics.DetectionCount(**count) for name, count in each.items()} for each in counts
        )
    return result
