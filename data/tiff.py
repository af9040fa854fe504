"""Read and write TIFF with tifffile: 8-bit, 16-bit and float, any number of bands, stacks of pages, georeference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from data.details import (
    EXIF_IFD,
    GPS_IFD,
    RESOLUTION_UNIT,
    TIFF_TEXTS,
    Details,
    exif_of_tiff,
    tiff_options,
)
from data.geo_tags import GDAL_NODATA, PIXEL_SCALE, TRANSFORMATION, GeoTags, tags_of
from data.tiff_pages import (
    applied_orientation,
    first_page,
    image_pages,
    opened,
    stored_orientation,
    value_type,
)
from data.tiff_pixels import MASK, check_segments, decode, decode_exact, mask_of, measured
from data.validity import undeclared_fill, without_fill

PROFILE, XMP = 34675, 700
RESOLUTION = (282, 283)
FORMATS_OF_TEXT = ('{"shape"', "ImageJ=", "<?xml", "shape=")  # image descriptions that only describe the file
MEASURED = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)  # may lack values
ALPHA = (1, 2)  # ExtraSamples: associated, unassociated


def probe(path: str | Path) -> tuple[tuple[int, int], np.dtype, int, bool, int, bool]:
    """(H, W), value type, number of bands, whether one is alpha, number of pages, whether the first three bands are RGB; of the
    first page, from the headers only.
    """
    with opened(path) as file:
        page = first_page(file)
        return (*_probe(page), len(image_pages(file)), page.photometric == tifffile.PHOTOMETRIC.RGB)


def probe_pages(path: str | Path) -> list[tuple[tuple[int, int], np.dtype, int, bool]]:
    """(H, W), value type, number of bands and whether one is alpha, of every image (`page_numbers`)."""
    with opened(path) as file:
        return [_probe(file.pages[number].aspage()) for number in image_pages(file)]


def _probe(page: tifffile.TiffPage) -> tuple[tuple[int, int], np.dtype, int, bool]:
    alpha = any(sample in ALPHA for sample in page.extrasamples)
    converted = page.photometric in (tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.SEPARATED)
    bands = 3 if converted else page.samplesperpixel
    size = (page.imagelength, page.imagewidth)
    size = size[::-1] if applied_orientation(page) > 4 else size
    return size, value_type(page).newbyteorder("="), bands, alpha


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
    """The properties of a file's first image, from its header."""
    with opened(path) as file:
        page = first_page(file)
        holes = GDAL_NODATA in page.tags or any(frame.aspage().subfiletype & 0b100 for frame in file.pages)
        kind = getattr(page.photometric, "name", str(page.photometric))
        georeferenced = any(code in page.tags for code in (PIXEL_SCALE, TRANSFORMATION))
        multiplied = tuple(page.extrasamples) == (1,)
        return Description(
            len(image_pages(file)), kind, page.bitspersample, stored_orientation(page), georeferenced, holes, multiplied
        )


def read(path: str | Path, page: int | None = None) -> np.ndarray:
    """One page as (H, W, C): uint8, uint16 or float32 (other integer types and float64 become float32).

    page: number in the file (`page_numbers`); None for a file that must hold exactly one image.
    Raises ValueError for damage, NaN and complex values.
    """
    with opened(path) as file:
        if page is None:
            pages = image_pages(file)
            if len(pages) != 1:
                raise ValueError(f"it holds {len(pages)} pages: a stack is a separate clip, not a single frame")
            page = pages[0]
        return _finite(decode(file.pages[page], file.filehandle.size))


def read_measured(
    path: str | Path, page: int | None = None, exact: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """A page as in `read`, or with `exact` in the type of the file, and where its values are measured, (H, W, C) bool, by nodata,
    a mask, NaN and infinity, or by a value that only marks missing ones; None: everywhere.

    Only grey and colours are looked at: in palettes and inverted grey, nodata is no value of the array that is returned.
    """
    with opened(path) as file:
        number = image_pages(file)[0] if page is None else page
        array, header = decode_exact(file.pages[number], file.filehandle.size), file.pages[number].aspage()
        valid = None
        if header.photometric in MEASURED and header.bitspersample > 1:
            valid = measured(file, number, array)
            valid = without_fill(array, valid, undeclared_fill(array, valid))
    if not exact and array.dtype not in (np.uint8, np.uint16):
        with np.errstate(over="ignore"):  # nodata of float64
            array = array.astype(np.float32)
    if array.dtype.kind == "f" and not (known := np.isfinite(array)).all():
        valid = known if valid is None else known & valid
    return array, None if valid is None or valid.all() else valid


def read_mask(path: str | Path, page: int | None = None) -> np.ndarray | None:
    """(H, W, 1) bool: where the mask of a page declares values as measured; None without a mask."""
    with opened(path) as file:
        return mask_of(file, image_pages(file)[0] if page is None else page)


def page_numbers(path: str | Path) -> list[int]:
    """Positions of a stack's images in the file, without overviews and masks."""
    with opened(path) as file:
        return image_pages(file)


def _finite(array: np.ndarray) -> np.ndarray:
    broken = 0 if array.dtype.kind != "f" else array.size - int(np.isfinite(array).sum())
    if broken:
        raise ValueError(f"{broken} of {array.size} values are NaN or infinite; fill them first")
    return array


def read_geo(path: str | Path, page: int | None = None) -> GeoTags | None:
    """Georeference and GDAL's metadata of a page (`page_numbers`; None: the first image), or None where there are none.

    Tags whose length differs from the standard are dropped.
    """
    with opened(path) as file:
        return tags_of(first_page(file) if page is None else file.pages[page].aspage())


def check_complete(path: str | Path) -> None:
    """ValueError if blocks of any page, overviews and masks included, are missing or lie beyond the end of the file."""
    with opened(path) as file:
        for frame in file.pages:
            check_segments(frame.aspage(), file.filehandle.size)


def has_palette(path: str | Path) -> bool:
    """Whether the first image of a TIFF holds numbers of colours; False for other files."""
    try:
        return describe(path).kind == "PALETTE"
    except (ValueError, OSError):
        return False


def nodata_text(path: str | Path) -> str:
    """nodata of the first image as text; empty if there is none."""
    with opened(path) as file:
        return str(first_page(file).tags.valueof(GDAL_NODATA, "")).strip("\0 ")


def kinds_of_details(path: str | Path) -> list[str]:
    """Which of EXIF and XMP a TIFF has; empty for other files."""
    try:
        with opened(path) as file:
            tags = first_page(file).tags
            return ["EXIF"] * (EXIF_IFD in tags or GPS_IFD in tags) + ["XMP"] * (XMP in tags)
    except (ValueError, OSError):  # JPEG 2000
        return []


def read_details(path: str | Path, page: int | None = None) -> Details:
    """ICC profile, XMP, resolution and texts of a page, and the file's EXIF."""
    with opened(path) as file:
        chosen = first_page(file) if page is None else file.pages[page].aspage()
        tags, inks = chosen.tags, chosen.photometric == tifffile.PHOTOMETRIC.SEPARATED
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
        inks=inks,
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
    path: str | Path,
    array: np.ndarray,
    geo: GeoTags | None = None,
    details: Details | None = None,
    alpha: bool | None = None,
    rgb: bool = False,
    mask: np.ndarray | None = None,
) -> None:
    """Write one (H, W) or (H, W, C) image, deflate-compressed; `geo` and `details` must already fit its size.

    alpha: whether the last band is transparency; None: if it is the fourth of four.   rgb: the first of more than three colours
    are red, green and blue.   mask: (H, W) bool, where the values are measured.
    """
    with tifffile.TiffWriter(path, bigtiff=array.nbytes > 2**31) as writer:
        write_page(writer, array, geo, details, alpha, rgb, mask)


def write_page(
    writer: tifffile.TiffWriter,
    array: np.ndarray,
    geo: GeoTags | None = None,
    details: Details | None = None,
    alpha: bool | None = None,
    rgb: bool = False,
    mask: np.ndarray | None = None,
) -> None:
    """Write the next page of a file; arguments as of `write`."""
    bands = array.shape[2] if array.ndim == 3 else 1
    array = array[..., 0] if array.ndim == 3 and bands == 1 else array
    options = tiff_options(details or Details())
    options["extratags"] += geo.extratags() if geo else []
    transparent = bands == 4 if alpha is None else alpha
    rgb = bands - transparent == 3 or (rgb and bands > 3)
    extra = [0] * (bands - transparent - (3 if rgb else 1)) + ["unassalpha"] * transparent
    writer.write(
        np.ascontiguousarray(array),
        photometric="rgb" if rgb else "minisblack",
        extrasamples=extra or None,
        planarconfig="contig" if bands > 1 else None,
        compression="zlib",
        predictor=array.dtype.kind == "u" and array.itemsize <= 4,
        contiguous=False,
        metadata=None,
        **options,
    )
    if mask is not None:
        writer.write(mask, photometric="mask", subfiletype=MASK, compression="zlib", contiguous=False, metadata=None)
