"""Temporal consistency: motion and flicker of a restored clip, compared with the ground truth.

Both measures compare two successive frames and use the dense optical flow of Farneback (OpenCV), with the settings of
TecoGAN's tOF; benchmarks/metrics.py prints its error on shifts of known size, next to that of DIS.

tOF            mean over pixels and both components of |flow(pred_t, pred_t+1) - flow(gt_t, gt_t+1)|, in pixels. TecoGAN (Chu et
               al., 2020) takes the Euclidean length of the difference, sqrt(2) to 2 times the mean of both components, and leaves
               out a border.
warping error  100 * mean over visible pixels and RGB of |pred_t+1 (p + f(p)) - pred_t (p)|, f = flow(gt_t, gt_t+1).
               A pixel is visible if p + f(p) is in the frame and the backward flow b of the ground truth leads back:
               |f(p) + b(p + f(p))|^2 <= 0.01 (|f(p)|^2 + |b(p + f(p))|^2) + 0.5 (Sundaram et al., ECCV 2010).
The ground truth has a warping error too (noise, imperfect flow), which serves as the reference; reports show both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from errors import InputError
from metrics.planes import check_frames, gray, planes

# Arguments of cv2.calcOpticalFlowFarneback, those of TecoGAN's tOF.
FARNEBACK = {"pyr_scale": 0.5, "levels": 3, "winsize": 15, "iterations": 3, "poly_n": 5, "poly_sigma": 1.2, "flags": 0}
SMALLEST = 16  # pixels; in smaller frames the flow's windows cover only the border

Array = np.ndarray[Any, np.dtype[Any]]


class MotionMeter:
    """Temporal values of several methods against one ground truth; takes frames in order and keeps two of each."""

    def __init__(self) -> None:
        self._last: dict[str, _Frame] | None = None
        self._truth: _Frame | None = None
        self._index: int | None = None

    def add(
        self, shown: Mapping[str, Tensor], gt: Tensor, index: int | None = None
    ) -> dict[str, dict[str, float]] | None:
        """Frames (3, H, W) in [0, 1] by method -> the values of the gap before them; None for the first frame.

        index: number in the clip; None too for a frame that does not follow the last one. Without it, every frame does.
        Per method: `tof` in pixels; `warping_error` and, the same for all, `gt_warping_error` in percent of the full
        range, NaN where no pixel is visible (a scene cut).
        """
        for frames in shown.values():
            check_frames(frames, gt)
        if gt.dim() != 3 or min(gt.shape[-2:]) < SMALLEST:
            shape = tuple(gt.shape)
            raise InputError(f"metrics: frames {shape}; temporal metrics take (3, H, W), H and W at least {SMALLEST}")
        now, truth = {name: _Frame(frames) for name, frames in shown.items()}, _Frame(gt)
        before, last_truth, follows = self._last, self._truth, index is None or index - 1 == self._index
        self._last, self._truth, self._index = now, truth, index
        if before is None or last_truth is None or not follows:
            return None
        if truth.gray.shape != last_truth.gray.shape:
            raise InputError(
                f"metrics: a frame of {truth.gray.shape} pixels follows one of {last_truth.gray.shape} in one clip"
            )
        forward = flow(last_truth.gray, truth.gray)
        visible = visible_pixels(forward, flow(truth.gray, last_truth.gray))
        own = _warped_difference(last_truth.colour, truth.colour, forward, visible)
        return {
            name: {
                "tof": float(np.abs(flow(before[name].gray, view.gray) - forward).mean(dtype=np.float64)),
                "warping_error": _warped_difference(before[name].colour, view.colour, forward, visible),
                "gt_warping_error": own,
            }
            for name, view in now.items()
        }


class TemporalMeter:
    """`MotionMeter` for one method and, if given, its baseline, with the keys that reports use."""

    def __init__(self) -> None:
        self._meter = MotionMeter()

    def add(
        self, pred: Tensor, gt: Tensor, baseline: Tensor | None = None, index: int | None = None
    ) -> dict[str, float] | None:
        """Frames (3, H, W) in [0, 1] -> the values of the gap before them; None for the first frame of a clip.

        index: as in `MotionMeter`.   `tof`, `warping_error` and `gt_warping_error` as in `MotionMeter`. With `baseline` (bicubic) also
        `bicubic_tof` and `bicubic_warping_error`.
        """
        gap = self._meter.add({"": pred} if baseline is None else {"": pred, "bicubic": baseline}, gt, index)
        if gap is None:
            return None
        values = gap.pop("")
        if baseline is not None:
            values |= {f"bicubic_{key}": gap["bicubic"][key] for key in ("tof", "warping_error")}
        return values


class _Frame:
    """One frame for both measures: colour (H, W, 3) float32 in [0, 1] and grey (H, W) uint8, both of 8 bits."""

    def __init__(self, frame: Tensor) -> None:
        colour = planes(frame, channel="rgb") / 255
        self.colour: Array = np.ascontiguousarray(colour.permute(1, 2, 0).float().cpu().numpy())
        self.gray: Array = gray(frame)


def tof(pred_clip: Tensor, gt_clip: Tensor) -> Tensor:
    """tOF of each gap: clips (T, 3, H, W) in [0, 1] -> (T - 1,), float64, pixels."""
    return _each_gap(pred_clip, gt_clip, "tof")


def warping_error(pred_clip: Tensor, gt_clip: Tensor) -> Tensor:
    """Warping error of each gap: clips (T, 3, H, W) in [0, 1] -> (T - 1,), float64, percent of the full range."""
    return _each_gap(pred_clip, gt_clip, "warping_error")


def flow(first: Array, second: Array) -> Array:
    """Farneback's flow between two grey frames (H, W) uint8 -> (H, W, 2) as (dx, dy) in pixels."""
    blank = np.zeros((*first.shape, 2), np.float32)
    return np.asarray(cv2.calcOpticalFlowFarneback(first, second, blank, **FARNEBACK))  # type: ignore[call-overload]


def visible_pixels(forward: Array, backward: Array) -> Array:
    """Pixels of the first frame that are visible in the second, (H, W) bool, by forward-backward consistency."""
    height, width = forward.shape[:2]
    x, y = _targets(forward)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    returned = _sample(backward, x, y)
    gap = np.square(forward + returned).sum(axis=-1)
    size = np.square(forward).sum(axis=-1) + np.square(returned).sum(axis=-1)
    return np.asarray(inside & (gap <= 0.01 * size + 0.5))


def _each_gap(pred_clip: Tensor, gt_clip: Tensor, key: str) -> Tensor:
    check_frames(pred_clip, gt_clip)
    if gt_clip.dim() != 4 or len(gt_clip) < 2:
        raise InputError(f"metrics: {key} needs clips (T, 3, H, W) of at least two frames, got {tuple(gt_clip.shape)}")
    meter = TemporalMeter()
    gaps = [meter.add(pred, gt) for pred, gt in zip(pred_clip, gt_clip, strict=True)]
    return torch.tensor([gap[key] for gap in gaps if gap is not None], dtype=torch.float64)


def _warped_difference(first: Array, second: Array, forward: Array, visible: Array) -> float:
    """100 * mean |second(p + f(p)) - first(p)| over visible pixels; NaN if there are none."""
    if not visible.any():
        return float("nan")
    warped = _sample(second, *_targets(forward))
    return 100 * float(np.abs(warped - first)[visible].mean(dtype=np.float64))


def _targets(forward: Array) -> tuple[Array, Array]:
    height, width = forward.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x + forward[..., 0], y + forward[..., 1]


def _sample(image: Array, x: Array, y: Array) -> Array:
    """Bilinear values of (H, W, C) at (x, y); outside, the nearest border pixel.

    Not cv2.remap, which rounds coordinates to 1/32 of a pixel: on fine texture this rounding looks like flicker.
    """
    height, width = image.shape[:2]
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    upper = image[top, left] * (1 - across) + image[top, right] * across
    lower = image[bottom, left] * (1 - across) + image[bottom, right] * across
    return np.asarray(upper * (1 - down) + lower * down)
