"""Bicubic baseline: upscaled frames, blended linearly at intermediate times."""

from __future__ import annotations

import torch
from torch import Tensor

from data.clips import Clip
from data.degrade import imresize


class Bicubic:
    """The frames of a clip at `size` = (H, W). Keeps two frames, so that successive calls resize each frame once."""

    def __init__(self, clip: Clip, size: tuple[int, int]) -> None:
        self.clip, self.size = clip, size
        self._kept: dict[int, Tensor] = {}

    def __call__(self, index: int, time: float = 0.0) -> Tensor:
        """Frame `index`, or the blend at `time` in (0, 1) between it and the next one: (3, H, W), not clamped."""
        self._kept = {number: frame for number, frame in self._kept.items() if number in (index, index + 1)}
        return torch.lerp(self._frame(index), self._frame(index + 1), time) if time else self._frame(index)

    def _frame(self, index: int) -> Tensor:
        if index not in self._kept:
            self._kept[index] = imresize(self.clip.frame(index), size=self.size)
        return self._kept[index]
