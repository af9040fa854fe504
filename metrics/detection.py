"""Detection of moving objects: a simple detector, the same for every method, scored against the true boxes.

Detector: background subtraction (OpenCV), a common baseline for satellite video. Phase correlation of the centre aligns the
frames (drift of the platform). The background of a frame is the median of up to `BACKGROUND` frames around it. The
foreground consists of pixels whose blurred absolute difference exceeds max(`FLOOR`, median + `SIGMAS` robust standard
deviations). A 3x3 closing joins its parts, and every connected component is a detection.

Score: detections and boxes are paired one to one, nearest centres first, where the distance of the centres is at most
max(`REACH`, half of the box's longer side) pixels of the ground truth. Precision is the share of detections that have a
partner, recall the share of boxes, F1 their harmonic mean. Detection in LR frames runs at LR size, and its detections are
scaled up. Motion cannot reveal static objects: they lower the recall of every method equally.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from metrics.objects import BoxLike

BACKGROUND = 9  # frames whose median is the background
SIGMAS = 6.0  # threshold in robust standard deviations of the difference to the background
FLOOR = 6.0  # lowest threshold, grey levels of 255
ALIGNED = 512  # pixels a side of the centre crop that is used for alignment
REACH = 5.0  # largest distance of the centres of a pair, pixels of the ground truth

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class DetectionCount:
    """Pairs, detections without a box and boxes without a detection; adds up over frames and clips."""

    true: int = 0
    false: int = 0
    missed: int = 0

    def __add__(self, other: DetectionCount) -> DetectionCount:
        return DetectionCount(self.true + other.true, self.false + other.false, self.missed + other.missed)

    def counts(self) -> dict[str, int]:
        return {"true": self.true, "false": self.false, "missed": self.missed}

    def result(self) -> dict[str, float | int | None]:
        """`precision`, `recall`, `f1` (None without detections or without boxes) and the counts."""
        found, there = self.true + self.false, self.true + self.missed
        return {
            "precision": self.true / found if found else None,
            "recall": self.true / there if there else None,
            "f1": 2 * self.true / (found + there) if found + there else None,
            "detections": found,
            "boxes": there,
        }


def detect(frames: Sequence[Array]) -> list[Array]:
    """Gray frames (H, W) uint8 (`metrics.planes.gray`) of one clip -> per frame the moving components, (n, 4) as x, y, w, h in pixels."""
    if len(frames) < 3:
        return [np.empty((0, 4)) for _ in frames]
    return [_components(_foreground(frames, index)) for index in range(len(frames))]


def score(found: Array, boxes: Sequence[BoxLike], scale: float = 1.0) -> DetectionCount:
    """Pair one frame's detections (n, 4), times `scale`, with its boxes."""
    there = np.array([[box.x, box.y, box.w, box.h] for box in boxes], np.float64).reshape(-1, 4)
    found = np.asarray(found, np.float64).reshape(-1, 4) * scale
    distance = np.linalg.norm(_centres(found)[:, None] - _centres(there)[None], axis=-1)
    reach = np.maximum(REACH, there[:, 2:].max(axis=1, initial=0) / 2)
    pairs = 0
    distance[distance > reach[None]] = np.inf
    while distance.size and np.isfinite(distance).any():
        row, column = np.unravel_index(int(np.argmin(distance)), distance.shape)
        distance[row, :], distance[:, column] = np.inf, np.inf
        pairs += 1
    return DetectionCount(pairs, len(found) - pairs, len(there) - pairs)


def detection_count(frames: Sequence[Array], boxes: Sequence[Sequence[BoxLike]], scale: float = 1.0) -> DetectionCount:
    """The count over a clip: grey frames, the boxes of each in ground-truth pixels, ground-truth pixels per pixel."""
    counts: Iterable[DetectionCount] = (
        score(found, there, scale) for found, there in zip(detect(frames), boxes, strict=True)
    )
    return sum(counts, DetectionCount())


def _centres(rectangles: Array) -> Array:
    return np.asarray(rectangles[:, :2] + rectangles[:, 2:] / 2)


def _foreground(frames: Sequence[Array], index: int) -> Array:
    first = min(max(index - 2 * BACKGROUND, 0), max(len(frames) - 4 * BACKGROUND, 0))
    last = min(first + 4 * BACKGROUND, len(frames)) - 1
    chosen = np.unique(np.linspace(first, last, min(BACKGROUND, last - first + 1)).round().astype(int))
    frame = frames[index]
    aligned = [_aligned(frames[k], frame) for k in chosen]
    difference = cv2.GaussianBlur(np.abs(frame - np.median(aligned, axis=0).astype(np.float32)), (0, 0), 0.8)
    middle = float(np.median(difference))
    spread = 1.4826 * float(np.median(np.abs(difference - middle)))
    mask = (difference > max(FLOOR, middle + SIGMAS * spread)).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)))


def _aligned(other: Array, frame: Array) -> Array:
    """Shift `other` (float32) so that static content is aligned with `frame`."""
    top, left = (max(length - ALIGNED, 0) // 2 for length in frame.shape)
    middle = (slice(top, top + ALIGNED), slice(left, left + ALIGNED))
    # New arrays: the window may be applied in place
    parts = [part[middle].astype(np.float32) for part in (other, frame)]
    window = cv2.createHanningWindow((parts[0].shape[1], parts[0].shape[0]), cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(parts[0], parts[1], window)
    moved = other.astype(np.float32)
    if max(abs(dx), abs(dy)) < 0.05:
        return np.asarray(moved)
    shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    size = (frame.shape[1], frame.shape[0])
    return np.asarray(cv2.warpAffine(moved, shift, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _components(mask: Array) -> Array:
    count, _, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return np.asarray(statistics[1:count, :4], np.float64)
