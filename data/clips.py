"""What a clip is: frames in order, read one by one when asked, with a name, a size, times and a bit depth.

One clip object serves training, evaluation and upscaling. Nothing is decoded before it is asked for, and no clip holds
more than a few frames, however long the film.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.degrade import Degradation
from data.media import IMAGE_SUFFIXES, ImageInfo, probe, read_image, rgb, to_tensor
from data.naming import natural_key
from errors import InputError

PADDINGS = ("reflect", "replicate", "circular")


def neighbours(index: int, frames: int, length: int, padding: str = "reflect") -> list[int]:
    """Frame numbers of the window of `frames` (odd) around `index` in a clip of `length` frames.

    Beyond the ends: "reflect" mirrors without repeating the end frame, "circular" goes round, "replicate" takes the
    centre frame itself (as the published MTDO does).
    """
    if padding not in PADDINGS:
        raise InputError(f"padding is {padding!r}: expected one of {', '.join(PADDINGS)}")
    around = range(index - frames // 2, index - frames // 2 + frames)
    if padding == "circular":
        return [k % length for k in around]
    if padding == "replicate":
        return [k if 0 <= k < length else index for k in around]
    period = max(2 * (length - 1), 1)
    return [min(k % period, period - k % period) if length > 1 else 0 for k in around]


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

    @abstractmethod
    def array(self, index: int) -> np.ndarray:
        """(H, W, C) as stored: uint8, uint16 (full range) or float32, RGB order. May be a read-only view."""

    @abstractmethod
    def source(self, index: int) -> str:
        """Names the frame for the user: its path, or file and number."""

    def identity(self, index: int) -> str:
        """Changes whenever the frame's content may have changed; names cached frames."""
        return f"{self.source(index)}"

    def frame(self, index: int) -> Tensor:
        """(3, H, W) float32 in [0, 1]."""
        return to_tensor(self.array(index))

    def window(self, index: int, frames: int, padding: str = "reflect") -> Tensor:
        """(frames, 3, H, W) float32 in [0, 1] around `index`; `padding` as in `neighbours`."""
        numbers = neighbours(index, frames, len(self), padding)
        read = {number: self.frame(number) for number in sorted(set(numbers))}
        return torch.stack([read[number] for number in numbers])

    def _check_index(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {self.name} has {len(self)} frames, no frame {index}")
        return index % len(self)


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

    def array(self, index: int) -> np.ndarray:
        path = self.paths[self._check_index(index)]
        array = read_image(path)
        _check_frame(array, self, str(path))
        return array

    def source(self, index: int) -> str:
        return str(self.paths[index])

    def identity(self, index: int) -> str:
        status = self.paths[index].stat()
        return f"{self.paths[index].resolve()}|{status.st_mtime_ns}|{status.st_size}"


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

    def array(self, index: int) -> np.ndarray:
        return self.frames[self._check_index(index)]

    def source(self, index: int) -> str:
        return f"{self.name} frame {self.frame_names[index]}"


class _Derived(Clip):
    """A clip made from another one; everything but what a subclass changes is that of the original."""

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

    def array(self, index: int) -> np.ndarray:
        return self.clip.array(index)

    def source(self, index: int) -> str:
        return self.clip.source(index)

    def identity(self, index: int) -> str:
        return self.clip.identity(index)


class SubClip(_Derived):
    """Some frames of a clip, in the order of `indices`."""

    def __init__(self, clip: Clip, indices: Sequence[int], name: str | None = None) -> None:
        super().__init__(clip, name)
        if not len(indices):
            raise InputError(f"clip {self.name}: no frames chosen")
        self.indices = [clip._check_index(index) for index in indices]
        self.frame_names = [clip.frame_names[index] for index in self.indices]
        self.times = [clip.times[index] for index in self.indices]

    def array(self, index: int) -> np.ndarray:
        return self.clip.array(self.indices[index])

    def source(self, index: int) -> str:
        return self.clip.source(self.indices[index])

    def identity(self, index: int) -> str:
        return self.clip.identity(self.indices[index])


class CroppedClip(_Derived):
    """The upper left part of a clip whose height and width are multiples of `multiple` (an integer scale)."""

    def __init__(self, clip: Clip, multiple: int) -> None:
        super().__init__(clip)
        self.multiple = multiple

    @cached_property
    def _size(self) -> tuple[int, int]:
        height, width = self.clip.size
        if min(height, width) < self.multiple:
            raise InputError(f"{self.source(0)}: {width}x{height} is too small for scale {self.multiple}")
        return height - height % self.multiple, width - width % self.multiple

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    def array(self, index: int) -> np.ndarray:
        return self.clip.array(index)[: self._size[0], : self._size[1]]

    def identity(self, index: int) -> str:
        return f"{self.clip.identity(index)}|multiple of {self.multiple}"


class DegradedClip(_Derived):
    """Low resolution made from ground truth when it is read; `data.degrade.Degradation` says how.

    The bit depth is that of `degradation.bits`, or the ground truth's where that is None.
    """

    def __init__(self, clip: Clip, degradation: Degradation, scale: float) -> None:
        super().__init__(clip)
        self.scale = scale
        self._asked = degradation

    @cached_property
    def degradation(self) -> Degradation:
        return self._asked.for_depth(self.clip.bit_depth)

    @cached_property
    def _size(self) -> tuple[int, int]:
        return self._asked.size(*self.clip.size, self.scale)

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    @property
    def bit_depth(self) -> int:
        return self.degradation.bits or 32

    def array(self, index: int) -> np.ndarray:
        array = self.clip.array(index)
        colours = array[..., :1] if array.shape[-1] <= 2 else rgb(array)
        return self.degradation.array(colours, self.scale, name=self.name, index=index, size=self._size)

    def source(self, index: int) -> str:
        return f"{self.clip.source(index)} (degraded x{self.scale:g})"

    def identity(self, index: int) -> str:
        return f"{self.clip.identity(index)}|{self.degradation}|{self.scale}|{self.name}|{index}"


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
            f"{source}: {array.shape[1]}x{array.shape[0]} pixels, the clip's first frame has {width}x{height}; all frames "
            "of a clip must have one size"
        )
    bits = 32 if array.dtype == np.float32 else 8 * array.dtype.itemsize
    if bits != clip.bit_depth:
        raise InputError(
            f"{source}: {bits} bits per value, the clip's first frame has {clip.bit_depth}; convert one of them"
        )
