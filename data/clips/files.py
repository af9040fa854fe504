"""Clips of image files: folders of images and stacks of TIFF pages."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from data.bands import Bands
from data.clips.frame_names import alike, counted_frames, in_order, usual_step
from data.clips.stored import StoredClip, file_identity
from data.details import Details
from data.geo_tags import GeoTags
from data.media import (
    IMAGE_SUFFIXES,
    ImageInfo,
    holds_tiff,
    page_numbers,
    probe,
    probe_pages,
    read_details,
    read_geo,
    read_mask,
    read_measured,
)
from errors import InputError


class FolderClip(StoredClip):
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
            self.paths = in_order([Path(frame) for frame in frames])
            where = self.paths[0].parent if self.paths else Path("(empty list)")
        if not self.paths:
            raise InputError(f"{where}: no image files; expected frames as {', '.join(sorted(IMAGE_SUFFIXES))}")
        self.name = name or where.resolve().name
        self.fps, self.bands = fps, bands
        self.frame_names = [path.stem for path in self.paths]
        _check_names(self.paths)
        if isinstance(frames, str | Path) and not allow_gaps:
            _check_alike(where, self.paths)
        numbers = counted_frames(self.frame_names)
        if numbers and not allow_gaps:
            _check_gaps(numbers, self.paths)
        counted = numbers or list(range(len(self.paths)))
        step = usual_step(counted)
        self.times = [(number - counted[0]) / step / fps if fps else float(number) for number in counted]

    @cached_property
    def _info(self) -> ImageInfo:
        return probe(self.paths[0])

    def _headers(self) -> Iterator[ImageInfo]:
        return map(probe, self.paths)

    @property
    def from_tiff(self) -> bool:
        return holds_tiff(self.paths[0])

    def _measured(self, index: int, exact: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        return read_measured(self.paths[index], exact=exact)

    def mask(self, index: int) -> np.ndarray | None:
        return read_mask(self.paths[index])

    def geo(self, index: int) -> GeoTags | None:
        return self._of_chosen(read_geo(self.paths[index]))

    def details(self, index: int) -> Details:
        return read_details(self.paths[index])

    def file(self, index: int) -> Path | None:
        return self.paths[index]

    def source(self, index: int) -> str:
        return str(self.paths[index])

    def identity(self, index: int) -> str:
        return f"{file_identity(self.paths[index])}|{self.bands}"


class TiffStackClip(StoredClip):
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

    def _headers(self) -> list[ImageInfo]:
        return probe_pages(self.path)

    @property
    def from_tiff(self) -> bool:
        return True

    def _measured(self, index: int, exact: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        return read_measured(self.path, self._pages[index], exact)

    def mask(self, index: int) -> np.ndarray | None:
        return read_mask(self.path, self._pages[index])

    def geo(self, index: int) -> GeoTags | None:
        return self._of_chosen(read_geo(self.path, self._pages[index]) or read_geo(self.path))

    def details(self, index: int) -> Details:
        return read_details(self.path, self._pages[index])

    def file(self, index: int) -> Path | None:
        return self.path if len(self) == 1 else None

    def source(self, index: int) -> str:
        return f"{self.path} page {index}"

    def identity(self, index: int) -> str:
        return f"{file_identity(self.path)}|{index}|{self.bands}"


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
    return in_order([Path(folder) / name for name in names])


def _check_alike(folder: Path, paths: Sequence[Path]) -> None:
    """Reject other pictures and other series next to numbered frames, which would become frames between them."""
    series, others = alike([path.stem for path in paths])
    if series and len(series) + bool(others) > 1:
        other = paths[others[0] if others else series[1][0]].name
        raise InputError(
            f"{folder}: holds numbered frames ({paths[series[0][0]].name}, ...) and other pictures ({other}); move one of them "
            "into another folder, or set allow_gaps"
        )


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
    step = usual_step(numbers)
    for position, found in enumerate(steps):
        before, after = paths[position], paths[position + 1].name
        if found == 0:
            raise InputError(f"{before}: a second file for the same frame ({after}); remove one of them")
        if found != step:
            missing = max(round(found / step) - 1, 1)
            raise InputError(
                f"{before}: the next frame is {after}, {missing} frame(s) missing between them; add them, split the "
                "clip there, or set allow_gaps"
            )
