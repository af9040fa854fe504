"""The spacing of windows: the number of frames from one frame of a window to the next.

A neighbour adds information if its pixel grid samples the scene at other positions. With little motion, frames further
away add more; with much motion, they are only harder to align. "auto" chooses for every window the widest spacing up to
`WIDEST` at which the frames next to the centre are displaced from it by at most `MOST_MOTION` pixels, the frames after them by at
most twice as many, and so on. The choice depends on the frames only, so a frame has the same window for any start of the
work. experiments/trials.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from data.clips import neighbours
from data.media import LUMA
from models.base import Spacing

WIDEST = 9  # frames
MOST_MOTION = 0.4  # LR pixels


def widest(spacing: Spacing | None) -> int:
    """The widest spacing that windows may have."""
    return WIDEST if isinstance(spacing, str) else spacing or 1


class WindowChooser:
    """Chooses the windows of one clip.

    frames: odd length of a window.   spacing: frames from one of them to the next, or "auto".   length: of the clip.
    padding: as in `data.clips.neighbours`.
    """

    def __init__(self, frames: int, spacing: Spacing, length: int, padding: str) -> None:
        self.frames, self.spacing, self.length, self.padding = frames, spacing, length, padding
        self._lumas: dict[int, FrameLuma] = {}

    @property
    def reach(self) -> int:
        """Maximum number of frames before and after the centre in a window."""
        return self.frames // 2 * widest(self.spacing)

    def window(self, index: int, load: Callable[[int], Tensor]) -> list[int]:
        """Frame numbers of the window around `index`. load(number) -> (3, h, w) in [0, 1]; called for "auto" only."""
        if not isinstance(self.spacing, str):
            return neighbours(index, self.frames, self.length, self.padding, self.spacing)
        self._lumas = {number: luma for number, luma in self._lumas.items() if abs(number - index) <= self.reach}
        for spacing in range(WIDEST, 1, -1):
            numbers = neighbours(index, self.frames, self.length, self.padding, spacing)
            if self._adds_information(numbers, spacing) and self._is_within_reach(index, numbers, load):
                return numbers
        return neighbours(index, self.frames, self.length, self.padding)

    def _adds_information(self, numbers: list[int], spacing: int) -> bool:
        """Whether all other frames add information: a window reflected at an end of the clip may repeat frames.

        With padding "distinct", one half of the window must be inside the clip.
        """
        centre = self.frames // 2
        others = numbers[:centre] + numbers[centre + 1 :]
        if self.padding == "distinct":
            span, index = centre * spacing, numbers[centre]
            return len(set(numbers)) == len(numbers) and (index >= span or index + span < self.length)
        return min(abs(number - numbers[centre]) for number in others) >= spacing

    def _is_within_reach(self, index: int, numbers: list[int], load: Callable[[int], Tensor]) -> bool:
        """Whether the frame n steps from the centre is displaced by at most n * MOST_MOTION pixels."""
        centre = self._luma(index, load)
        steps = [max(abs(step - self.frames // 2), 1) for step in range(self.frames)]
        return all(
            centre.displacement(self._luma(number, load)) <= step * MOST_MOTION
            for number, step in zip(numbers, steps, strict=True)
        )

    def _luma(self, number: int, load: Callable[[int], Tensor]) -> FrameLuma:
        if number not in self._lumas:
            self._lumas[number] = FrameLuma(load(number))
        return self._lumas[number]


class FrameLuma:
    """The luma of a frame and its root mean square slope."""

    def __init__(self, frame: Tensor) -> None:
        red, green, blue = frame.numpy()  # NumPy, because it uses one thread and leaves the others to the network
        self.luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
        across = np.square(self.luma[:, 2:] - self.luma[:, :-2]).mean() if self.luma.shape[1] > 2 else 0.0
        down = np.square(self.luma[2:] - self.luma[:-2]).mean() if self.luma.shape[0] > 2 else 0.0
        self.slope = float(np.sqrt((across + down) / 4))

    def displacement(self, other: FrameLuma) -> float:
        """Approximate displacement of `other` in pixels: the change of luma divided by the slope, without a change of mean.

        Small global shifts are measured correctly (times the mean cosine of the angle to the slope). Noise adds to them.
        Unrelated frames give 1 to 2.
        """
        change = float((other.luma - self.luma).std())
        if change == 0:
            return 0.0
        return change / self.slope if self.slope else float("inf")
