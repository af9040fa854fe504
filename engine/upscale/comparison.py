"""The comparison video of `--compare`: bicubic on the left, the network on the right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.clips import Clip
from data.degrade import imresize


def comparison_path(out: Path) -> Path:
    """Where the comparison of an output goes."""
    return out.with_name(f"{out.stem if out.suffix else out.name}_compare.mp4")


class Bicubic:
    """What anyone has without a network: frames enlarged by bicubic interpolation, in-between frames blended."""

    def __init__(self, clip: Clip, size: tuple[int, int]) -> None:
        self.clip, self.size = clip, size
        self._kept: dict[int, Tensor] = {}

    def __call__(self, key: int, time: float) -> Tensor:
        """Key frame `key`, or the frame at `time` in (0, 1) between it and the next: (3, H, W) in [0, 1]."""
        self._kept = {number: frame for number, frame in self._kept.items() if number >= key}
        return torch.lerp(self._frame(key), self._frame(key + 1), time) if time else self._frame(key)

    def _frame(self, key: int) -> Tensor:
        if key not in self._kept:
            self._kept[key] = imresize(self.clip.frame(key), size=self.size).clamp(0, 1)
        return self._kept[key]


def beside(bicubic: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """The left half of the picture from bicubic, the right from ours, full width each: (H, 2W, C)."""
    return np.concatenate([bicubic, ours], axis=1)


def pairs(left: Iterable[np.ndarray], right: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    return (beside(a, b) for a, b in zip(left, right, strict=True))
