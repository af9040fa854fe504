"""Store the pixel shape of VP9 and FFV1 in Matroska and WebM, which PyAV cannot: in the header of the finished file.

FFmpeg's muxer takes the shape from a field of its stream that PyAV does not set; H.264 and H.265 store it themselves.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

VOID, TRACKS, TRACK, VIDEO = b"\xec", b"\x16\x54\xae\x6b", b"\xae", b"\xe0"
SEGMENT, INFO = b"\x18\x53\x80\x67", b"\x15\x49\xa9\x66"
UNIT_UNKNOWN, UNIT_PIXELS = b"\x54\xb2\x81\x04", b"\x54\xb2\x81\x00"
OPTIONS = {"write_crc32": "0"}  # of the muxer: checksums of the header would be wrong afterwards
HEAD = 1 << 16  # bytes; the first track is near the beginning


def set_pixel_shape(path: Path, size: tuple[int, int], aspect: Fraction) -> None:
    """Add DisplayWidth and DisplayHeight (RFC 9559) to the first track of a file that FFmpeg has written with `OPTIONS`.

    size: (H, W).   aspect: width of a pixel over its height. The bytes are taken from the void before them, so that nothing
    after the tracks moves.
    """
    height, width = size
    sizes = (round(width * aspect), height), (width, round(height / aspect))
    shown = min(
        sizes, key=lambda shown: abs(Fraction(shown[0] * height, shown[1] * width) - aspect)
    )  # in pixels, which are integers
    added = b"\x54\xb0\x84" + shown[0].to_bytes(4, "big") + b"\x54\xba\x84" + shown[1].to_bytes(4, "big")
    with path.open("r+b") as file:
        head = file.read(HEAD)
        segment, void = _find(head, SEGMENT, VOID)
        _, tracks, track, video = _find(head, SEGMENT, TRACKS, TRACK, VIDEO)
        content = head[video.content : video.end].replace(UNIT_UNKNOWN, UNIT_PIXELS) + added
        content = head[track.content : video.start] + _element(VIDEO, content) + head[video.end : track.end]
        content = head[tracks.content : track.start] + _element(TRACK, content) + head[track.end : tracks.end]
        longer = _element(TRACKS, content)
        more = len(longer) - (tracks.end - tracks.start)
        left = bytes(void.end - void.content - more)
        index = bytearray(head[segment.content : void.start])
        for name in (INFO, TRACKS):  # positions from the segment's content; they are below 256
            index[index.index(b"\x53\xab\x84" + name + b"\x53\xac\x81") + 10] -= more
        file.seek(segment.content)
        file.write(bytes(index) + VOID + _size(len(left), 8) + left + head[void.end : tracks.start] + longer)


class _Element(NamedTuple):
    """Positions in the file."""

    start: int
    content: int
    end: int


def _find(data: bytes, *names: bytes) -> list[_Element]:
    """The first element of each name, each inside the one before."""
    found: list[_Element] = []
    start, end = 0, len(data)
    for name in names:
        while True:
            field = start + 9 - data[start].bit_length()
            content = field + 9 - data[field].bit_length()
            size = int.from_bytes(data[field:content], "big") & ((1 << 7 * (content - field)) - 1)
            if data[start:field] == name:
                break
            start = content + size
            if start >= end:
                raise ValueError(f"no element {name.hex()}")
        found.append(_Element(start, content, content + size))
        start, end = content, min(content + size, len(data))
    return found


def _element(name: bytes, content: bytes) -> bytes:
    return name + _size(len(content), 1 if len(content) < 127 else 8) + content


def _size(value: int, length: int) -> bytes:
    """A number of `length` bytes with its marker bit (RFC 8794)."""
    return (value | 1 << 7 * length).to_bytes(length, "big")
