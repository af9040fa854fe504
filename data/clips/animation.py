"""The frames of an animated WebP, which FFmpeg does not decode, with the times in the file."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import ImageOps

from data.clips.stored import StoredClip, file_identity
from data.decoders import ImageInfo, open_pillow
from data.details import Details
from data.media import probe, read_details
from errors import InputError

STILL = 0.1  # seconds for which browsers show a frame whose duration is stored as 0
KEPT = 16  # decoded frames in memory: the decoder starts at the first frame for each step back


class Frame(NamedTuple):
    """Header of one frame: milliseconds for which it is shown, and whether its pixels are compressed with losses."""

    duration: int
    lossy: bool


class WebPClip(StoredClip):
    """An animated WebP. Frames are complete pictures, RGB of uint8, or RGBA if any frame has transparent pixels.

    fps: frames per second, in place of the file's times.   last_shown: duration of the last frame in seconds.
    All frames are decoded once, so that damage is an InputError before any work.
    """

    bands = None

    def __init__(self, path: str | Path, name: str | None = None, fps: float | None = None) -> None:
        self.path, self.name = Path(path), name or Path(path).stem
        self._headers_of_frames = frame_headers(self.path)
        count = len(self._headers_of_frames)
        if count != self._info.pages:
            raise InputError(f"{self.path}: cannot be read as an animation; it is damaged or cut short")
        shown = [1 / fps if fps else header.duration / 1000 or STILL for header in self._headers_of_frames]
        ends = list(accumulate(shown))
        self.times, self.last_shown = [0.0, *(round(end, 9) for end in ends[:-1])], shown[-1]
        self.fps = fps or count / ends[-1]
        self.frame_names = [f"{index:08d}" for index in range(count)]
        self._decoder = _Decoder(self.path)
        self._opaque = self._info.bands != 4 or all(
            (self._decoder.frame(index)[..., 3] == 255).all() for index in range(count)
        )

    @cached_property
    def _info(self) -> ImageInfo:
        return probe(self.path)

    @property
    def transparent(self) -> bool:
        return not self._opaque

    def _headers(self) -> list[ImageInfo]:
        return [self._info]  # all frames have the size of the canvas

    def _measured(self, index: int, exact: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        frame = self._decoder.frame(index)
        return frame[..., :3] if self._opaque else frame, None

    @property
    def lossy(self) -> bool:
        """Whether any frame is compressed with losses."""
        return any(header.lossy for header in self._headers_of_frames)

    @property
    def from_tiff(self) -> bool:
        return False

    def details(self, index: int) -> Details:
        return read_details(self.path)

    def source(self, index: int) -> str:
        return f"{self.path} frame {index}"

    def identity(self, index: int) -> str:
        return f"{file_identity(self.path)}|{index}"


class _Decoder:
    """Decodes frames in any order; steps forward are fast. Threads and copies of a clip can use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._image: Any = None
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def __deepcopy__(self, memo: object) -> _Decoder:
        return _Decoder(self._path)

    def __reduce__(self) -> tuple[type[_Decoder], tuple[Path]]:
        return _Decoder, (self._path,)

    def frame(self, index: int) -> np.ndarray:
        with self._lock:
            if index not in self._kept:
                self._kept[index] = self._decoded(index)
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return self._kept[index]

    def _decoded(self, index: int) -> np.ndarray:
        try:
            if self._image is None:
                self._image = open_pillow(self._path)
            self._image.seek(index)
            self._image.load()
            upright = ImageOps.exif_transpose(self._image)
            return np.asarray(upright.convert("RGBA" if upright.mode == "RGBA" else "RGB"))
        except Exception as error:  # Pillow has no common class of errors
            self._image = None
            raise InputError(f"{self._path} frame {index}: cannot be decoded ({error}); the file is damaged") from error


def is_animated_webp(path: Path) -> bool:
    """Whether a file of any name begins like an animated WebP. False for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(21)
    except OSError:
        return False
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:21] and head[20] & 2)


def frame_headers(path: Path) -> list[Frame]:
    """The headers of all frames that are complete (chunks ANMF)."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(12)
        return list(_frames(file, end))


def _frames(file: IO[bytes], end: int) -> Iterator[Frame]:
    while len(header := file.read(8)) == 8:
        kind, length, start = header[:4], int.from_bytes(header[4:], "little"), file.tell()
        if start + length > end:
            return
        if kind == b"ANMF":  # position, size, duration and flags, then the chunks of the picture
            head = file.read(24)
            if head[16:20] == b"ALPH":
                file.seek(int.from_bytes(head[20:24], "little") + (head[20] & 1), 1)
                head = head[:16] + file.read(4)
            yield Frame(int.from_bytes(head[12:15], "little"), head[16:20] == b"VP8 ")
        file.seek(start + length + (length & 1))
