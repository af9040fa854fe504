"""Read and write TIFF with tifffile: 8-bit, 16-bit and float, any number of bands, stacks of pages, georeference."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from data.details import (
    EXIF_IFD,
    GPS_IFD,
    ORIENTATION,
    RESOLUTION_UNIT,
    TIFF_TEXTS,
    Details,
    exif_of_tiff,
    tiff_options,
)
from data.geo_tags import GDAL_NODATA, PIXEL_SCALE, PLACES, TRANSFORMATION, GeoTags, tags_of

PROFILE, XMP = 34675, 700
RESOLUTION = (282, 283)
FORMATS_OF_TEXT = ('{"shape"', "ImageJ=", "<?xml", "shape=")  # image descriptions that only describe the file
ALPHA = (1, 2)  # ExtraSamples: associated, unassociated


def is_tiff(head: bytes) -> bool:
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class _Complaints(logging.Filter):
    """Collect tifffile's log messages per thread instead of printing them: tifffile logs damage and continues to read."""

    def __init__(self) -> None:
        super().__init__()
        self._kept = threading.local()

    @property
    def messages(self) -> list[str]:
        if not hasattr(self._kept, "messages"):
            self._kept.messages = []
        return self._kept.messages

    def filter(self, record: logging.LogRecord) -> bool:
        self.messages.append(record.getMessage())
        return False


COMPLAINTS = _Complaints()


@contextmanager
def _opened(path: str | Path) -> Iterator[tifffile.TiffFile]:
    """Open the file without tifffile's log output. ValueError for a broken chain of pages, which would look like a shorter file."""
    logging.getLogger("tifffile").addFilter(COMPLAINTS)  # adding it again has no effect
    COMPLAINTS.messages.clear()
    with tifffile.TiffFile(path) as file:
        yield file
    broken = [message for message in COMPLAINTS.messages if "TiffPages" in message]
    if broken:
        raise ValueError(f"its chain of pages is broken: {broken[0]}")


def probe(path: str | Path) -> tuple[tuple[int, int], np.dtype, int, bool, int]:
    """(H, W), value type, number of bands, whether one is alpha, number of pages; read from the headers only."""
    with _opened(path) as file:
        page = _first(file)
        alpha = any(sample in ALPHA for sample in page.extrasamples)
        converted = page.photometric in (tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.SEPARATED)
        bands = 3 if converted else page.samplesperpixel
        size = (page.imagewidth, page.imagelength) if _turn(page) > 4 else (page.imagelength, page.imagewidth)
        return size, _dtype(page).newbyteorder("="), bands, alpha, len(_pages(file))


@dataclass(frozen=True)
class Description:
    """Facts from the headers. kind: name of the photometric interpretation (MINISBLACK, RGB, PALETTE, ...).

    holes: values may be missing, according to nodata or a mask.   premultiplied: colours are multiplied by alpha.
    """

    pages: int
    kind: str
    bits: int
    orientation: int
    georeferenced: bool
    holes: bool
    premultiplied: bool


def describe(path: str | Path) -> Description:
    with _opened(path) as file:
        page = _first(file)
        holes = GDAL_NODATA in page.tags or any(frame.aspage().subfiletype & 0b100 for frame in file.pages)
        kind = getattr(page.photometric, "name", str(page.photometric))
        georeferenced = any(code in page.tags for code in (PIXEL_SCALE, TRANSFORMATION))
        multiplied = tuple(page.extrasamples) == (1,)
        return Description(
            len(_pages(file)), kind, page.bitspersample, _orientation(page), georeferenced, holes, multiplied
        )


def _turn(page: tifffile.TiffPage) -> int:
    """The orientation to apply. Files with georeference are not rotated: it refers to the pixels as stored."""
    return 1 if any(code in page.tags for code in PLACES) else _orientation(page)


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate and flip (H, W, C) from stored to displayed orientation; `orientation` is 1..8 as in EXIF."""
    if orientation in (5, 7):
        array = array.swapaxes(0, 1)
    quarters = {3: 2, 6: -1, 7: 2, 8: 1}.get(orientation, 0)
    array = np.rot90(array, quarters)
    return array[:, ::-1] if orientation == 2 else array[::-1] if orientation == 4 else array


def _orientation(page: tifffile.TiffPage) -> int:
    value = page.tags.valueof(ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def read(path: str | Path, page: int | None = None) -> np.ndarray:
    """One page as (H, W, C): uint8, uint16 or float32 (other integer types and float64 become float32).

    page: number in the file (`page_numbers`); None for a file that must hold exactly one image.
    Raises ValueError for damage, NaN and complex values.
    """
    with _opened(path) as file:
        if page is None:
            pages = _pages(file)
            if len(pages) != 1:
                raise ValueError(f"it holds {len(pages)} pages: a stack is a separate clip, not a single frame")
            page = pages[0]
        return _finite(_decode(file.pages[page], file.filehandle.size))


def read_measured(path: str | Path, page: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """A page as in `read`, and where its values are measured, (H, W, C) bool, by nodata, a mask and NaN; None: everywhere.

    Only grey and RGB are looked at: in palettes and inverted grey, nodata is no value of the array that is returned.
    """
    with _opened(path) as file:
        number = _pages(file)[0] if page is None else page
        array, header = _decode(file.pages[number], file.filehandle.size), file.pages[number].aspage()
        valid = None
        if (
            header.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
            and header.bitspersample > 1
        ):
            valid = _valid(file, number, array)
    if array.dtype.kind == "f" and not (known := np.isfinite(array)).all():
        valid = known if valid is None else known & valid
    return array, None if valid is None or valid.all() else valid


def _valid(file: tifffile.TiffFile, number: int, array: np.ndarray) -> np.ndarray | None:
    """(H, W, C) bool by the nodata tag of a page and the mask after it; None if the page declares no missing values."""
    page, valid = file.pages[number].aspage(), None
    try:
        nodata = float(str(page.tags.valueof(GDAL_NODATA, "")).strip("\0 "))
    except ValueError:
        nodata = None
    if nodata is not None:
        valid = np.isfinite(array) & (array != np.float32(nodata) if array.dtype.kind == "f" else array != nodata)
    if number + 1 < len(file.pages) and file.pages[number + 1].aspage().subfiletype & 0b100:
        mask = upright(file.pages[number + 1].aspage().asarray()[..., None], _turn(page)) != 0
        if mask.shape[:2] == array.shape[:2]:
            valid = mask & (True if valid is None else valid) & np.isfinite(array)
    return valid


def page_numbers(path: str | Path) -> list[int]:
    """Positions of a stack's images in the file, without overviews and masks."""
    with _opened(path) as file:
        return _pages(file)


def _first(file: tifffile.TiffFile) -> tifffile.TiffPage:
    pages = _pages(file)
    if not pages:
        raise ValueError("it holds no image")
    return file.pages[pages[0]].aspage()


def _pages(file: tifffile.TiffFile) -> list[int]:
    """Numbers of the full-resolution images, without overviews and masks (NewSubfileType)."""
    numbers, offsets = [], set()
    for number, frame in enumerate(file.pages):
        page = frame.aspage()
        if page.offset in offsets:
            raise ValueError(f"its chain of pages is cyclic at page {number}")
        offsets.add(page.offset)
        if not page.subfiletype & 0b101:
            numbers.append(number)
    return numbers


def _dtype(page: tifffile.TiffPage) -> np.dtype:
    if page.dtype is None or page.dtype.kind not in "uifb":
        raise ValueError(f"its value type is not supported ({page.dtype})")
    return page.dtype


def _decode(frame: tifffile.TiffPage | tifffile.TiffFrame, file_size: int) -> np.ndarray:
    page = frame.aspage()
    dtype = _dtype(page)
    _check_segments(page, dtype.itemsize, file_size)
    array = page.asarray()
    if page.axes.startswith("S") and array.ndim == 3:  # planes one after the other
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3:
        raise ValueError(f"its pages have {array.ndim} axes ({page.axes}), expected rows, columns and bands")
    array = upright(_straight(_plain_colours(array, page), page), _turn(page))
    if dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if dtype in (np.uint8, np.uint16):
        return array.astype(dtype.newbyteorder("="), copy=False)
    return array.astype(np.float32)


def _finite(array: np.ndarray) -> np.ndarray:
    broken = 0 if array.dtype.kind != "f" else array.size - int(np.isfinite(array).sum())
    if broken:
        raise ValueError(f"{broken} of {array.size} values are NaN or infinite; fill them first")
    return array


def _plain_colours(array: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Convert palette and CMYK to RGB and undo inverted grey; ValueError for colour spaces that need a profile."""
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
    if kind not in (known.MINISBLACK, known.MINISWHITE, known.RGB, known.YCBCR):
        raise ValueError(f"its colours are {getattr(kind, 'name', kind)}; convert it to RGB first")
    return array


def _straight(array: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Divide integer colours that are multiplied by their alpha (associated alpha) by it."""
    if tuple(page.extrasamples) != (1,) or array.dtype.kind != "u":
        return array
    return np.concatenate([straight(array[..., :-1], array[..., -1:]), array[..., -1:]], axis=-1)


def straight(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours that are multiplied by `alpha`, both of the same unsigned type and shapes that broadcast, without it."""
    top = np.iinfo(colours.dtype).max
    return np.rint(colours * (top / np.maximum(alpha.astype(np.float64), 1))).clip(0, top).astype(colours.dtype)


def _check_segments(page: tifffile.TiffPage, itemsize: int, file_size: int) -> None:
    """Reject truncated files: tifffile fills missing strips with zeros, which would look like a dark image."""
    if math.prod(page.shape) * itemsize > max(2**26, 2000 * file_size):
        raise ValueError(
            f"its header claims {page.imagewidth}x{page.imagelength} pixels, the file holds {file_size} bytes"
        )
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or max(ends) > file_size or not all(page.databytecounts):
        raise ValueError("it is truncated: some strips lie beyond its end or are missing")


def read_geo(path: str | Path, page: int | None = None) -> GeoTags | None:
    """Georeference and GDAL's metadata of a page (`page_numbers`; None: the first image), or None where there are none.

    Tags whose length differs from the standard are dropped.
    """
    with _opened(path) as file:
        return tags_of(_first(file) if page is None else file.pages[page].aspage())


def kinds_of_details(path: str | Path) -> list[str]:
    """Which of EXIF and XMP a TIFF has; empty for other files."""
    try:
        with _opened(path) as file:
            tags = _first(file).tags
            return ["EXIF"] * (EXIF_IFD in tags or GPS_IFD in tags) + ["XMP"] * (XMP in tags)
    except (ValueError, OSError):  # JPEG 2000
        return []


def read_details(path: str | Path, page: int | None = None) -> Details:
    """ICC profile, XMP, resolution and texts of a page, and the file's EXIF."""
    with _opened(path) as file:
        tags = (_first(file) if page is None else file.pages[page].aspage()).tags
        found = {code: tags.valueof(code) for code in (PROFILE, XMP, *RESOLUTION, RESOLUTION_UNIT, *TIFF_TEXTS)}
        has_exif = EXIF_IFD in tags or GPS_IFD in tags
    texts = {key: str(found[code]) for code, key in TIFF_TEXTS.items() if isinstance(found[code], str)}
    if texts.get("Description", "").startswith(FORMATS_OF_TEXT):
        del texts["Description"]
    return Details(
        profile=_bytes(found[PROFILE]),
        exif=exif_of_tiff(path) if has_exif else None,
        xmp=_bytes(found[XMP]),
        dpi=_dpi([found[code] for code in RESOLUTION], found[RESOLUTION_UNIT]),
        texts=tuple(texts.items()),
    )


def _bytes(value: Any) -> bytes | None:
    return (
        bytes(value) or None if isinstance(value, bytes | tuple) else value.encode() if isinstance(value, str) else None
    )


def _dpi(fractions: list[Any], unit: Any) -> tuple[float, float] | None:
    """Pixels per inch from two fractions and a unit (2, the default: inch, 3: centimetre); None for no unit or damage."""
    factor = {None: 1.0, 2: 1.0, 3: 2.54}.get(unit)
    try:
        x, y = (factor * number / parts for number, parts in fractions)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if min(x, y) > 0 else None


# --- writing ----------------------------------------------------------------------------------------------------------


def write(
    path: str | Path, array: np.ndarray, geo: GeoTags | None = None, details: Details | None = None, alpha: bool = False
) -> None:
    """Write one (H, W) or (H, W, C) image, deflate-compressed; `geo` and `details` must already fit its size.

    alpha: the second of two bands is transparency; the fourth of four always is.
    """
    with tifffile.TiffWriter(path, bigtiff=array.nbytes > 2**31) as writer:
        write_page(writer, array, geo, details, alpha)


def write_page(
    writer: tifffile.TiffWriter,
    array: np.ndarray,
    geo: GeoTags | None = None,
    details: Details | None = None,
    alpha: bool = False,
) -> None:
    bands = array.shape[2] if array.ndim == 3 else 1
    array = array[..., 0] if array.ndim == 3 and bands == 1 else array
    options = tiff_options(details or Details())
    options["extratags"] += geo.extratags() if geo else []
    transparent = bands == 4 or (bands == 2 and alpha)
    writer.write(
        np.ascontiguousarray(array),
        photometric="rgb" if bands in (3, 4) else "minisblack",
        extrasamples=["unassalpha"] if transparent else [0] * (bands - 1) if bands == 2 or bands > 4 else None,
        planarconfig="contig" if bands > 1 else None,
        compression="zlib",
        predictor=array.dtype.kind == "u",
        contiguous=False,
        metadata=None,
        **options,
    )
