"""Decoders of PNG, of Pillow's formats and of deep PPM. They raise any exception for damaged files, which `data.media` reports."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import imagecodecs
import numpy as np
from PIL import Image, ImageOps

from data.details import ORIENTATION
from data.png_details import png_chunks

PILLOW_FORMATS = ("JPEG", "BMP", "WEBP", "GIF", "PPM")
MAX_PIXELS = 2**29  # larger sizes indicate a damaged or malicious header; tiles of a TIFF are not limited by this
HEAD = 512  # bytes of a file that hold its header
# Kind (5: grey, 6: colour, 3: colour as text), width, height and white; comments may be between them.
PPM_HEADER = re.compile(rb"P([356])" + rb"(?:\s|#[^\n]*\n)+(\d+)" * 3 + rb"\s")


@dataclass(frozen=True)
class ImageInfo:
    """Properties of an image from its header: size (H, W), value type, number of bands, pages (a plain image: 1).

    alpha: the last of two, four or more bands is transparency, as always outside TIFF.   rgb: whether the first three bands of
    a TIFF are red, green and blue.
    """

    size: tuple[int, int]
    dtype: np.dtype
    bands: int
    alpha: bool = False
    pages: int = 1
    rgb: bool = False

    @property
    def transparent(self) -> bool:
        """Whether the last band is transparency."""
        return self.alpha and (self.bands == 2 or self.bands >= 4)

    @property
    def bits(self) -> int:
        """Bits per value as returned by `read_image`: 8, 16, or 32 for float and for types that are converted to float."""
        return 8 if self.dtype in (np.uint8, bool) else 16 if self.dtype == np.uint16 else 32


def probe_png(head: bytes, file: IO[bytes] | None = None) -> ImageInfo:
    """A PNG file by its first bytes. file: to look for a transparent colour (tRNS), which counts as alpha, and for an animation (acTL)."""
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise ValueError("the PNG header is cut off")
    width, height, bits, colour_type = struct.unpack(">IIBB", head[16:26])
    _check_pixels(height, width)
    bands, pages = {0: 1, 4: 2, 6: 4}.get(colour_type, 3), 1
    for kind, content in png_chunks(file) if file is not None else ():
        if kind == b"IDAT":
            break
        bands += kind == b"tRNS" and bands in (1, 3)
        pages = struct.unpack(">I", content[:4])[0] if kind == b"acTL" else pages
    dtype = np.dtype(np.uint16 if bits == 16 else np.uint8)
    return ImageInfo((height, width), dtype, bands, alpha=True, pages=pages)


def _check_pixels(height: int, width: int) -> None:
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f"its header claims {width}x{height} pixels")


def read_png(content: bytes) -> np.ndarray:
    """A PNG file, (H, W) or (H, W, C) as stored."""
    probe_png(content[:33])
    if b"acTL" in content[33 : content.find(b"IDAT")]:
        raise ValueError("it is animated; write its frames to single files first")
    return imagecodecs.png_decode(content)


def open_pillow(file: Any) -> Image.Image:
    """Open a file of `PILLOW_FORMATS`."""
    Image.init()  # load all plugins: Pillow knows no WebP before
    return Image.open(file, formats=PILLOW_FORMATS)


def _pages(image: Image.Image) -> int:
    if image.format == "MPO":  # one photo with previews
        return 1
    try:
        return getattr(image, "n_frames", 1)
    except (struct.error, IndexError):
        return 2  # a GIF that ends in the header of a later frame: those before it are read as a video


def probe_pillow(file: IO[bytes], head: bytes) -> ImageInfo:
    """A file of the formats that Pillow reads. head: its first bytes."""
    with open_pillow(file) as image:
        turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        size = (image.width, image.height) if turned else (image.height, image.width)
        bands = 1 if image.mode in ("1", "L", "I", "I;16", "I;16B", "I;16L") else 2 if image.mode == "LA" else 3
        bands = 4 if bands == 3 and (image.mode == "RGBA" or "transparency" in image.info) else bands
        deep = image.mode.startswith("I") or (image.format == "PPM" and levels_of_ppm(head) > 255)
        return ImageInfo(size, np.dtype(np.uint16 if deep else np.uint8), bands, True, _pages(image))


def read_pillow(path: str | Path) -> np.ndarray:
    """A file of the formats that Pillow reads, upright, as uint8 or uint16."""
    with open_pillow(path) as image:
        _check_pixels(image.height, image.width)
        if _pages(image) > 1:
            raise ValueError("it is animated; write its frames to single files first")
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "1":
            upright = upright.convert("L")
        elif upright.mode not in ("L", "LA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L"):
            upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
        if upright.mode == "I":  # PGM as text of more than 8 bits, which Pillow scales to 16 bits
            return np.asarray(upright).clip(0, 65535).astype(np.uint16)
        array = np.asarray(upright)
        return array.astype(np.uint16) if array.dtype.itemsize == 2 else array


def levels_of_ppm(head: bytes) -> int:
    """The value of white in a PGM or PPM (P3, P5, P6); 0 for other files."""
    fields = PPM_HEADER.match(head[:HEAD])
    return int(fields[4]) if fields else 0


def read_deep_ppm(content: bytes) -> np.ndarray:
    """A PGM or PPM of more than 8 bits as uint16 of full range (Pillow reduces the colours of a PPM to 8 bits)."""
    fields = PPM_HEADER.match(content)
    assert fields is not None  # as in `levels_of_ppm`
    bands, width, height, white = 1 if fields[1] == b"5" else 3, int(fields[2]), int(fields[3]), int(fields[4])
    _check_pixels(height, width)
    if fields[1] == b"3":
        words = re.sub(rb"#[^\n]*", b"", content[fields.end() - 1 :]).split()
        values = np.array(words[: height * width * bands], np.int64).clip(0, white).reshape(height, width, bands)
    else:
        values = np.frombuffer(content, ">u2", height * width * bands, fields.end()).reshape(height, width, bands)
    return np.rint(values.astype(np.float64) * (65535 / white)).astype(np.uint16)
