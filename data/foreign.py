"""Recognise files that are not read by their first bytes, whatever their names say, so that messages name the kind of file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

HEAD = 1 << 20  # bytes in which the header of a JPEG's frame is looked for
BRANDS = {
    b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"heim": "HEIC", b"mif1": "HEIF",
    b"msf1": "HEIF", b"crx ": "Canon raw",
}  # fmt: skip
BEGINNINGS = {
    b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL", b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop", b"v/1\x01": "OpenEXR", b"#?RADIANCE": "Radiance HDR", b"DDS ": "DDS", b"\0\0\1\0": "icon",
    b"P7\n": "PAM", b"Pf\n": "PFM", b"PF\n": "PFM", b"qoif": "QOI", b"%PDF": "PDF", b"%!PS": "PostScript", b"gimp xcf": "GIMP",
    b"\x1aE\xdf\xa3": "Matroska or WebM", b"FLV": "Flash video", b"OggS": "Ogg", b"PK\x03\x04": "ZIP", b"\x1f\x8b": "gzip",
    b"\x93NUMPY": "NumPy", b"\x89HDF": "HDF5", b"CDF\x01": "NetCDF", b"CDF\x02": "NetCDF", b"SIMPLE  =": "FITS", b"GRIB": "GRIB",
    b"version https://git-lfs": "Git LFS pointer, not downloaded", b"MATLAB 5.0 MAT-file": "MATLAB", b"ZISRAWFILE": "Zeiss CZI",
    b"NITF": "NITF", b"SQLite format 3": "SQLite or GeoPackage", b"7z\xbc\xaf'\x1c": "7z", b"Rar!": "RAR", b"ID3": "MP3",
    b"\x89PNG": "PNG", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"GIF8": "GIF",
}  # fmt: skip
MARKUP = {
    b"<!doctype html": "web page",
    b"<html": "web page",
    b"<svg": "SVG",
    b"<vrtdataset": "GDAL VRT",
    b"<?xml": "XML",
}
PICTURES = ("PNG", "TIFF", "GIF")
VIDEOS = ("Matroska or WebM", "Flash video", "Ogg", "AVI", "MP4 or QuickTime")
ARCHIVES = ("ZIP", "gzip", "7z", "RAR", "tar")
# JPEG markers of frame headers: all from C0 to CF but tables (C4, CC) and an extension (C8)
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def kind_of_file(path: str | Path, expected: Sequence[str]) -> str | None:
    """`kind_of` of a file, with what to do; None for the expected kinds, an unknown one or a file that cannot be read."""
    try:
        with Path(path).open("rb") as file:
            kind = kind_of(file.read(HEAD))
    except OSError:
        return None
    if kind is None or kind in expected:
        return None
    return f"({kind}); {'unpack' if kind in ARCHIVES else 'convert or replace'} it"


def kind_of(head: bytes) -> str | None:
    """The kind of a file, by its first bytes (262, of JPEG more); None for an unknown one and for JPEG, BMP, WebP and PPM."""
    if head[4:8] == b"ftyp":
        return BRANDS.get(head[8:12], "MP4 or QuickTime")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "AVI"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "sound"
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(b"\xff\xd8") and (kind := kind_of_jpeg(head)):
        return kind
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for table, content in ((BEGINNINGS, head), (MARKUP, text)):
        for beginning, kind in table.items():
            if content.startswith(beginning):
                return kind
    return None


def kind_of_jpeg(head: bytes) -> str | None:
    """A kind of JPEG that is not read, from the beginning of a file with the frame header; None for the usual ones."""
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:
        marker, bits = head[place + 1], head[place + 4]
        if marker == 0xF7:
            return "JPEG-LS"
        if marker in FRAMES:
            lossless = marker in (0xC3, 0xC7, 0xCB, 0xCF)
            return "lossless JPEG" if lossless else f"JPEG of {bits} bits per value" if bits != 8 else None
        place += 2 + int.from_bytes(head[place + 2 : place + 4], "big")
    return None
