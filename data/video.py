"""Reading films through PyAV (FFmpeg): any frame by its number, in RGB, upright, with its exact time.

Only packets are read to find the frames' times; pictures are decoded when asked for and a few are kept, never the film.
Colours: the matrix and the range that the stream names; where it names none, BT.709 above 576 lines and BT.601 below,
as players do, and studio range for YUV. Depths above 8 bits become uint16 that fill 0..65535.
"""

from __future__ import annotations

import gc
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from errors import InputError

KEPT_FRAMES = 12  # decoded frames at hand: a window of 7 that slides costs one decode a frame
THREADS = 4
# FFmpeg's numbers (plain ones: PyAV names all of them in its newest releases only). YUV matrix of a stream -> the one that
# the scaler takes: BT.709, FCC, BT.601 (two names), SMPTE 240M, BT.2020 (two names).
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
STUDIO, FULL = 1, 2  # ranges: 16..235 and 0..255
FINE = 4 | 8192 | 262144  # bicubic, chroma interpolated at full width, accurate rounding


@dataclass(frozen=True)
class VideoInfo:
    """What the stream says, as the frames come out of `VideoFile` (upright).

    size: (H, W).   bits: per value.   channels: 1 or 3.   fps: mean rate.   matrix: FFmpeg's number of the YUV matrix.
    sample_aspect: width of a pixel over its height.   time_base: seconds per unit of time in the file.
    """

    size: tuple[int, int]
    bits: int
    channels: int
    fps: Fraction
    matrix: int
    full_range: bool
    is_yuv: bool
    sample_aspect: Fraction
    time_base: Fraction
    codec: str


class VideoFile:
    """Random access to the frames of the first video stream of a file.

    times: seconds from the first frame, one per frame (constant or variable rate).
    start: the first frame's time in the file, against which sound is placed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle: tuple[int, Any] | None = None  # (process id, container)
        self._left: list[Any] = []  # the parent's container after a fork: freeing it would wait for threads not there
        self._decoder: Iterator[Any] | None = None
        self._next = 0
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        with self._naming():
            self._pts, self._keys = self._scan()
            if not self._pts:
                raise InputError(f"{path}: holds no video frames")
            self._number = {pts: number for number, pts in enumerate(self._pts)}
            self.info = self._describe()
            self._close()  # a data set has thousands of films: files stay open only while they are read
        base = self.info.time_base
        self.start = float(self._pts[0] * base)
        self.times = [float((pts - self._pts[0]) * base) for pts in self._pts]

    def __len__(self) -> int:
        return len(self._pts)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_decoder": None, "_left": [], "_kept": OrderedDict()}

    def array(self, index: int) -> np.ndarray:
        """(H, W, C) uint8 or uint16, RGB or gray, upright. InputError where the frame is damaged."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        with self._naming():
            frame = self._find(index)
            array = _to_array(frame, self.info)
        self._kept[index] = array
        while len(self._kept) > KEPT_FRAMES:
            self._kept.popitem(last=False)
        return array

    # --- finding frames ---

    def _scan(self) -> tuple[list[int], list[int]]:
        """Presentation times of all frames in order and the numbers of those that decoding can begin at."""
        container, stream = self._open()
        found = [(p.pts, p.is_keyframe) for p in container.demux(stream) if p.size and not p.is_discard]
        if not found or any(pts is None for pts, _ in found) or len({pts for pts, _ in found}) < len(found):
            found = self._scan_by_decoding()
        found.sort()
        return [pts for pts, _ in found], [number for number, (_, key) in enumerate(found) if key]

    def _scan_by_decoding(self) -> list[tuple[int, bool]]:
        """For streams whose packets carry no times or share them (raw streams, some AVI): what the decoder says."""
        self._close()
        container, stream = self._open()
        found: list[tuple[int, bool]] = []
        for frame in container.decode(stream):
            if frame.pts is None:
                raise InputError(f"{self.path}: its frames carry no times; put it into a container first (mp4, mkv)")
            found.append((frame.pts, bool(frame.key_frame)))
        return found

    def _open(self) -> tuple[Any, Any]:
        if self._handle is None or self._handle[0] != os.getpid():
            _spare_inherited_decoders()
            container = av.open(str(self.path))
            if not container.streams.video:
                raise InputError(f"{self.path}: holds no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_type = "AUTO"
            stream.codec_context.thread_count = min(THREADS, os.cpu_count() or 1)
            self._left += [self._handle, self._decoder] if self._handle else []
            self._handle, self._decoder = (os.getpid(), container), None
        container = self._handle[1]
        return container, container.streams.video[0]

    def _find(self, index: int) -> Any:
        """Decode on if the frame comes soon, else jump to the key frame before it; from the start if that fails."""
        self._open()
        keys_before = bisect_right(self._keys, index)
        key = self._keys[keys_before - 1] if keys_before else 0
        if self._decoder is None or index < self._next or key > self._next:
            self._seek(key)
        frame = self._advance(index)
        if frame is None:
            self._seek(0)
            frame = self._advance(index)
        if frame is None:
            raise InputError(f"{self.path}: frame {index} cannot be decoded; the file is damaged there, mend or cut it")
        return frame

    def _close(self) -> None:
        if self._handle and self._handle[0] == os.getpid():
            self._decoder = None
            self._handle[1].close()
            self._handle = None

    def _seek(self, number: int) -> None:
        self._close()  # a decoder that met the end or an error cannot go on
        container, stream = self._open()
        if number > 0:
            container.seek(self._pts[number], stream=stream, backward=True)
        self._decoder = container.decode(stream)
        self._next = number

    def _advance(self, index: int) -> Any | None:
        """Decode until frame `index`; None if the stream passes it by. Frames on the way are not converted."""
        assert self._decoder is not None
        try:
            for frame in self._decoder:
                number = self._number.get(frame.pts, -1)
                if number >= index:
                    self._next = number + 1
                    return self._sound(frame, index) if number == index else None
        except av.error.FFmpegError:
            pass
        self._decoder = None
        return None

    def _sound(self, frame: Any, index: int) -> Any:
        if frame.is_corrupt:
            raise InputError(f"{self.path}: frame {index} is damaged; mend or cut the file")
        return frame

    # --- describing ---

    def _describe(self) -> VideoInfo:
        frame = self._find(0)
        _, stream = self._open()
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            span = (self._pts[-1] - self._pts[0]) * stream.time_base
            rate = Fraction(len(self._pts) - 1) / span if span else Fraction(25)
        upright = (frame.height, frame.width)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        if _quarter_turns(frame) % 2:
            upright, aspect = upright[::-1], 1 / aspect
        return VideoInfo(
            size=upright,
            bits=max(component.bits for component in frame.format.components),
            channels=1 if frame.format.name.startswith("gray") else 3,
            fps=Fraction(rate),
            matrix=_matrix(frame),
            full_range=_full_range(frame),
            is_yuv=_is_yuv(frame),
            sample_aspect=aspect,
            time_base=Fraction(stream.time_base),
            codec=stream.codec_context.name,
        )

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """FFmpeg's complaints as one line that names the file."""
        try:
            yield
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file") from None
        except Exception as error:
            reason = getattr(error, "strerror", None) or str(error).split("\n")[0] or type(error).__name__
            raise InputError(
                f"{self.path}: cannot be read as a video ({reason}); it is damaged or of another kind"
            ) from error


# --- colours ----------------------------------------------------------------------------------------------------------


@cache
def _spare_inherited_decoders() -> None:
    """Let no forked process collect what it inherits: freeing a decoder waits for its threads, and those were not forked.

    (A file that is still open is kept by `_left`; this is for those that wait in a reference cycle, after an exception say.)
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=gc.freeze)


def _is_yuv(frame: Any) -> bool:
    return not frame.format.is_rgb and not frame.format.name.startswith(("gray", "mono", "pal"))


def _matrix(frame: Any) -> int:
    named = int(frame.colorspace)
    return named if named in MATRICES else 1 if frame.height > 576 else 5


def _full_range(frame: Any) -> bool:
    if not _is_yuv(frame):
        return int(frame.color_range) != STUDIO
    return frame.format.name.startswith("yuvj") or int(frame.color_range) == FULL


def _quarter_turns(frame: Any) -> int:
    """Counter-clockwise turns by 90 degrees that the file's display matrix asks for."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def _to_array(frame: Any, info: VideoInfo) -> np.ndarray:
    deep = info.bits > 8
    name = ("gray16le" if deep else "gray") if info.channels == 1 else ("rgb48le" if deep else "rgb24")
    if frame.format.name != name:
        frame = frame.reformat(
            format=name,
            src_colorspace=MATRICES[info.matrix],
            src_color_range=FULL if info.full_range else STUDIO,
            dst_color_range=FULL,
            interpolation=FINE,
        )
    array = frame.to_ndarray()
    array = array[..., None] if array.ndim == 2 else array
    if (frame_size := array.shape[:2]) != info.size and frame_size[::-1] != info.size:
        raise InputError(
            f"its frames change from {info.size[1]}x{info.size[0]} to {frame_size[1]}x{frame_size[0]} pixels"
        )
    return np.ascontiguousarray(np.rot90(array, _quarter_turns(frame)))
