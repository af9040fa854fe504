"""Whether a file ends in the middle of its content, from its structure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

BLOCK = 1 << 18  # bytes at both ends that are searched; packs of program streams and pages of Ogg are smaller
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
MOVIE_BOXES = (b"moov", b"moof", b"mdat")  # other bytes may follow the video
PROGRAM_CODE = re.compile(rb"\x00\x00\x01([\xb9-\xff])", re.DOTALL)  # codes of the system layer, not of MPEG-1/2 video


def breaks_off(path: Path, format: str, last: int) -> bool:
    """Whether the file is incomplete; False for formats that have no check here.

    format: FFmpeg's name.   last: position after the last packet.
    """
    check = CHECKS.get(format)
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if format.startswith("mov"):
            return any(end > size and kind in MOVIE_BOXES for kind, end in top_boxes(file))
        if check is None:
            return format == "yuv4mpegpipe" and last < size
        file.seek(0)
        head = file.read(BLOCK)
        file.seek(max(size - BLOCK, 0))
        return check(head, file.read(), size)


def top_boxes(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Kind and stated end of the boxes of an MP4 or MOV that are in no other box (ISO/IEC 14496-12), up to damaged ones."""
    position, size = 0, file.seek(0, 2)
    while position < size:
        file.seek(position)
        head = file.read(16)
        length, kind, used = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length == 1:
            length, used = int.from_bytes(head[8:16], "big"), 16
        length = size - position if length == 0 else length  # to the end of the file
        if len(head) < used or length < used:
            return
        position += length
        yield kind, position


def _transport(head: bytes, tail: bytes, size: int) -> bool:
    """ISO 13818-1: packets of 188 bytes that begin with 0x47, in .m2ts after 4 bytes, in broadcasts before 16."""
    strides = ((188, 188), (188, 192), (204, 204))  # (bytes from the last 0x47 to the end, bytes of a packet)
    return not any(tail[-end::-step][:5].strip(b"\x47") == b"" for end, step in strides)


def _program(head: bytes, tail: bytes, size: int) -> bool:
    """Packets state their length, except the header of a pack, which packets follow, and the end code."""
    found = list(PROGRAM_CODE.finditer(tail))
    if not found or found[-1][1] == b"\xb9":
        return False
    start = found[-1].start()
    return found[-1][1] == b"\xba" or start + 6 + int.from_bytes(tail[start + 4 : start + 6], "big") > len(tail)


def _ogg(head: bytes, tail: bytes, size: int) -> bool:
    """RFC 3533: 27 bytes, the number of segments last, the length of each segment, the segments."""
    start = tail.rfind(b"OggS")
    lengths = tail[start + 27 : start + 27 + tail[start + 26]] if start >= 0 and start + 27 <= len(tail) else None
    return lengths is None or start + 27 + tail[start + 26] + sum(lengths) > len(tail)


def _asf(head: bytes, tail: bytes, size: int) -> bool:
    start = head.find(ASF_PROPERTIES)
    return start >= 0 and int.from_bytes(head[start + 40 : start + 48], "little") > size


def _gif(head: bytes, tail: bytes, size: int) -> bool:
    return not tail.rstrip(b"\x00").endswith(b";")


def _png(head: bytes, tail: bytes, size: int) -> bool:
    return b"IEND\xaeB`\x82" not in tail


def _matroska(head: bytes, tail: bytes, size: int) -> bool:
    """RFC 8794: the header, then a segment whose size is a number of up to 8 bytes; all bits set: unknown (live streams)."""
    start = head.find(b"\x18\x53\x80\x67") + 4
    if start < 4 or start >= len(head):
        return False
    length = 9 - head[start].bit_length()
    stated = int.from_bytes(head[start : start + length], "big") & ((1 << 7 * length) - 1)
    return stated != (1 << 7 * length) - 1 and start + length + stated > size


def _riff(head: bytes, tail: bytes, size: int) -> bool:
    stated = int.from_bytes(head[4:8], "little")
    return head[:4] == b"RIFF" and 0 < stated < 0xFFFFFFFF and stated + 8 > size


def _jpegs(head: bytes, tail: bytes, size: int) -> bool:
    return not tail.rstrip(b"\x00").endswith(b"\xff\xd9")


def _dv(head: bytes, tail: bytes, size: int) -> bool:
    return size % 120_000 != 0 and size % 144_000 != 0  # frames of 60 and 50 fields a second


CHECKS: dict[str, Callable[[bytes, bytes, int], bool]] = {
    "mpegts": _transport,
    "mpeg": _program,
    "ogg": _ogg,
    "asf": _asf,
    "gif": _gif,
    "apng": _png,
    "dv": _dv,
    "matroska,webm": _matroska,
    "avi": _riff,
    "mjpeg": _jpegs,
}
