"""Averages of the measures of frames and clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import metrics
from engine.config import Config


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
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


def summary(clips: list[dict[str, Any]], config: Config) -> dict[str, Any]:
    """`mean` (and `groups` of key and intermediate frames, `objects`): over clips, or over all frames for paper_mtdo."""
    rows = [row for clip in clips for row in clip["frames"]]
    over_clips, over_frames = means([means(clip["frames"]) for clip in clips]), means(rows)
    per_frame = config.eval.protocol == "paper_mtdo"
    result: dict[str, Any] = {
        "mean": over_frames if per_frame else over_clips,
        "mean_over_clips": over_clips,
        "mean_over_frames": over_frames,
    }
    if config.space_time:
        result["groups"] = {
            kind: means([means([row for row in clip["frames"] if row["kind"] == kind]) for clip in clips])
            for kind in ("key", "between")
        }
    objects = [row for clip in clips for row in clip.get("objects", {}).get("rows", [])]
    if objects:
        result["objects"] = metrics.summarise(objects)
    found: dict[str, metrics.DetectionCount] = {}
    for clip in clips:
        for name, counts in clip.get("detection", {}).items():
            found[name] = found.get(name, metrics.DetectionCount()) + metrics.DetectionCount(**counts)
    if found:
        result["detection"] = {name: count.result() for name, count in found.items()}
    return result
