"""Clips read from files: folders of images, stacks of TIFF pages, videos."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from data import tiff
from data.bands import DARK, LEAST_RANGE, USUAL, BandMap, Bands
from data.clips.base import Clip
from data.details import Details
from data.media import IMAGE_SUFFIXES, ImageInfo, colours, page_numbers, probe, read_details, read_geo, read_measured
from data.naming import natural_key
from data.validity import filled
from data.video import VideoFile
from errors import InputError

STRETCH_FRAMES = 8  # number of frames used to compute percentiles


class _StoredClip(Clip):
    """Base class of image folders and TIFF stacks: checks each frame, selects and stretches bands."""

    bands: Bands | None

    @property
    @abstractmethod
    def _info(self) -> ImageInfo:
        """The first frame's header."""

    @abstractmethod
    def _measured(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """(H, W, bands) of the file, and where they are measured (None: everywhere)."""

    def _stored(self, index: int) -> np.ndarray:
        """(H, W, bands) of the file; missing values and colours of invisible pixels are those of the nearest other pixel."""
        array, valid = self._measured(index)
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
        return bands in (2, 4) and self._info.alpha and not chosen

    @property
    def transparent(self) -> bool:
        return self._info.alpha and self._info.bands in (2, 4)

    def alpha(self, index: int) -> np.ndarray | None:
        array, _ = self._measured(self.check_index(index))
        return array[..., -1:] if self._has_alpha(array) else None

    def holes(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        array, valid = self._measured(self.check_index(index))
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
        return len(self.band_map.choice) if self.band_map else 1 if self._info.bands <= 2 else 3

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
    def colourless_bands(self) -> int:
        """Number of bands if they are too many for grey or RGB with or without transparency; else 0."""
        info = self._info
        return info.bands if info.bands > 4 or (info.bands == 4 and not info.alpha) else 0

    def stretch_by_default(self) -> str | None:
        """Stretch the values of TIFF files that do not fill the range of 8 or 16 bits, or 0 to 1, as scenes are. Returns a
        message if so.
        """
        if self.bands is not None or self._info.bits == 8 or not self.from_tiff:
            return None
        frames = self._known_values()
        low, high = min(map(np.nanmin, frames)), max(map(np.nanmax, frames))
        filled = high >= DARK if self._info.bits == 16 else low >= -1 and high <= 2 and high - low >= LEAST_RANGE
        if not np.isfinite([low, high]).all() or filled:
            return None
        self.bands = Bands(percentiles=USUAL)
        self.__dict__.pop("band_map", None)  # cached without a stretch
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
        bits = {1: 8, 2: 16}.get(array.dtype.itemsize, 32)
        if bits != info.bits:
            raise InputError(
                f"{source}: {bits} bits per value, the clip's first frame has {info.bits}; convert one of them"
            )
        if self.bands is None:
            self._check_colours(array.shape[-1], source)
        elif array.shape[-1] != info.bands:
            raise InputError(f"{source}: has {array.shape[-1]} band(s), the clip's first frame has {info.bands}")
        return array

    def _check_colours(self, bands: int, source: str) -> None:
        if bands > 4 or (bands == 4 and not self._info.alpha):
            raise InputError(
                f"{source}: has {bands} bands; choose one or three of them (for example bands.choice=[3,2,1])"
            )


class FolderClip(_StoredClip):
    """Image files as frames, in natural order of their names.

    Args:
        frames: a folder, or the list of files.   name: default the folder's name.   fps: frames per second if known.
        allow_gaps: take a clip whose frame numbers have gaps (otherwise an InputError names the gap).
        bands: choice and stretch of bands (`data.bands`); stretched frames are float32.
    """

    def __init__(
        self,
        frames: str | Path | Sequence[str | Path],
        name: str | None = None,
        fps: float | None = None,
        allow_gaps: bool = False,
        bands: Bands | None = None,
    ) -> None:
        if isinstance(frames, str | Path):
            self.paths = image_files(frames)
            where = Path(frames)
        else:
            self.paths = sorted((Path(frame) for frame in frames), key=lambda path: natural_key(path.name))
            where = self.paths[0].parent if self.paths else Path("(empty list)")
        if not self.paths:
            raise InputError(f"{where}: no image files; expected frames as {', '.join(sorted(IMAGE_SUFFIXES))}")
        self.name = name or where.resolve().name
        self.fps, self.bands, self._coloured, self._transparent = fps, bands, False, False
        self.frame_names = [path.stem for path in self.paths]
        _check_names(self.paths)
        numbers = frame_numbers(self.frame_names)
        if numbers and not allow_gaps:
            _check_gaps(numbers, self.paths)
        counted = numbers or list(range(len(self.paths)))
        self.times = [(number - counted[0]) / fps if fps else float(number) for number in counted]

    @cached_property
    def _info(self) -> ImageInfo:
        return probe(self.paths[0])

    @property
    def channels(self) -> int:
        return 3 if self._coloured and self.band_map is None else super().channels

    @property
    def transparent(self) -> bool:
        return self._transparent or super().transparent

    def examine(self) -> None:
        """Read every header: a frame of another size or depth raises InputError, and a clip with any colour (transparent) frame
        is colour (transparent), also if its first frame is not.
        """
        height, width = self.size
        for path in self.paths:
            info = probe(path)
            if info.size != (height, width):
                raise InputError(
                    f"{path}: {info.size[1]}x{info.size[0]} pixels, the clip's first frame has {width}x{height}; all frames of "
                    "a clip must have one size"
                )
            if info.bits != self._info.bits:
                raise InputError(
                    f"{path}: {info.bits} bits per value, the clip's first frame has {self._info.bits}; convert one of them"
                )
            self._coloured |= info.bands >= 3
            self._transparent |= info.alpha and info.bands in (2, 4)

    @property
    def from_tiff(self) -> bool:
        return self.paths[0].suffix.lower() in (".tif", ".tiff")

    def _measured(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        return read_measured(self.paths[index])

    def geo(self, index: int) -> tiff.GeoTags | None:
        return read_geo(self.paths[index])

    def details(self, index: int) -> Details:
        return read_details(self.paths[index])

    def file(self, index: int) -> Path | None:
        return self.paths[index]

    def source(self, index: int) -> str:
        return str(self.paths[index])

    def identity(self, index: int) -> str:
        return f"{_identity(self.paths[index])}|{self.bands}"


class TiffStackClip(_StoredClip):
    """The pages of one TIFF file as frames.

    bands: choice and stretch of bands (`data.bands`); stretched frames are float32.
    """

    def __init__(
        self, path: str | Path, name: str | None = None, fps: float | None = None, bands: Bands | None = None
    ) -> None:
        self.path, self.fps, self.bands = Path(path), fps, bands
        self.name = name or self.path.stem
        self._pages = page_numbers(self.path)
        self.frame_names = [f"{page:08d}" for page in range(len(self._pages))]
        self.times = [page / fps if fps else float(page) for page in range(len(self._pages))]

    @cached_property
    def _info(self) -> ImageInfo:
        return probe(self.path)

    @property
    def from_tiff(self) -> bool:
        return True

    def _measured(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        return read_measured(self.path, self._pages[index])

    def geo(self, index: int) -> tiff.GeoTags | None:
        return read_geo(self.path, self._pages[index]) or read_geo(self.path)

    def details(self, index: int) -> Details:
        return read_details(self.path, self._pages[index])

    def source(self, index: int) -> str:
        return f"{self.path} page {index}"

    def identity(self, index: int) -> str:
        return f"{_identity(self.path)}|{index}|{self.bands}"


class VideoClip(Clip):
    """The frames of a video. Names are frame numbers, times are exact, colours and rotation follow the file's tags.

    fps: frames per second, in place of the file's times.   quick, strict, deinterlace: as in `data.video.VideoFile`.
    retimed: whether `fps` changes the speed, so that the sound no longer fits.
    """

    def __init__(
        self,
        path: str | Path,
        name: str | None = None,
        fps: float | None = None,
        quick: bool = False,
        strict: bool = False,
        deinterlace: bool = True,
    ) -> None:
        self.video = VideoFile(path, quick, strict, deinterlace)
        self.name = name or Path(path).stem
        own = float(self.video.info.fps)
        self.fps, self.retimed = fps or own, bool(fps) and abs((fps or own) / own - 1) > 1e-4
        self.frame_names = [f"{index:08d}" for index in range(len(self.video))]
        self.times = [index / self.fps for index in range(len(self.video))] if fps else self.video.times

    @property
    def size(self) -> tuple[int, int]:
        return self.video.info.size

    @property
    def bit_depth(self) -> int:
        return self.video.info.bits

    @property
    def channels(self) -> int:
        return self.video.info.channels

    def array(self, index: int) -> np.ndarray:
        return self.video.array(self.check_index(index))

    def source(self, index: int) -> str:
        return f"{self.video.path} frame {index}"

    def identity(self, index: int) -> str:
        return f"{_identity(self.video.path)}|{self.video.deinterlace}|{index}"


def _identity(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()}|{status.st_mtime_ns}|{status.st_size}"


# --- folders and names ------------------------------------------------------------------------------------------------


def image_files(folder: str | Path) -> list[Path]:
    """Image files of a folder (hidden ones left out), in natural order. InputError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            names = [
                e.name for e in entries if not e.name.startswith(".") and Path(e.name).suffix.lower() in IMAGE_SUFFIXES
            ]
    except FileNotFoundError:
        raise InputError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise InputError(f"{folder}: is a file, expected a folder of frames") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from None
    return [Path(folder) / name for name in sorted(names, key=natural_key)]


def frame_numbers(names: Sequence[str]) -> list[int] | None:
    """The number at the end of each name; None if the names differ in anything else or have no number."""
    matches = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    parts = [(match[1], match[3]) for match in matches if match]
    if len(parts) != len(names) or len(set(parts)) != 1:
        return None
    return [int(match[2]) for match in matches if match]


def _check_names(paths: Sequence[Path]) -> None:
    """Reject files with the same stem (left.png, left.jpg): both would be the same frame."""
    seen: dict[str, Path] = {}
    for path in paths:
        if path.stem in seen:
            raise InputError(f"{seen[path.stem]}: a second file for the same frame ({path.name}); remove one of them")
        seen[path.stem] = path


def _check_gaps(numbers: list[int], paths: list[Path]) -> None:
    """Check that frame numbers rise by a constant step; any other step means a missing or duplicate frame."""
    steps = [after - before for before, after in pairwise(numbers)]
    step = min((step for step in steps if step > 0), default=1)
    for position, found in enumerate(steps):
        before, after = paths[position], paths[position + 1].name
        if found == 0:
            raise InputError(f"{before}: a second file for the same frame ({after}); remove one of them")
        if found != step:
            missing = found // step - 1
            raise InputError(
                f"{before}: the next frame is {after}, {missing} frame(s) missing between them; add them, split the "
                "clip there, or set allow_gaps"
            )
