"""Motion between LR frames for the temporal filter: dense optical flow, and the translation most of the scene shares.

Dense flow (DIS; Kroeger et al., ECCV 2016) of a static scene is the noise of the frames, some hundredths of a pixel, and
moving neighbours by it makes the result flicker. Where one translation for the frame (`dominant_motion`) matches as well,
it replaces the flow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SMALLEST = 16  # pixels: motion is not estimated in smaller frames, which DIS does not take
SAMPLES = 5_000  # pixels of which medians are taken, at least
INLIER = 2.5  # largest residual of a pixel that moves with the scene, in medians of all residuals
MARGIN = 2  # pixels at the frame's edge without valid gradients
SPOT = 9  # pixels: side of the squares in which the two motions are compared
# Largest squared error of the translation: FACTOR times that of the flow, plus FLOOR
FACTOR, FLOOR = 1.15, (0.7 / 255) ** 2

Image = NDArray[Any]  # floating point


def motions(centre: Tensor, others: Sequence[Tensor]) -> list[Tensor]:
    """The motion from `centre` to each of `others`, in as many threads as PyTorch uses."""
    with one_thread(), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(partial(motion, centre), others))


def motion(first: Tensor, second: Tensor) -> Tensor:
    """Motion between lumas (h, w), any range -> (2, h, w), pixels (x, y): point p of `first` is at p + motion(p) in `second`."""
    low, high = (float(edge) for edge in torch.aminmax(torch.stack([first, second])))
    if min(first.shape) < SMALLEST or not math.isfinite(high - low):
        return torch.zeros(2, *first.shape)
    before, after = (((each - low) / max(high - low, 1e-6)).numpy() for each in (first, second))
    dense = flow(before, after)
    common = dominant_motion(before, after, dense)
    fits = _error(before, after, common) <= FACTOR * _error(before, after, dense) + FLOOR
    share = cv2.blur(fits.astype(np.float32), (5, 5))[..., None]
    return torch.from_numpy(dense + (common - dense) * share).permute(2, 0, 1).contiguous()


def flow(first: Image, second: Image) -> Image:
    """Dense optical flow between images (h, w) in [0, 1] -> (h, w, 2), pixels (x, y)."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)  # type: ignore[attr-defined]  # missing in the stubs
    search.setFinestScale(0)
    search.setGradientDescentIterations(4)  # the preset has 16 and 5, which take longer for the same gain
    search.setVariationalRefinementIterations(2)
    before, after = (np.rint(image * 255).astype(np.uint8) for image in (first, second))
    return search.calc(before, after, np.zeros((*first.shape, 2), np.float32))


def dominant_motion(first: Image, second: Image, dense: Image) -> Image:
    """The translation (2,), pixels (x, y), of most of the scene between images (h, w), given their flow (h, w, 2).

    One Gauss-Newton step of Lucas and Kanade (1981) from the median of the flow, over the pixels that match there.
    """
    vectors = dense.reshape(-1, 2)
    common = np.median(vectors[:: max(1, len(vectors) // SAMPLES)], axis=0).astype(np.float32)
    common = np.round(common * 32) / np.float32(32)  # the precision of cv2.remap in OpenCV 4
    moved = _moved(second, common)
    inside = (slice(MARGIN, -MARGIN),) * 2
    slopes = [cv2.Sobel(moved, cv2.CV_32F, *order, scale=1 / 8)[inside] for order in ((1, 0), (0, 1))]
    residual = (first - moved)[inside]
    size = np.abs(residual)
    inliers = size <= INLIER * np.median(size.ravel()[:: max(1, size.size // SAMPLES)])
    used = [(slope * inliers).ravel() for slope in slopes]
    products = np.array([[np.vdot(one, two) for two in (*used, residual.ravel())] for one in used])
    step, *_ = np.linalg.lstsq(products[:, :2], products[:, 2], rcond=1e-6)
    return common if np.abs(step).max() > 1 else (common + step).astype(np.float32)


def _moved(image: Image, by: Image) -> Image:
    """image(p + by) for an image (h, w); by: (2,) or (h, w, 2), pixels (x, y)."""
    height, width = image.shape
    columns = np.arange(width, dtype=np.float32) + by[..., 0]
    rows = np.arange(height, dtype=np.float32)[:, None] + by[..., 1]
    columns, rows = (np.broadcast_to(each, (height, width)) for each in (columns, rows))
    return cv2.remap(image, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _error(first: Image, second: Image, by: Image) -> Image:
    """Mean squared difference (h, w) of `first` and the moved `second` around each pixel."""
    return cv2.blur(np.square(first - _moved(second, by)), (SPOT, SPOT))


@contextmanager
def one_thread() -> Iterator[None]:
    """Make OpenCV use one thread: DIS divides a frame by the number of threads, which changes the result."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
