"""Clips of image files: folders of images and stacks of TIFF pages; names and numbers of frames."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from data.bands import Bands
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
    read_measured,
)
from data.naming import natural_key
from errors import InputError

DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{4}(?:\d\d)?)?")  # YYYYMMDD, HHMM, SS


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
        counts = not are_dates(self.frame_names) and not are_decimals(self.frame_names)
        numbers = frame_numbers(self.frame_names) if counts else None
        if numbers and not allow_gaps:
            _check_gaps(numbers, self.paths)
        counted = numbers or list(range(len(self.paths)))
        self.times = [(number - counted[0]) / fps if fps else float(number) for number in counted]

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


def in_order(paths: list[Path]) -> list[Path]:
    """Frames in natural order (2 before 10), or by their value if their names are decimals (0.25 before 0.5)."""
    paths = sorted(paths, key=lambda path: natural_key(path.name))
    if not are_decimals([path.stem for path in paths]):
        return paths
    return sorted(paths, key=lambda path: float(_decimal(path.stem)[1]))


def are_decimals(names: Sequence[str]) -> bool:
    """Whether names in natural order are decimals, such as times in seconds, whose natural order is wrong: 1.5 before 1.25.

    Numbers of scene and frame (1.9, 1.10, 1.11) are not: they count in equal steps, or have a 10 or 100 where they get longer.
    """
    found = [_decimal(name) for name in names]
    fractions = [number.partition(".")[2] for _, number, _ in found]
    if (
        not all(fractions)
        or len({(before, after) for before, _, after in found}) > 1
        or len(set(map(len, fractions))) < 2
    ):
        return False
    counted = any(len(part) > 1 and part.endswith("0") for part in fractions)
    return not counted and (len(names) < 3 or not _regular(names))


def _decimal(name: str) -> tuple[str, str, str]:
    """What is before the decimal number of a name, the number ("" without one), and what is after it."""
    match = re.fullmatch(r"(\D*)(\d+\.\d+)(\D*)", name)
    return (match[1], match[2], match[3]) if match else (name, "", "")


def frame_numbers(names: Sequence[str]) -> list[int] | None:
    """The number at the end of each name; None if the names differ in anything else or have no number."""
    digits = _last_digits(names)
    return None if digits is None else [int(number) for number in digits]


def are_dates(names: Sequence[str]) -> bool:
    """Whether the numbers at the end of the names are dates, with or without time: they rise by any steps."""
    digits = _last_digits(names)
    return bool(digits) and all(DATE.fullmatch(number) for number in digits or ())


def without_numbers(name: str) -> str:
    """The name with # for each of its numbers, in lower case: the same for all frames of a series."""
    return re.sub(r"\d+", "#", name.lower())


def alike(names: Sequence[str]) -> tuple[list[list[int]], list[int]]:
    """Indices of names by series of numbered frames, whose names differ in numbers only, and of all others."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(without_numbers(name), []).append(index)
    series = [group for group in groups.values() if len(group) > 1 and _regular([names[index] for index in group])]
    return series, sorted(index for group in groups.values() if group not in series for index in group)


def _regular(names: Sequence[str]) -> bool:
    """Whether at least half of the names are numbered in equal steps."""
    numbers = frame_numbers(names)
    steps = [after - before for before, after in pairwise(numbers)] if numbers else []
    return bool(steps) and 2 * steps.count(min(steps)) >= len(steps)


def _check_alike(folder: Path, paths: Sequence[Path]) -> None:
    """Reject other pictures and other series next to numbered frames, which would become frames between them."""
    series, others = alike([path.stem for path in paths])
    if series and len(series) + bool(others) > 1:
        other = paths[others[0] if others else series[1][0]].name
        raise InputError(
            f"{folder}: holds numbered frames ({paths[series[0][0]].name}, ...) and other pictures ({other}); move one of them "
            "into another folder, or set allow_gaps"
        )


def _last_digits(names: Sequence[str]) -> list[str] | None:
    matches = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    parts = [(match[1], match[3]) for match in matches if match]
    if len(parts) != len(names) or len(set(parts)) != 1:
        return None
    return [match[2] for match in matches if match]


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
