"""Metadata of a PNG: read from its chunks and written into them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from data.details import METRES_PER_INCH, Details, exif_orientation

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD = "XML:com.adobe.xmp"
COLOUR_CHUNKS = (b"cICP", b"gAMA", b"cHRM", b"sRGB")  # copied unchanged
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
LARGEST_TEXT = 2**24  # bytes of one text or profile; larger ones indicate a damaged file


def png_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of a PNG's chunks; the content of pixels (IDAT) is left empty."""
    file.seek(len(PNG_MAGIC))
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind == b"IDAT" or length > LARGEST_TEXT:
            file.seek(length, 1)
            yield kind, b""
        else:
            yield kind, file.read(length)
        if kind == b"IEND":
            return
        file.seek(4, 1)


def of_png(file: IO[bytes]) -> Details:
    """Details of a PNG, from its chunks; damaged chunks are left out."""
    found: dict[str, Any] = {}
    texts: list[tuple[str, str]] = []
    colours: list[tuple[bytes, bytes]] = []
    for kind, content in png_chunks(file):
        with suppress(ValueError, IndexError, struct.error, zlib.error):
            if kind in COLOUR_CHUNKS:
                colours.append((kind, content))
            elif kind == b"iCCP":
                found["profile"] = _inflated(content.split(b"\0", 1)[1][1:])
            elif kind == b"eXIf":
                found["exif"] = content
            elif kind == b"pHYs" and content[8:9] == b"\1":
                x, y = struct.unpack(">II", content[:8])
                found["dpi"] = (x * METRES_PER_INCH, y * METRES_PER_INCH) if x and y else None
            elif kind in TEXT_CHUNKS:
                key, value = _png_text(kind, content)
                if key == XMP_KEYWORD:
                    found["xmp"] = value.encode()
                else:
                    texts.append((key, value))
    return Details(**found, texts=tuple(texts), colours=tuple(colours))


def png_orientation(file: IO[bytes]) -> int:
    """The orientation in a PNG's eXIf chunk, which may be anywhere in the file; 1 where there is none."""
    return next((exif_orientation(content) for kind, content in png_chunks(file) if kind == b"eXIf"), 1)


def _inflated(content: bytes) -> bytes:
    return zlib.decompressobj().decompress(content, LARGEST_TEXT)


def _png_text(kind: bytes, content: bytes) -> tuple[str, str]:
    keyword, rest = content.split(b"\0", 1)
    if kind == b"tEXt":
        return keyword.decode("latin-1"), rest.decode("latin-1")
    if kind == b"zTXt":
        return keyword.decode("latin-1"), _inflated(rest[1:]).decode("latin-1")
    packed, (_, _, text) = rest[0], rest[2:].split(b"\0", 2)
    return keyword.decode("latin-1"), (_inflated(text) if packed else text).decode("utf-8")


def with_chunks(png: bytes, details: Details) -> bytes:
    """A PNG with the details in chunks behind its header."""
    end = len(PNG_MAGIC) + 25  # of IHDR
    return png[:end] + b"".join(_chunk(*one) for one in _new_chunks(details)) + png[end:]


def _new_chunks(details: Details) -> Iterator[tuple[bytes, bytes]]:
    yield from details.colours
    if details.profile:
        yield b"iCCP", b"ICC\0\0" + zlib.compress(details.profile)
    if details.dpi:
        x, y = (round(min(max(dots / METRES_PER_INCH, 1), 2**31 - 1)) for dots in details.dpi)
        yield b"pHYs", struct.pack(">IIB", x, y, 1)
    for key, value in details.texts:
        try:
            yield b"tEXt", key.encode("latin-1") + b"\0" + value.encode("latin-1")
        except UnicodeEncodeError:
            yield b"iTXt", key.encode("latin-1", "replace") + b"\0\0\0\0\0" + value.encode()
    if details.xmp:
        yield b"iTXt", XMP_KEYWORD.encode() + b"\0\0\0\0\0" + details.xmp
    if details.exif:
        yield b"eXIf", details.exif


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
