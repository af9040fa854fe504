"""Recognise files that are not read by their first bytes, whatever their names say, so that messages name the kind of file."""

from __future__ import annotations

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
    b"version https://git-lfs": "Git LFS pointer, not downloaded",
}  # fmt: skip
MARKUP = {
    b"<!doctype html": "web page",
    b"<html": "web page",
    b"<svg": "SVG",
    b"<vrtdataset": "GDAL VRT",
    b"<?xml": "XML",
}


def kind_of(head: bytes) -> str | None:
    """The kind of a file that is not read as an image, by its first bytes (32 suffice); None for an unknown one."""
    if head[4:8] == b"ftyp":
        return BRANDS.get(head[8:12], "MP4 or QuickTime")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "AVI"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for table, content in ((BEGINNINGS, head), (MARKUP, text)):
        for beginning, kind in table.items():
            if content.startswith(beginning):
                return kind
    return None
