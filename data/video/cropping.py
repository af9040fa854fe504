"""Borders that a container asks players to cut off: PixelCrop of Matroska and WebM, clean aperture (`clap`) of MP4 and MOV.

FFmpeg's library reads them, but PyAV does not pass them on. Borders of the video stream itself are cut off by the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, NamedTuple

SEGMENT, TRACKS, TRACK, NUMBER, KIND, VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xD7, 0x83, 0xE0
CROPS = {0x54BB: "top", 0x54AA: "bottom", 0x54CC: "left", 0x54DD: "right"}
MASTERS = 1 << 20  # bytes of a Matroska track or an MP4 sample table's description that are read at most
SAMPLE_ENTRY = 86  # bytes of a video sample entry before its boxes
CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


class Border(NamedTuple):
    """Pixels to cut off, of a frame as stored."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """(H, W) without the border."""
        return stored[0] - self.top - self.bottom, stored[1] - self.left - self.right

    def cut(self, array: Any) -> Any:
        """(H, W, C) without the border."""
        height, width = array.shape[:2]
        return array[self.top : height - self.bottom, self.left : width - self.right]


def border_of(path: Path, container: Any, stream: Any) -> Border:
    """The border of a video stream; none for other containers, damaged headers, and borders that leave no picture."""
    videos = [
        other.index for other in container.streams.video if not int(other.disposition) & 0x400
    ]  # not cover pictures
    try:
        with path.open("rb") as file:
            if container.format.name.startswith("matroska"):
                borders = list(_matroska(file))
                found = borders[videos.index(stream.index)] if len(borders) == len(videos) else Border()
            elif container.format.name.startswith("mov"):
                size = (stream.codec_context.height, stream.codec_context.width)
                found = _clean_apertures(file, size).get(stream.id, Border())
            else:
                return Border()
    except (OSError, ValueError, IndexError, RecursionError):
        return Border()
    height, width = found.size((stream.codec_context.height, stream.codec_context.width))
    return found if min(found) >= 0 and min(height, width) > 0 else Border()


# --- Matroska ---------------------------------------------------------------------------------------------------------


def _matroska(file: IO[bytes]) -> Iterator[Border]:
    """The borders of all video tracks, in order."""
    end = file.seek(0, 2)
    for segment, stop in _elements(file, 0, end):
        if segment != SEGMENT:
            continue
        for kind, after in _elements(file, file.tell(), stop):
            if kind == TRACKS:
                start = file.tell()
                content = file.read(min(after - start, MASTERS))
                yield from _tracks(content)
                return


def _elements(file: IO[bytes], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Identifiers of the elements in a part of the file, and where each ends. The file is at the element's content."""
    while start < stop:
        file.seek(start)
        head = file.read(12)
        if len(head) < 2:
            return
        kind, used = _number(head, keep=True)
        size, more = _number(head[used:])
        begin = start + used + more
        unknown = size == (1 << 7 * more) - 1  # the writer did not know it: to the end
        after = stop if unknown else min(begin + size, stop)
        file.seek(begin)
        yield kind, after
        start = after


def _number(data: bytes, keep: bool = False) -> tuple[int, int]:
    """A number of variable length and its bytes. keep: with the leading bit, as identifiers are written."""
    length = 9 - data[0].bit_length()
    if length > 8 or len(data) < length:
        raise ValueError("not an EBML number")
    value = int.from_bytes(data[:length], "big")
    return (value if keep else value & ((1 << 7 * length) - 1)), length


def _children(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(data):
        head = data[place : place + 16]
        kind, used = _number(head, keep=True)
        size, more = _number(head[used:])
        begin = place + used + more
        yield kind, data[begin : begin + size]
        place = begin + size


def _tracks(data: bytes) -> Iterator[Border]:
    for kind, track in _children(data):
        fields = dict(_children(track)) if kind == TRACK else {}
        if int.from_bytes(fields.get(KIND, b""), "big") == 1:
            video = dict(_children(fields.get(VIDEO, b"")))
            yield Border(**{name: int.from_bytes(video.get(key, b""), "big") for key, name in CROPS.items()})


# --- MP4 and MOV ------------------------------------------------------------------------------------------------------


def _clean_apertures(file: IO[bytes], size: tuple[int, int]) -> dict[int, Border]:
    """Borders by track number. size: (H, W) of the frames."""
    found: dict[int, Border] = {}
    track = 0
    for kind, begin, stop in _boxes(file, 0, file.seek(0, 2)):
        file.seek(begin)
        if kind == b"tkhd":
            head = file.read(24)
            track = int.from_bytes(head[20:24] if head[0] == 1 else head[12:16], "big")
        elif kind == b"stsd":
            content = file.read(min(stop - begin, MASTERS))
            place = content.find(b"clap", 8 + SAMPLE_ENTRY) + 4
            if place >= 4 and int.from_bytes(content[place - 8 : place - 4], "big") == 40 and track not in found:
                found[track] = _aperture(content[place : place + 32], size)
    return found


def _boxes(file: IO[bytes], start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of the content of all boxes, also of those inside tracks."""
    while start + 8 <= stop:
        file.seek(start)
        head = file.read(16)
        size, kind, used = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1:
            size, used = int.from_bytes(head[8:16], "big"), 16
        after = stop if size == 0 else min(start + size, stop)
        if size and size < used:
            return
        yield kind, start + used, after
        if kind in CONTAINERS:
            yield from _boxes(file, start + used, after)
        start = after


def _aperture(content: bytes, size: tuple[int, int]) -> Border:
    """The border of a `clap` box (ISO/IEC 14496-12): width and height, and the offsets of the centre, as fractions."""
    values = [int.from_bytes(content[k : k + 4], "big", signed=k >= 16 and not k % 8) for k in range(0, 32, 4)]
    if len(content) < 32 or not all(values[1::2]):
        return Border()
    width, height, right, down = (Fraction(a, b) for a, b in zip(values[::2], values[1::2], strict=True))
    half = Fraction(1, 2)
    top = math.floor((size[0] - height) / 2 + down + half)
    left = math.floor((size[1] - width) / 2 + right + half)
    return Border(top, size[0] - top - round(height), left, size[1] - left - round(width))
