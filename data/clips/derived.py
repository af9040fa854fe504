"""Clips in memory and clips derived from other clips: subsets, crops, low resolution."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from pathlib import Path

import numpy as np

from data.bands import BandMap
from data.clips.base import Clip
from data.degrade import Degradation
from data.details import Details
from data.geo_tags import GeoTags
from data.media import colours
from errors import InputError


class ArrayClip(Clip):
    """Frames in memory: (T, H, W, C) or a list of (H, W, C), uint8, uint16 or float32 in [0, 1]."""

    def __init__(self, name: str, frames: np.ndarray | Sequence[np.ndarray], fps: float | None = None) -> None:
        if len(frames) == 0:
            raise InputError(f"clip {name} is empty")
        self.name, self.frames, self.fps = name, frames, fps
        self.frame_names = [f"{index:08d}" for index in range(len(frames))]
        self.times = [index / fps if fps else float(index) for index in range(len(frames))]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.frames[0].shape[:2]
        return height, width

    @property
    def bit_depth(self) -> int:
        return 8 * self.frames[0].dtype.itemsize

    @property
    def channels(self) -> int:
        return 1 if self.frames[0].shape[-1] <= 2 else 3

    def array(self, index: int) -> np.ndarray:
        return self.frames[self.check_index(index)]

    def __deepcopy__(self, memo: object) -> ArrayClip:
        return copy(self)  # nobody writes to the frames

    def source(self, index: int) -> str:
        return f"{self.name} frame {self.frame_names[index]}"


class Derived(Clip):
    """A clip based on another one; attributes that a subclass does not override come from the original."""

    def __init__(self, clip: Clip, name: str | None = None) -> None:
        self.clip = clip
        self.name = name or clip.name
        self.fps, self.frame_names, self.times = clip.fps, clip.frame_names, clip.times

    @property
    def size(self) -> tuple[int, int]:
        return self.clip.size

    @property
    def bit_depth(self) -> int:
        return self.clip.bit_depth

    @property
    def channels(self) -> int:
        return self.clip.channels

    def array(self, index: int) -> np.ndarray:
        return self.clip.array(index)

    @property
    def band_map(self) -> BandMap | None:
        return self.clip.band_map

    @property
    def rgb(self) -> bool:
        return self.clip.rgb

    def geo(self, index: int) -> GeoTags | None:
        return self.clip.geo(index)

    @property
    def transparent(self) -> bool:
        return self.clip.transparent

    def alpha(self, index: int) -> np.ndarray | None:
        return self.clip.alpha(index)

    def details(self, index: int) -> Details:
        return self.clip.details(index)

    def file(self, index: int) -> Path | None:
        return self.clip.file(index)

    def holes(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        return self.clip.holes(index)

    def mask(self, index: int) -> np.ndarray | None:
        return self.clip.mask(index)

    def source(self, index: int) -> str:
        return self.clip.source(index)

    @property
    def computed_together(self) -> bool:
        return self.clip.computed_together

    def identity(self, index: int) -> str:
        return self.clip.identity(index)


class SubClip(Derived):
    """Some frames of a clip, in the order of `indices`."""

    def __init__(self, clip: Clip, indices: Sequence[int], name: str | None = None) -> None:
        super().__init__(clip, name)
        if not len(indices):
            raise InputError(f"clip {self.name}: no frames chosen")
        self.indices = [clip.check_index(index) for index in indices]
        self.frame_names = [clip.frame_names[index] for index in self.indices]
        self.times = [clip.times[index] for index in self.indices]

    @property
    def parts(self) -> Sequence[Clip]:
        others = [part for part in self.clip.parts if part is not self.clip]
        return [self, *(SubClip(part, self.indices, self.name) for part in others)]

    def array(self, index: int) -> np.ndarray:
        return self.clip.array(self.indices[index])

    def geo(self, index: int) -> GeoTags | None:
        return self.clip.geo(self.indices[index])

    def alpha(self, index: int) -> np.ndarray | None:
        return self.clip.alpha(self.indices[index])

    def details(self, index: int) -> Details:
        return self.clip.details(self.indices[index])

    def file(self, index: int) -> Path | None:
        return self.clip.file(self.indices[index])

    def holes(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        return self.clip.holes(self.indices[index])

    def mask(self, index: int) -> np.ndarray | None:
        return self.clip.mask(self.indices[index])

    def source(self, index: int) -> str:
        return self.clip.source(self.indices[index])

    def identity(self, index: int) -> str:
        return self.clip.identity(self.indices[index])


class _Crop(Derived):
    """A clip whose frames are cropped to `region`."""

    @property
    @abstractmethod
    def region(self) -> tuple[slice, slice]:
        """Rows and columns."""

    @property
    def size(self) -> tuple[int, int]:
        rows, columns = self.region
        return rows.stop - rows.start, columns.stop - columns.start

    def array(self, index: int) -> np.ndarray:
        return self.clip.array(index)[self.region]

    def alpha(self, index: int) -> np.ndarray | None:
        alpha = self.clip.alpha(index)
        return None if alpha is None else alpha[self.region]

    def holes(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        holes = self.clip.holes(index)
        return None if holes is None else (holes[0][self.region], holes[1][self.region])

    def mask(self, index: int) -> np.ndarray | None:
        mask = self.clip.mask(index)
        return None if mask is None else mask[self.region]


class CroppedClip(_Crop):
    """A clip cropped at the bottom and right so that height and width are multiples of `multiple` (an integer scale)."""

    def __init__(self, clip: Clip, multiple: int) -> None:
        super().__init__(clip)
        self.multiple = multiple

    @cached_property
    def region(self) -> tuple[slice, slice]:
        height, width = self.clip.size
        if min(height, width) < self.multiple:
            raise InputError(f"{self.source(0)}: {width}x{height} is too small for scale {self.multiple}")
        return slice(0, height - height % self.multiple), slice(0, width - width % self.multiple)

    def identity(self, index: int) -> str:
        return f"{self.clip.identity(index)}|multiple of {self.multiple}"


class RegionClip(_Crop):
    """Crop every frame to rows `top` to `bottom` and columns `left` to `right` (pixels, ends excluded)."""

    def __init__(self, clip: Clip, top: int, left: int, bottom: int, right: int) -> None:
        super().__init__(clip)
        self._region = slice(top, bottom), slice(left, right)

    @property
    def region(self) -> tuple[slice, slice]:
        return self._region

    def geo(self, index: int) -> GeoTags | None:
        return None  # the origin of the crop differs

    def identity(self, index: int) -> str:
        rows, columns = self.region
        return f"{self.clip.identity(index)}|{rows.start}:{rows.stop},{columns.start}:{columns.stop}"


class DegradedClip(Derived):
    """Low resolution computed from ground truth on reading, as described by `data.degrade.Degradation`.

    The bit depth is that of `degradation.bits`, or the ground truth's where that is None.
    """

    def __init__(self, clip: Clip, degradation: Degradation, scale: float) -> None:
        super().__init__(clip)
        self.scale = scale
        self.configured = degradation

    @cached_property
    def degradation(self) -> Degradation:
        return self.configured.for_depth(self.clip.bit_depth)

    @cached_property
    def _size(self) -> tuple[int, int]:
        return self.configured.size(*self.clip.size, self.scale)

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    @property
    def bit_depth(self) -> int:
        return self.degradation.bits or 32

    def array(self, index: int) -> np.ndarray:
        frame = colours(self.clip.array(index))
        return self.degradation.array(frame, self.scale, name=self.name, index=index, size=self._size)

    def geo(self, index: int) -> GeoTags | None:
        geo = self.clip.geo(index)
        (height, width), (low_height, low_width) = self.clip.size, self.size
        return geo.scaled(low_height / height, low_width / width) if geo else None

    @property
    def transparent(self) -> bool:
        return False

    def alpha(self, index: int) -> np.ndarray | None:
        return None

    def holes(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        return None  # they are filled before the degradation

    def mask(self, index: int) -> np.ndarray | None:
        return None

    def source(self, index: int) -> str:
        return f"{self.clip.source(index)} (degraded x{self.scale:g})"

    def identity(self, index: int) -> str:
        return f"{self.clip.identity(index)}|{self.degradation}|{self.scale}|{self.name}|{index}"
