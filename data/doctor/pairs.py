"""Compare low resolution with its ground truth: length, size, position, time, colours, degradation."""

from __future__ import annotations

import numpy as np

from data.clips import Clip
from data.doctor import checks
from data.doctor.findings import FAULT, NOTE, WARNING, ClipReport
from errors import InputError


def pair(report: ClipReport, gt: Clip, low: Clip, wanted: int, full: bool) -> None:
    """Compare low resolution with the bicubic of the ground truth; `wanted`: the expected scale."""
    if len(gt) != len(low):
        report.add(FAULT, "pair-length", f"{len(gt)} frames of ground truth, {len(low)} of low resolution")
    (height, width), (low_height, low_width) = gt.size, low.size
    ratios = height / low_height, width / low_width
    scale = round(ratios[1])
    if scale < 1 or (height // max(scale, 1), width // max(scale, 1)) != (low_height, low_width):
        message = (
            f"ground truth {width}x{height} is {ratios[1]:.3f} times {low_width}x{low_height}: not an integer scale"
        )
        report.add(FAULT, "pair-size", message)
        return
    if scale != wanted:
        message = (
            f"ground truth is {scale} times the low resolution of {low_width}x{low_height}, expected {wanted} times"
        )
        report.add(FAULT, "pair-size", f"{message}; use --scale {scale} if this is intended")
    count = min(len(gt), len(low))
    chosen = range(count) if full else sorted({0, count // 2, count - 1})
    found = []
    for index in chosen:
        try:
            truth = checks.grey_levels(gt.array(index))[: low_height * scale, : low_width * scale]
            lower = checks.grey_levels(low.array(index))
        except InputError:
            continue  # already reported
        found.append((index, checks.compare_low(lower, truth)))
    if found:
        judge_pair(report, gt, low, scale, found)


def judge_pair(
    report: ClipReport, gt: Clip, low: Clip, scale: int, found: list[tuple[int, checks.LowResolution]]
) -> None:
    """Report the most specific fault of the low resolution."""
    off = [(index, seen) for index, seen in found if seen.worst > 1.5]
    if not off:
        report.add(NOTE, "pair", f"low resolution is the bicubic of the ground truth, x{scale}, within 1 grey level")
        return
    frames = [gt.frame_names[index] for index, _ in off]
    seen = off[len(off) // 2][1]
    shift = np.median([other.shift for _, other in off], axis=0)
    if all(other.swapped for _, other in off):
        report.add(FAULT, "pair-colours", "red and blue are exchanged between ground truth and low resolution", frames)
    elif (late := _time_shift(gt, low, scale, off[len(off) // 2][0])) != 0:
        message = f"low resolution frame i is ground truth frame i {late:+d}: the files are shifted in time"
        report.add(FAULT, "pair-time", message, frames)
    elif np.hypot(*shift) > checks.SHIFTED:
        message = (
            f"low resolution is shifted: it is {shift[0]:+.2f} pixels to the right of and {shift[1]:+.2f} below the "
            f"bicubic of the ground truth ({shift[0] * scale:+.1f}, {shift[1] * scale:+.1f} at full size)"
        )
        report.add(FAULT, "pair-shift", message, frames)
    else:
        message = (
            f"low resolution is not the bicubic of the ground truth: differs by {seen.mean:.1f} grey levels in the "
            f"mean, {seen.worst:.0f} at most (another degradation, noise, or another picture)"
        )
        report.add(WARNING, "pair-degradation", message, frames)


def _time_shift(gt: Clip, low: Clip, scale: int, index: int) -> int:
    """The offset from -3 to 3 at which another GT frame fits the LR frame much better, else 0."""
    lower = checks.grey_levels(low.array(index))
    errors = {}
    for offset in range(-3, 4):
        if 0 <= index + offset < len(gt):
            truth = checks.grey_levels(gt.array(index + offset))[: lower.shape[0] * scale, : lower.shape[1] * scale]
            errors[offset] = float(np.abs(lower - checks.reduced(truth, lower.shape[:2])).mean())
    best = min(errors, key=lambda offset: errors[offset])
    return best if errors[best] < 0.25 * errors[0] else 0
