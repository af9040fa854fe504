"""Slices through space and time (x-t): one row of every frame, stacked vertically. Flicker appears as horizontal stripes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import metrics
from engine.compare.measure import MethodFrames

FRAMES = 240  # maximum number of frames; longer clips are truncated
Array = np.ndarray[Any, np.dtype[Any]]
Read = Callable[[str, int], Array]  # method, frame -> (H, W, 3) uint8


def row_of(shown: MethodFrames, index: int) -> int:
    """The row in the inner half of the frame where the ground truth has the largest differences between pixels."""
    luma = metrics.planes(shown.gt.truth(index))[0].numpy()
    height = luma.shape[0]
    energy = np.abs(np.diff(luma, axis=1)).mean(axis=1)
    return height // 4 + int(np.argmax(energy[height // 4 : max(height * 3 // 4, height // 4 + 1)]))


def over_time(read: Read, name: str, indices: Sequence[int], row: int, columns: slice = slice(None)) -> Array:
    """Row `row` of every frame: (T, W, 3) uint8."""
    return np.stack([read(name, index)[row, columns] for index in indices[:FRAMES]])
