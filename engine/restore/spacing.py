"""How far apart the frames of MTDO's windows lie (`network.spacing`).

What a neighbour shows that the frame itself does not is where the pixels' raster meets the scene elsewhere. Where little moves
from frame to frame, frames further away show more of it; where much moves, they only are harder to align. `auto` takes
for every window the widest spacing up to `WIDEST` at which the frames next to the centre's stay within `REACH` pixels of it,
those after them within twice as many, and so on.
It looks at the frames alone, so a frame's window is the same wherever the work begins. docs/results.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from data.clips import neighbours
from data.media import LUMA
from errors import InputError

WIDEST = 3
REACH = 0.35  # LR pixels


def widest(spacing: int | str) -> int:
    """The widest that windows of `network.spacing` may be."""
    return WIDEST if isinstance(spacing, str) else spacing


def set_spacing(network: Any, spacing: int | Literal["auto"], source: Path) -> None:
    """Another spacing for the network that came from `source`. Raises InputError if it is not MTDO."""
    if network.config.name != "mtdo":
        raise InputError(f"--spacing is for MTDO, '{source}' holds STNO weights: leave it out")
    network.config = replace(network.config, spacing=spacing)


class Spacing:
    """Chooses the windows of one clip.

    frames: odd length of a window.   spacing: frames from one of them to the next, or "auto".   length: of the clip.
    padding: as in `data.clips.neighbours`.
    """

    def __init__(self, frames: int, spacing: int | str, length: int, padding: str) -> None:
        self.frames, self.spacing, self.length, self.padding = frames, spacing, length, padding
        self._views: dict[int, View] = {}

    @property
    def reach(self) -> int:
        """How many frames before and after the centre a window may need."""
        return self.frames // 2 * widest(self.spacing)

    def window(self, index: int, load: Callable[[int], Tensor]) -> list[int]:
        """Frame numbers of the window around `index`. load(number) -> (3, h, w) in [0, 1]; asked by `auto` alone."""
        if not isinstance(self.spacing, str):
            return neighbours(index, self.frames, self.length, self.padding, self.spacing)
        self._views = {number: view for number, view in self._views.items() if abs(number - index) <= self.reach}
        for spacing in range(WIDEST, 1, -1):
            numbers = neighbours(index, self.frames, self.length, self.padding, spacing)
            if self._is_open(numbers, spacing) and self._is_within_reach(index, numbers, load):
                return numbers
        return neighbours(index, self.frames, self.length, self.padding)

    def _is_open(self, numbers: list[int], spacing: int) -> bool:
        """Whether every other frame shows something new; a window folded back at an end of the clip may not."""
        centre = self.frames // 2
        others = numbers[:centre] + numbers[centre + 1 :]
        if self.padding == "distinct":
            return len(set(numbers)) == len(numbers)
        return min(abs(number - numbers[centre]) for number in others) >= spacing

    def _is_within_reach(self, index: int, numbers: list[int], load: Callable[[int], Tensor]) -> bool:
        """Whether the frame n steps from the centre's is at most n * REACH pixels away from it."""
        centre = self._view(index, load)
        steps = [max(abs(step - self.frames // 2), 1) for step in range(self.frames)]
        return all(
            centre.displacement(self._view(number, load)) <= step * REACH
            for number, step in zip(numbers, steps, strict=True)
        )

    def _view(self, number: int, load: Callable[[int], Tensor]) -> View:
        if number not in self._views:
            self._views[number] = View(load(number))
        return self._views[number]


class View:
    """The luma of a frame, and how steep it is."""

    def __init__(self, frame: Tensor) -> None:
        red, green, blue = frame.numpy()  # numpy: it takes one thread, and this runs beside the network
        self.luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
        across = np.square(self.luma[:, 2:] - self.luma[:, :-2]).mean() if self.luma.shape[1] > 2 else 0.0
        down = np.square(self.luma[2:] - self.luma[:-2]).mean() if self.luma.shape[0] > 2 else 0.0
        self.slope = float(np.sqrt((across + down) / 4))

    def displacement(self, other: View) -> float:
        """Roughly how many pixels `other` is away: its change over the slope, brightness of the whole frame aside.

        Small shifts of everything are found as they are (times the cosine between them and the slope, in the mean); noise
        adds to them, and frames that have nothing in common come out at 1 to 2.
        """
        change = float((other.luma - self.luma).std())
        if change == 0:
            return 0.0
        return change / self.slope if self.slope else float("inf")
