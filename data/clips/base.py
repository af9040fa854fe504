"""The interface of all clips, and the window of frames around a frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.bands import BandMap
from data.details import Details
from data.geo_tags import GeoTags
from data.media import NO_DETAILS, from_tensor, to_tensor
from errors import InputError
from settings import PADDINGS


def neighbours(index: int, frames: int, length: int, padding: str = "reflect", spacing: int = 1) -> list[int]:
    """Frame numbers of the window of `frames` (odd), `spacing` apart, around `index` in a clip of `length` frames.

    Beyond the ends: "reflect" mirrors without repeating the end frame, "circular" wraps around, "replicate" takes the
    centre frame (as the published MTDO does), "distinct" takes frames from the other side of the centre that are not yet in
    the window, nearest to the mirrored ones, and repeats frames only where the clip has fewer than the window.
    """
    if padding not in PADDINGS:
        raise InputError(f"padding is {padding!r}: expected one of {', '.join(PADDINGS)}")
    around = [index + spacing * step for step in range(-(frames // 2), frames // 2 + 1)]
    if padding == "circular":
        return [k % length for k in around]
    if padding == "replicate":
        return [k if 0 <= k < length else index for k in around]
    if padding == "distinct":
        return _distinct(index, around, length)
    period = max(2 * (length - 1), 1)
    return [min(k % period, period - k % period) if length > 1 else 0 for k in around]


def _distinct(index: int, around: list[int], length: int) -> list[int]:
    """Replace every frame of `around` beyond an end of the clip by a frame that is not yet in the window."""
    window = {slot: number for slot, number in enumerate(around) if 0 <= number < length}
    beyond = [slot for slot in range(len(around)) if slot not in window]
    for slot in sorted(beyond, key=lambda slot: abs(around[slot] - index)):
        mirrored = min(max(2 * index - around[slot], 0), length - 1)
        near = range(max(mirrored - len(around), 0), min(mirrored + len(around) + 1, length))
        free = set(near) - set(window.values())
        window[slot] = min(free, key=lambda number: (abs(number - mirrored), abs(number - index))) if free else mirrored
    return [window[slot] for slot in range(len(around))]


class Clip(ABC):
    """Frames in order.

    name: unique in its layout.   fps: frames per second, None if unknown.
    frame_names: one per frame, to name outputs (file stems or numbers).
    times: seconds, or frame numbers where fps is unknown.
    """

    name: str
    fps: float | None = None
    frame_names: Sequence[str]
    times: Sequence[float]

    def __len__(self) -> int:
        return len(self.frame_names)

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(H, W) of every frame."""

    @property
    @abstractmethod
    def bit_depth(self) -> int:
        """Bits per value as stored: 8, 10, 12, 16, or 32 for float."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """1 for grey, 3 for colour (alpha does not count)."""

    @abstractmethod
    def array(self, index: int) -> np.ndarray:
        """(H, W, C) as stored: uint8, uint16 (full range) or float32, RGB order. May be a read-only view."""

    def part(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        """A window of `array`."""
        return self.array(index)[rows, columns]

    @abstractmethod
    def source(self, index: int) -> str:
        """The frame as shown in messages: its path, or file and frame number."""

    @property
    def band_map(self) -> BandMap | None:
        """The mapping from stored values to `array` if bands were selected or stretched; `stored` inverts it."""
        return None

    @property
    def parts(self) -> Sequence[Clip]:
        """Clips of the same frames whose bands together are those of the result, this clip first: three bands or one each."""
        return [self]

    @property
    def rgb(self) -> bool:
        """Whether the file declares the first three of its bands as red, green and blue."""
        return False

    def geo(self, index: int) -> GeoTags | None:
        """The georeference of a frame, if its file has one."""
        return None

    @property
    def transparent(self) -> bool:
        """Whether any frame has transparency."""
        return False

    def alpha(self, index: int) -> np.ndarray | None:
        """(H, W, 1) as stored: the opacity of a frame's pixels; None if the frame is opaque."""
        return None

    def details(self, index: int) -> Details:
        """Metadata of a frame's file."""
        return NO_DETAILS

    def file(self, index: int) -> Path | None:
        """The file that holds this frame and no other."""
        return None

    def holes(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Of a frame with missing values: the values as stored and where they are measured, both (H, W, 1 or 3); else None.
        In `array` the holes are filled with the nearest measured value.
        """
        return None

    def mask(self, index: int) -> np.ndarray | None:
        """(H, W, 1) bool: where a mask in the frame's file says that values are measured; None without a mask."""
        return None

    @property
    def computed_together(self) -> bool:
        """Whether reading one frame computes all frames, so that a cache should keep them all."""
        return False

    def identity(self, index: int) -> str:
        """Cache key of a frame: changes whenever its content may have changed."""
        return f"{self.source(index)}"

    def frame(self, index: int) -> Tensor:
        """(3, H, W) float32 in [0, 1]."""
        return to_tensor(self.array(index))

    def truth(self, index: int) -> Tensor:
        """The frame as ground truth of metrics: without values beyond the limits of a stretch, which results cannot have either.

        Raises InputError for values outside [0, 1] that were not stretched, and for a frame without a measured value.
        """
        frame = self.frame(index)
        low, high = float(frame.amin()), float(frame.amax())
        if low == high and (holes := self.holes(index)) and not holes[1].any():
            raise InputError(
                f"{self.source(index)}: has no measured value (only nodata, NaN or masked ones): leave it out"
            )
        if self.band_map is not None and self.band_map.low is not None:
            return frame.clamp(0, 1)
        if low < -0.01 or high > 1.01:
            raise InputError(
                f"{self.source(index)}: its values run from {low:.3g} to {high:.3g}, metrics need 0 to 1: set a stretch "
                "(bands.percentiles or bands.limits)"
            )
        return frame

    def stored(self, frame: Tensor) -> np.ndarray:
        """(3, H, W) in [0, 1] of any size -> (H, W, bands) in the type, bands and units of this clip's files."""
        if self.band_map is not None:
            return self.band_map.invert(from_tensor(frame, np.dtype(np.float32), self.channels))
        dtype = {8: np.uint8, 32: np.float32}.get(self.bit_depth, np.uint16)
        return from_tensor(frame, np.dtype(dtype), self.channels)

    def window(self, index: int, frames: int, padding: str = "reflect") -> Tensor:
        """(frames, 3, H, W) float32 in [0, 1] around `index`; `padding` as in `neighbours`."""
        numbers = neighbours(index, frames, len(self), padding)
        read = {number: self.frame(number) for number in sorted(set(numbers))}
        return torch.stack([read[number] for number in numbers])

    def check_index(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {self.name} has {len(self)} frames, no frame {index}")
        return index % len(self)
