"""Frames stored as images: checks of each frame, choice and stretch of bands, missing values, transparency."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from data.bands import DARK, USUAL, BandMap, Bands, fill_unit_range
from data.clips.base import Clip
from data.decoders import ImageInfo
from data.files import named_errors
from data.geo_tags import GeoTags
from data.media import colours
from data.validity import filled
from errors import InputError

STRETCH_FRAMES = 8  # number of frames used to compute percentiles


class StoredClip(Clip):
    """Base class of image folders and TIFF stacks: checks each frame, selects and stretches bands."""

    bands: Bands | None
    _coloured = _transparent = False  # whether any frame is; set by `examine`
    _others: Sequence[StoredClip] = ()  # the bands that this clip does not return, if all are upscaled

    @property
    @abstractmethod
    def _info(self) -> ImageInfo:
        """The first frame's header."""

    @abstractmethod
    def _headers(self) -> Iterable[ImageInfo]:
        """The headers of all frames."""

    @abstractmethod
    def _measured(self, index: int, exact: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """(H, W, bands) of the file, with `exact` in its type, and where they are measured (None: everywhere)."""

    def _stored(self, index: int) -> np.ndarray:
        """(H, W, bands) of the file; missing values and colours of invisible pixels are those of the nearest other pixel.

        Integers of 32 and 64 bits and float64 stay exact if they are stretched.
        """
        stretched = self.bands is not None and self.bands != Bands(self.bands.choice)
        array, valid = self._measured(index, exact=stretched)
        if self._has_alpha(array) and not (visible := array[..., -1:] > 0).all() and visible.any():
            seen = np.concatenate([np.broadcast_to(visible, array[..., :-1].shape), np.ones_like(visible)], axis=-1)
            valid = seen if valid is None else seen & valid
        return (
            array if valid is None else np.moveaxis(filled(np.moveaxis(array, -1, 0), np.moveaxis(valid, -1, 0)), 0, -1)
        )

    def _has_alpha(self, array: np.ndarray) -> bool:
        """Whether the last band of (H, W, bands) is transparency and was not chosen as a colour."""
        bands = array.shape[-1]
        chosen = self.bands is not None and self.bands.choice is not None and bands in self.bands.choice
        return (bands == 2 or bands >= 4) and self._info.alpha and not chosen

    @property
    def transparent(self) -> bool:
        return self._transparent or self._info.transparent

    def _of_chosen(self, geo: GeoTags | None) -> GeoTags | None:
        """The tags of a file for the bands of the result."""
        chosen = self.bands.choice if self.bands and not self._others else None
        return geo.of_bands(chosen) if geo and chosen else geo

    def alpha(self, index: int) -> np.ndarray | None:
        array, _ = self._measured(self.check_index(index))
        return array[..., -1:] if self._has_alpha(array) else None

    def holes(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        array, valid = self._measured(self.check_index(index), exact=True)
        if valid is None:
            return None
        chosen = self.band_map.choice if self.band_map else None
        return (array[..., chosen], valid[..., chosen]) if chosen else (colours(array), colours(valid))

    @property
    def size(self) -> tuple[int, int]:
        return self._info.size

    @property
    def bit_depth(self) -> int:
        stretched = self.band_map is not None and self.band_map.low is not None
        return 32 if stretched else self._info.bits

    @property
    def channels(self) -> int:
        if self.band_map:
            return len(self.band_map.choice)
        return 3 if self._coloured or self._info.bands > 2 else 1

    def examine(self) -> None:
        """Read every header: a frame of another size or depth raises InputError, and a clip with any colour (transparent) frame
        is colour (transparent), also if its first frame is not.
        """
        height, width = self.size
        for index, info in enumerate(self._headers()):
            if info.size != (height, width):
                raise InputError(
                    f"{self.source(index)}: {info.size[1]}x{info.size[0]} pixels, the clip's first frame has {width}x{height}; all "
                    "frames of a clip must have one size"
                )
            if info.bands != self._info.bands and max(info.bands, self._info.bands) > 4:
                raise InputError(f"{self.source(index)}: {_other_bands(info.bands, self._info.bands)}")
            if info.bits != self._info.bits:
                raise InputError(
                    f"{self.source(index)}: {info.bits} bits per value, the clip's first frame has {self._info.bits}; convert one "
                    "of them"
                )
            self._coloured |= info.bands >= 3
            self._transparent |= info.transparent

    @cached_property
    def band_map(self) -> BandMap | None:
        if self.bands is None:
            return None
        if self.bands.choice is None:
            self._check_colours(self._info.bands, self.source(0))
        return BandMap.fit(self.bands, self._known_values(), self._info.dtype, self.source(0))

    def _known_values(self) -> list[np.ndarray]:
        """(H, W, bands) of some frames, missing values NaN."""
        frames = []
        for index in range(0, len(self), max(len(self) // STRETCH_FRAMES, 1)):
            array, (_, valid) = self._checked(index), self._measured(index)
            frames.append(array if valid is None else np.where(valid, array.astype(np.float64), np.nan))
        return frames

    @property
    @abstractmethod
    def from_tiff(self) -> bool:
        """Whether the frames are TIFF files or pages, which may hold measured values."""

    @property
    def rgb(self) -> bool:
        return self._info.rgb

    @property
    def parts(self) -> Sequence[Clip]:
        return [self, *self._others]

    @property
    def colourless_bands(self) -> int:
        """Number of bands without transparency if these are neither grey nor RGB; else 0."""
        count = self._info.bands - self._info.transparent
        return count if count not in (1, 3) else 0

    def take_all_bands(self) -> None:
        """Make `parts` of all bands except transparency: groups of three, the rest one by one."""
        count, bands = self.colourless_bands, self.bands or Bands()
        threes = [(k, k + 1, k + 2) for k in range(1, count - 1, 3)]
        groups = [*threes, *((k,) for k in range(3 * len(threes) + 1, count + 1))]
        self._others = [copy(self) for _ in groups[1:]]
        for part, group in zip((self, *self._others), groups, strict=True):
            part.bands = replace(bands, choice=group)

    def stretch_by_default(self) -> str | None:
        """Stretch the values of TIFF files that do not fill the range of 8 or 16 bits, or 0 to 1, as scenes are. Returns a
        message if so.
        """
        choice = None if self.bands is None else self.bands.choice
        if self.bands not in (None, Bands(choice)) or self._info.bits == 8 or not self.from_tiff:
            return None
        chosen = self.band_map.choice if self.band_map else tuple(range(self.channels))  # without alpha
        if self._others:
            chosen = tuple(range(self.colourless_bands))
        frames = [frame[..., chosen] for frame in self._known_values()]
        frames = [frame for frame in frames if not np.isnan(frame).all()]  # without any measured value
        if not frames:
            return None
        low, high = min(map(np.nanmin, frames)), max(map(np.nanmax, frames))
        if high >= DARK if self._info.bits == 16 else fill_unit_range(frames):
            return None
        for part in (self, *self._others):
            part.bands = Bands(part.bands.choice if part.bands else None, percentiles=USUAL)
            part.__dict__.pop("band_map", None)  # cached without a stretch
        return (
            f"'{self.name}': {self._info.dtype} values of {low:g} to {high:g} are stretched for the network; results are in the "
            "units of the source (other limits: --limits, --percentiles)"
        )

    def array(self, index: int) -> np.ndarray:
        array = self._checked(self.check_index(index))
        if self.band_map is not None:
            return self.band_map.apply(array)
        if array.dtype == np.float32 and (array.min() < -1 or array.max() > 2):
            raise InputError(
                f"{self.source(index)}: its values run from {array.min():g} to {array.max():g}, expected 0 to 1; "
                "set a stretch (bands.percentiles or bands.limits)"
            )
        return array

    def _checked(self, index: int) -> np.ndarray:
        array = self._stored(index)
        info, source = self._info, self.source(index)
        height, width = info.size
        if array.shape[:2] != (height, width):
            raise InputError(
                f"{source}: {array.shape[1]}x{array.shape[0]} pixels, the clip's first frame has {width}x{height}; all "
                "frames of a clip must have one size"
            )
        bits = replace(info, dtype=array.dtype).bits
        if bits != info.bits:
            raise InputError(
                f"{source}: {bits} bits per value, the clip's first frame has {info.bits}; convert one of them"
            )
        if self.bands is None:
            self._check_colours(array.shape[-1], source)
        elif array.shape[-1] != info.bands:
            raise InputError(f"{source}: {_other_bands(array.shape[-1], info.bands)}")
        return array

    def _check_colours(self, bands: int, source: str) -> None:
        if bands > 4 or (bands == 4 and not self._info.alpha):
            raise InputError(
                f"{source}: has {bands} bands; choose one or three of them (for example bands.choice=[3,2,1])"
            )


def _other_bands(count: int, first: int) -> str:
    return f"has {count} band(s), the clip's first frame has {first}"


def file_identity(path: Path) -> str:
    """Changes whenever the file may have changed. InputError if it does not exist any more."""
    with named_errors(path, "a file"):
        status = path.stat()
    return f"{path.resolve()}|{status.st_mtime_ns}|{status.st_size}"
