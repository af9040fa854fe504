"""Clips that are files: folders of images."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from data.clips.base import Clip
from data.media import IMAGE_SUFFIXES, ImageInfo, probe, read_image
from data.naming import natural_key
from errors import InputError


class FolderClip(Clip):
    """Image files as frames, in natural order of their names.

    Args:
        frames: a folder, or the list of files.   name: default the folder's name.   fps: frames per second if known.
        allow_gaps: take a clip whose frame numbers have gaps (otherwise an InputError names the gap).
    """

    def __init__(
        self,
        frames: str | Path | Sequence[str | Path],
        name: str | None = None,
        fps: float | None = None,
        allow_gaps: bool = False,
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
        self.fps = fps
        self.frame_names = [path.stem for path in self.paths]
        numbers = frame_numbers(self.frame_names)
        if numbers and not allow_gaps:
            _check_gaps(numbers, self.paths)
        counted = numbers or list(range(len(self.paths)))
        self.times = [(number - counted[0]) / fps if fps else float(number) for number in counted]

    @cached_property
    def _info(self) -> ImageInfo:
        return probe(self.paths[0])

    @property
    def size(self) -> tuple[int, int]:
        return self._info.size

    @property
    def bit_depth(self) -> int:
        return self._info.bits

    @property
    def channels(self) -> int:
        return 1 if self._info.bands <= 2 else 3

    def array(self, index: int) -> np.ndarray:
        path = self.paths[self.check_index(index)]
        array = read_image(path)
        _check_frame(array, self, str(path))
        return array

    def source(self, index: int) -> str:
        return str(self.paths[index])

    def identity(self, index: int) -> str:
        status = self.paths[index].stat()
        return f"{self.paths[index].resolve()}|{status.st_mtime_ns}|{status.st_size}"


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


def _check_gaps(numbers: list[int], paths: list[Path]) -> None:
    """Frame numbers rise by one constant step; anything else is a missing or a doubled frame."""
    steps = [after - before for before, after in pairwise(numbers)]
    step = min(steps, default=1)
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


def _check_frame(array: np.ndarray, clip: Clip, source: str) -> None:
    height, width = clip.size
    if array.shape[:2] != (height, width):
        raise InputError(
            f"{source}: {array.shape[1]}x{array.shape[0]} pixels, the clip's first frame has {width}x{height}; all "
            "frames of a clip must have one size"
        )
    bits = 32 if array.dtype == np.float32 else 8 * array.dtype.itemsize
    if bits != clip.bit_depth:
        raise InputError(
            f"{source}: {bits} bits per value, the clip's first frame has {clip.bit_depth}; convert one of them"
        )
