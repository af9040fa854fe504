"""Decode pages of TIFF: orientation, palettes, inks, alpha, and which values are measured."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import tifffile

from data.files import is_file
from data.geo_tags import GDAL_NODATA
from data.tiff_pages import applied_orientation, value_type

YCBCR_COEFFICIENTS, REFERENCE_BLACK_WHITE = 529, 532
REDUCED, MASK = 0b001, 0b100  # NewSubfileType: an overview, a mask
# compressions of the values as they are; those of pictures (JPEG, WebP) are decoded to RGB
PLAIN = frozenset(
    tifffile.COMPRESSION[name] for name in ("NONE", "LZW", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "ZSTD")
)


def decode(frame: tifffile.TiffPage | tifffile.TiffFrame, file_size: int) -> np.ndarray:
    """(H, W, C) of uint8, uint16 or float32, to which other types are converted."""
    array = decode_exact(frame, file_size)
    return array if array.dtype in (np.uint8, np.uint16) else array.astype(np.float32)


def decode_exact(frame: tifffile.TiffPage | tifffile.TiffFrame, file_size: int) -> np.ndarray:
    """(H, W, C) in the type of the file; 1 bit becomes uint8."""
    page = frame.aspage()
    dtype = value_type(page)
    if math.prod(page.shape) * dtype.itemsize > max(2**26, 2000 * file_size):
        raise ValueError(
            f"its header claims {page.imagewidth}x{page.imagelength} pixels, the file holds {file_size} bytes"
        )
    check_segments(page, file_size)
    array = page.asarray()
    if page.axes.startswith("S") and array.ndim == 3:  # planes one after the other
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3:
        raise ValueError(f"its pages have {array.ndim} axes ({page.axes}), expected rows, columns and bands")
    array = upright(_straight(_plain_colours(array, page), page), applied_orientation(page))
    if dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    return array.astype(dtype.newbyteorder("="), copy=False)


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate and flip (H, W, C) from stored to displayed orientation; `orientation` is 1..8 as in EXIF."""
    if orientation in (5, 7):
        array = array.swapaxes(0, 1)
    quarters = {3: 2, 6: -1, 7: 2, 8: 1}.get(orientation, 0)
    array = np.rot90(array, quarters)
    return array[:, ::-1] if orientation == 2 else array[::-1] if orientation == 4 else array


def _plain_colours(array: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Convert palette, CMYK and YCbCr to RGB and undo inverted grey; ValueError for colour spaces that need a profile."""
    kind, known = page.photometric, tifffile.PHOTOMETRIC
    if kind == known.PALETTE and page.colormap is not None:
        return (page.colormap[:, array[..., 0]] >> 8).astype(np.uint8).transpose(1, 2, 0)
    if kind == known.MINISWHITE and array.dtype.kind in "bu":
        return ~array  # equals top - value
    if kind == known.SEPARATED:
        if array.dtype != np.uint8 or array.shape[-1] != 4:
            raise ValueError("its inks are not 8-bit CMYK; convert it to RGB first")
        ink = 255 - array.astype(np.uint16)
        return ((ink[..., :3] * ink[..., 3:] + 127) // 255).astype(np.uint8)
    if kind == known.YCBCR and page.compression in PLAIN:
        return _rgb_of_ycbcr(array, page)
    if kind not in (known.MINISBLACK, known.MINISWHITE, known.RGB, known.YCBCR):
        raise ValueError(f"its colours are {getattr(kind, 'name', kind)}; convert it to RGB first")
    return array


def _rgb_of_ycbcr(array: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """(H, W, 3) of luma and colour differences -> RGB, with the coefficients and the range of the file (TIFF 6.0, section 21)."""
    if array.dtype != np.uint8 or array.shape[-1] != 3:
        raise ValueError("its colours are YCbCr of another type than 8 bits; convert it to RGB first")
    red, green, blue = _rationals(page, YCBCR_COEFFICIENTS) or (0.299, 0.587, 0.114)
    ends = _rationals(page, REFERENCE_BLACK_WHITE) or [0, 255, 128, 255, 128, 255]
    black, white = np.array(ends[::2]), np.array(ends[1::2])
    if not green or not (white - black).all():
        raise ValueError("its coefficients of YCbCr are not usable; convert it to RGB first")
    luma, to_blue, to_red = np.moveaxis((array - black) * ((255, 127, 127) / (white - black)), -1, 0)
    r, b = luma + to_red * (2 - 2 * red), luma + to_blue * (2 - 2 * blue)
    g = (luma - red * r - blue * b) / green
    return np.rint(np.stack([r, g, b], axis=-1)).clip(0, 255).astype(np.uint8)


def _rationals(page: tifffile.TiffPage, code: int) -> list[float] | None:
    """The value of a tag of fractions; None if it is missing or damaged."""
    numbers = page.tags.valueof(code, ())
    if len(numbers) != {YCBCR_COEFFICIENTS: 6, REFERENCE_BLACK_WHITE: 12}[code] or not all(numbers[1::2]):
        return None
    return [top / bottom for top, bottom in zip(numbers[::2], numbers[1::2], strict=True)]


def _straight(array: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Divide integer colours that are multiplied by their alpha (associated alpha) by it."""
    if tuple(page.extrasamples) != (1,) or array.dtype.kind != "u":
        return array
    return np.concatenate([straight(array[..., :-1], array[..., -1:]), array[..., -1:]], axis=-1)


def straight(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours that are multiplied by `alpha`, both of the same unsigned type and shapes that broadcast, without it."""
    top = np.iinfo(colours.dtype).max
    return np.rint(colours * (top / np.maximum(alpha.astype(np.float64), 1))).clip(0, top).astype(colours.dtype)


def check_segments(page: tifffile.TiffPage, file_size: int) -> None:
    """Reject truncated files: tifffile fills missing strips with zeros, which would look like a dark image."""
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or max(ends) > file_size or not all(page.databytecounts):
        raise ValueError("it is truncated: some strips lie beyond its end or are missing")


def measured(file: tifffile.TiffFile, number: int, array: np.ndarray) -> np.ndarray | None:
    """(H, W, C) bool by the nodata tag of a page and the mask after it; None if the page declares no missing values."""
    page, valid = file.pages[number].aspage(), None
    try:
        nodata = float(str(page.tags.valueof(GDAL_NODATA, "")).strip("\0 "))
    except ValueError:
        nodata = None
    if nodata is not None:
        valid = np.isfinite(array) & (array != array.dtype.type(nodata) if array.dtype.kind == "f" else array != nodata)
    if (mask := mask_of(file, number)) is not None and mask.shape[:2] == array.shape[:2]:
        valid = mask & (True if valid is None else valid) & np.isfinite(array)
    return valid


def mask_of(file: tifffile.TiffFile, number: int) -> np.ndarray | None:
    """(H, W, 1) bool: where the mask of a page says that values are measured; None without one. It is the next page, or GDAL's
    `.msk` next to a file of one image.
    """
    page = file.pages[number].aspage()
    if number + 1 < len(file.pages) and file.pages[number + 1].aspage().subfiletype & MASK:
        return upright(file.pages[number + 1].aspage().asarray()[..., None], applied_orientation(page)) != 0
    beside = Path(f"{file.filehandle.path}.msk")
    if number or not is_file(beside) or any(not other.aspage().subfiletype & REDUCED for other in file.pages[1:]):
        return None
    with tifffile.TiffFile(beside) as other:
        mask = other.pages.first.asarray() != 0
    return mask.reshape(*mask.shape[:2], -1).any(axis=-1, keepdims=True)
