"""Checks of a frame or a pair of frames: block artefacts, missing detail, wrong low resolution, shifts.

Pictures are (H, W) or (H, W, C) float32 in 8-bit grey levels (0 to 255). benchmarks/thresholds.py counts the sound and the
damaged images beyond each threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from data import scenes
from data.degrade import imresize
from data.media import LEVELS, LUMA, rgb

BLOCKY = 0.3  # a higher `blockiness` is reported
ROUNDED = 0.2  # a lower `rounded` is reported
SOFT = 0.29  # a lower `detail` is reported
SHIFTED = 0.12  # LR pixels
COSINES = np.sqrt(np.where(np.arange(8) == 0, 1, 2) / 8)[:, None] * np.cos(  # orthonormal 8-point DCT-II, as in JPEG
    np.arange(8)[:, None] * (2 * np.arange(8) + 1) * np.pi / 16
).astype(np.float32)
HIGH = (np.add.outer(np.arange(8), np.arange(8)) >= 8) & (np.add.outer(np.arange(8), np.arange(8)) <= 12)


def grey_levels(array: np.ndarray) -> np.ndarray:
    """A stored frame as (H, W, 3) float32 in 8-bit grey levels; of more than four bands the first is repeated."""
    colours = rgb(array) if array.shape[-1] <= 4 else rgb(array[..., :1])
    return colours.astype(np.float32) * np.float32(255 / LEVELS[array.dtype])


def luma(levels: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> (H, W), weights of BT.601."""
    return levels @ LUMA


def blockiness(y: np.ndarray) -> float:
    """Excess of the steps on a grid of 8 (or 4) pixels over other steps; 0: no grid.

    The grid may have any offset. The largest of its 8 phases is compared with the third: a grid of 4 has two large ones.
    """
    found = []
    for picture in (y, y.T):
        step = np.abs(np.diff(picture, axis=1))
        edge = np.clip(step[:, 1:-1] - (step[:, :-2] + step[:, 2:]) / 2, -6, 6)  # edges of the scene are steep but rare
        if edge.shape[1] < 32:
            return 0.0
        profile = np.sort([edge[:, phase::8].mean() for phase in range(8)])
        found.append((profile[-1] - profile[-3]) / (np.abs(edge).mean() + 0.05))
    return float(min(found))


def rounded(y: np.ndarray) -> float:
    """Mean size of high cosine coefficients in the blocks of a JPEG grid, relative to other block positions.

    Compression rounds most high coefficients of a block to zero, even in noise, so they are small at one of the 64
    positions of the grid: 0.05 to 0.3 up to quality 50, near 1 without compression.
    """
    blocks = np.array([_high_coefficients(y[top:, left:]) for top in range(8) for left in range(8)])
    usual = float(np.median(blocks))
    return float(blocks.min()) / usual if usual > 0.2 else 1.0


def _high_coefficients(y: np.ndarray) -> float:
    """Mean size of the high cosine coefficients of (at most 300) 8x8 blocks; each clipped at 20, because edges are rare but large."""
    height, width = y.shape[0] // 8, y.shape[1] // 8
    blocks = y[: 8 * height, : 8 * width].reshape(height, 8, width, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    if len(blocks) == 0:
        return 0.0
    blocks = blocks[:: -(-len(blocks) // 300)]
    return float(np.minimum(np.abs(COSINES @ blocks @ COSINES.T)[:, HIGH], 20).mean())


def detail(y: np.ndarray) -> float | None:
    """Error of halving and enlarging the picture, relative to its gradient; None for flat pictures."""
    height, width = y.shape
    gradient = np.sqrt((np.diff(y, axis=0) ** 2).mean() + (np.diff(y, axis=1) ** 2).mean())
    if gradient < 0.5 or min(height, width) < 32:
        return None
    picture = torch.from_numpy(np.ascontiguousarray(y))
    half = imresize(picture, size=((height + 1) // 2, (width + 1) // 2))
    lost = (picture - imresize(half, size=(height, width))).numpy()[8:-8, 8:-8]
    return float(np.sqrt((lost**2).mean()) / gradient)


@dataclass
class Quality:
    """Measures of one frame: number, contrast in grey levels, and the checks above."""

    index: int
    contrast: float
    blockiness: float
    rounded: float
    detail: float | None

    @classmethod
    def of(cls, index: int, y: np.ndarray) -> Quality:
        return cls(index, float(y.std()), blockiness(y), rounded(y), detail(y))


@dataclass
class Change:
    """Change between two frames: mean absolute and median difference in grey levels, and the measures of scene cuts."""

    mean: float
    median: float
    scene: scenes.Change


def change(before: np.ndarray, after: np.ndarray, looks: tuple[scenes.Look, scenes.Look]) -> Change:
    """The change between two luma frames (H, W) with their `scenes.look`."""
    difference = after - before
    return Change(float(np.abs(difference).mean()), float(np.median(difference[::2, ::2])), scenes.change(*looks))


@dataclass
class LowResolution:
    """An LR frame compared with the bicubic reduction of its GT frame: differences in grey levels, shift in LR pixels."""

    worst: float
    mean: float
    shift: tuple[float, float]  # (x, y): displacement of LR content to the right and down
    swapped: bool  # red and blue exchanged


def compare_low(low: np.ndarray, gt: np.ndarray) -> LowResolution:
    """low (h, w, 3), gt (H, W, 3), grey levels. The scale follows from the sizes."""
    expected = reduced(gt, low.shape[:2])
    difference = np.abs(low - expected)
    mirrored = float(np.abs(low[..., ::-1] - expected).mean())
    swapped = mirrored < 0.5 * float(difference.mean()) and mirrored < 4
    shift = (0.0, 0.0) if difference.max() <= 1.5 else displacement(luma(expected), luma(low))
    return LowResolution(float(difference.max()), float(difference.mean()), shift, swapped)


def reduced(gt: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The 8-bit bicubic reduction of (H, W, 3) grey levels, as stored in data sets."""
    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(gt, -1, 0)))
    return np.moveaxis(imresize(planes, size=size).round().clamp(0, 255).numpy(), 0, -1)


def displacement(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Sub-pixel translation (x, y) of `after` against `before`; (0, 0) if they are unrelated."""
    window = cv2.createHanningWindow(before.shape[1::-1], cv2.CV_32F)
    smooth = [cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 1.0) for picture in (before, after)]
    a, b = (picture - picture.mean() for picture in smooth)
    (x, y), response = cv2.phaseCorrelate(a, b, window)
    if response < 0.1 or max(abs(x), abs(y)) > min(before.shape) / 4:
        return 0.0, 0.0
    return refine(a, b, (x, y))


def refine(a: np.ndarray, b: np.ndarray, start: tuple[float, float]) -> tuple[float, float]:
    """Lucas-Kanade least squares over the full picture from a first guess."""
    x, y = start
    gy, gx = np.gradient(a)
    rim = int(np.clip(min(a.shape) // 8, 4, 12))  # border pixels that the warp had to fill
    inner = np.s_[rim:-rim, rim:-rim]
    normal = np.array(
        [[(gx * gx)[inner].sum(), (gx * gy)[inner].sum()], [(gx * gy)[inner].sum(), (gy * gy)[inner].sum()]]
    )
    if np.linalg.det(normal) < 1e-6:
        return start
    for _ in range(8):
        x, y = (round(32 * place) / 32 for place in (x, y))  # OpenCV's remapping has a resolution of 1/32 pixel
        matrix = np.array([[1, 0, x], [0, 1, y]], np.float64)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP  # OpenCV's cubic (a = -0.75) misplaces by up to 0.05 pixels
        back = cv2.warpAffine(b, matrix, b.shape[1::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
        rest = (back - a)[inner]
        step = np.linalg.solve(normal, np.array([(gx[inner] * rest).sum(), (gy[inner] * rest).sum()]))
        x, y = x - float(step[0]), y - float(step[1])
        if np.abs(step).max() < 1 / 64:
            break
    return x, y
