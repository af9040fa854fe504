"""Draw sprites and polygons over a picture."""

from __future__ import annotations

import cv2
import numpy as np

Patch = tuple[tuple[slice, slice], np.ndarray]  # rows and columns of a picture, coverage there


def paste(light: np.ndarray, sprite: np.ndarray, linear: np.ndarray, centre: np.ndarray) -> Patch | None:
    """Draw a sprite over the picture: its pixel p goes to centre + linear (p - middle).

    Returns (slices, alpha), or None if it is outside the picture.
    """
    middle = (np.array(sprite.shape[1::-1]) - 1) / 2
    reach = np.abs(linear) @ (middle + 0.5)
    where = _window(centre - reach, centre + reach, light.shape)
    if where is None:
        return None
    rows, columns = where
    shift = centre - linear @ middle - [columns.start, rows.start]
    matrix = np.concatenate([linear, shift[:, None]], axis=1)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    drawn = cv2.warpAffine(sprite, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    alpha = drawn[..., 3]
    light[where] *= 1 - alpha[..., None]
    light[where] += drawn[..., :3]
    return where, alpha


def fill(light: np.ndarray, polygon: np.ndarray, colour: np.ndarray) -> Patch | None:
    """Fill a convex polygon (points in picture pixels). Returns (slices, alpha) or None."""
    where = _window(polygon.min(axis=0), polygon.max(axis=0), light.shape)
    if where is None:
        return None
    rows, columns = where
    mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    points = np.rint((polygon - [columns.start, rows.start]) * 64).astype(np.int32)
    cv2.fillConvexPoly(mask, points, 255, cv2.LINE_AA, shift=6)
    alpha = mask.astype(np.float32) / 255
    light[where] += (colour.astype(np.float32) - light[where]) * alpha[..., None]
    return where, alpha


def _window(low: np.ndarray, high: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """The pixels between two corners plus one on every side, inside the picture; None if there are none."""
    left, top = np.maximum(np.floor(low).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(high).astype(int) + 2, [shape[1], shape[0]])
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None
