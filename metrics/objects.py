"""Quality of moving objects: PSNR and SSIM inside their boxes, and contrast to the surroundings.

For every object in every frame, on the luma plane of the protocol (no border is cropped here):

box        pixels [floor(x - margin), ceil(x + w + margin)) by [floor(y - margin), ceil(y + h + margin)), clipped to
           the frame. A box with no pixel in the frame, or no size, is skipped and counted.
psnr_y     20 log10(255 / rmse) over the pixels of the box.
ssim_y     mean of the frame's SSIM map over the pixels of the box, except those near the frame's edge where the window
           does not fit (None if no pixels remain). Boxes are smaller than the window, so SSIM cannot be computed on the
           box only.
contrast   (mean of the box - mean of its ring) of the prediction over the same of the ground truth: 1 survives, 0 is
           gone, negative is inverted. Taken on the box without margin. The ring is RING pixels wide, around the box,
           without the pixels of any other box in the frame. None, and counted as faint, where the ground truth's own
           contrast is below FAINT grey levels of 255 or the ring is empty.

Sizes are by the area w * h of the unclipped box in pixels of the ground truth: small below 12x12 (a car seen from
orbit), medium below 32x32, large from there on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from errors import InputError
from metrics.fidelity import PSNR_CEILING, WINDOWS, mean, similarity_map
from metrics.planes import check_crop, check_frames, check_protocol, planes

RING = 5  # pixels
FAINT = 4.0  # grey levels of 255
SIZES = {"small": 12 * 12, "medium": 32 * 32, "large": math.inf}  # area below which a box has this size


class BoxLike(Protocol):
    """A box in pixels of the ground truth; (x, y) is its top left corner, 0 the left edge of the first pixel."""

    @property
    def track(self) -> int | str: ...
    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...
    @property
    def w(self) -> float: ...
    @property
    def h(self) -> float: ...
    @property
    def label(self) -> str: ...


PixelBox = tuple[slice, slice]
Row = dict[str, Any]


class ObjectMeter:
    """Gathers the objects of one clip, frame by frame; `rows` holds one entry per object and frame."""

    def __init__(self, protocol: str = "standard", margin: int = 0, ring: int = RING) -> None:
        check_protocol(protocol)
        if margin < 0 or ring < 1:
            raise InputError(f"metrics: objects with margin {margin} and ring {ring}; expected margin >= 0, ring >= 1")
        self.protocol, self.margin, self.ring = protocol, margin, ring
        self.rows: list[Row] = []
        self.skipped = 0

    def add(self, pred: Tensor, gt: Tensor, baseline: Tensor | None, boxes: Sequence[BoxLike], frame: str = "") -> None:
        """Frames (3, H, W) in [0, 1], boxes in their pixels. `baseline` (bicubic) may be None."""
        for frames in (pred, baseline):
            if frames is not None:
                check_frames(frames, gt)
        check_crop((gt.shape[-2], gt.shape[-1]), 0, self.protocol, WINDOWS[self.protocol].size)
        if not boxes:
            return
        truth = planes(gt, self.protocol)
        shown = {"": pred} if baseline is None else {"": pred, "bicubic_": baseline}
        measured = {name: _Frame(planes(frames, self.protocol), truth, self.protocol) for name, frames in shown.items()}
        others = box_cover(boxes, truth.shape[-2:])
        for box in boxes:
            region = box_region(box, truth.shape[-2:], self.margin)
            if region is None:
                self.skipped += 1
                continue
            around = self._surroundings(box, others, truth.shape[-2:])
            row: Row = {"frame": frame, "track": box.track, "label": box.label, "size": size_of(box)}
            row |= {"x": float(box.x), "y": float(box.y), "w": float(box.w), "h": float(box.h)}
            for name, of_frame in measured.items():
                row |= {name + key: value for key, value in of_frame.measure(region, around).items()}
            if baseline is not None:
                row["gain_psnr_y"] = row["psnr_y"] - row["bicubic_psnr_y"]
            self.rows.append(row)

    def result(self) -> dict[str, Any]:
        """`all`, `by_class`, `by_size`: means over objects and frames, with their number; and how it was measured."""
        return summarise(self.rows) | {
            "skipped": self.skipped,
            "margin": self.margin,
            "ring": self.ring,
            "sizes": {name: area for name, area in SIZES.items() if math.isfinite(area)},
            "protocol": self.protocol,
        }

    def _surroundings(self, box: BoxLike, others: Tensor, size: Sequence[int]) -> _Surroundings | None:
        inner, outer = box_region(box, size, 0), box_region(box, size, self.ring)
        if inner is None or outer is None:
            return None
        ring = others[outer] == 0
        return _Surroundings(inner, outer, ring) if bool(ring.any()) else None


def summarise(rows: Iterable[Row]) -> dict[str, Any]:
    """Rows of any number of clips -> `all`, `by_class`, `by_size`, each with means and `count` (and `faint`)."""
    rows = list(rows)
    return {
        "all": _means(rows),
        "by_class": _grouped(rows, lambda row: str(row["label"]), sorted({str(row["label"]) for row in rows})),
        "by_size": _grouped(rows, lambda row: str(row["size"]), SIZES),
    }


def size_of(box: BoxLike) -> str:
    """`small`, `medium` or `large`, by the box's area."""
    return next(name for name, area in SIZES.items() if box.w * box.h < area)


def box_region(box: BoxLike, size: Sequence[int], margin: int = 0) -> PixelBox | None:
    """The pixels (rows, columns) that a box covers in a frame of (H, W); None if there are none."""
    if not (box.w > 0 and box.h > 0):
        return None
    height, width = size
    tiny = 1e-6  # a box that was scaled by a float must not grow by a pixel
    left, top = max(0, math.floor(box.x - margin + tiny)), max(0, math.floor(box.y - margin + tiny))
    right = min(width, math.ceil(box.x + box.w + margin - tiny))
    bottom = min(height, math.ceil(box.y + box.h + margin - tiny))
    if left >= right or top >= bottom:
        return None
    return slice(top, bottom), slice(left, right)


def box_cover(boxes: Sequence[BoxLike], size: Sequence[int]) -> Tensor:
    """Number of boxes that cover each pixel, (H, W) int."""
    cover = torch.zeros(tuple(size), dtype=torch.int32)
    for box in boxes:
        region = box_region(box, size)
        if region is not None:
            cover[region] += 1
    return cover


class _Surroundings:
    def __init__(self, inner: PixelBox, outer: PixelBox, ring: Tensor) -> None:
        self.inner, self.outer, self.ring = inner, outer, ring

    def contrast(self, plane: Tensor) -> float:
        return float(plane[self.inner].mean() - plane[self.outer][self.ring.to(plane.device)].mean())


class _Frame:
    """One frame compared with the ground truth: squared error and similarity are computed once for all of its boxes."""

    def __init__(self, shown: Tensor, truth: Tensor, protocol: str) -> None:
        self.shown, self.truth = shown[0], truth[0]
        self.error = (shown - truth)[0].square()
        self.similarity = similarity_map(shown, truth, protocol)[0]
        rows, columns = WINDOWS[protocol].size
        self.border = (rows // 2, columns // 2)

    def measure(self, region: PixelBox, around: _Surroundings | None) -> dict[str, float | None]:
        """`psnr_y`, `ssim_y` and `contrast` of one box."""
        error = float(self.error[region].mean())
        inside = self.similarity[self._shifted(region)]
        return {
            "psnr_y": min(PSNR_CEILING, 20 * math.log10(255 / math.sqrt(error))) if error > 0 else PSNR_CEILING,
            "ssim_y": float(inside.mean()) if inside.numel() else None,
            "contrast": self._survival(around),
        }

    def _shifted(self, region: PixelBox) -> PixelBox:
        """The region in the coordinates of the similarity map, which lacks a border."""
        rows, columns = region
        down, across = self.border
        return (
            slice(max(0, rows.start - down), max(0, rows.stop - down)),
            slice(max(0, columns.start - across), max(0, columns.stop - across)),
        )

    def _survival(self, around: _Surroundings | None) -> float | None:
        if around is None:
            return None
        true = around.contrast(self.truth)
        return around.contrast(self.shown) / true if abs(true) >= FAINT else None


def _grouped(rows: list[Row], key: Callable[[Row], str], names: Iterable[str]) -> dict[str, Any]:
    groups: Mapping[str, list[Row]] = {name: [row for row in rows if key(row) == name] for name in names}
    return {name: _means(members) for name, members in groups.items() if members}


def _means(rows: list[Row]) -> dict[str, Any]:
    skip = ("frame", "track", "label", "size", "x", "y", "w", "h")
    keys = [key for key in (rows[0] if rows else {}) if key not in skip]
    faint = sum(row["contrast"] is None for row in rows)
    return {"count": len(rows), "faint": faint} | {key: mean(row[key] for row in rows) for key in keys}
