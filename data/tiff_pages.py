"""Open TIFF files with tifffile, and find the pages that are images."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile

from data.details import (
    ORIENTATION,
)
from data.geo_tags import PLACES


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
def opened(path: str | Path) -> Iterator[tifffile.TiffFile]:
    """Open the file without tifffile's log output. ValueError for a broken chain of pages, which would look like a shorter file."""
    logging.getLogger("tifffile").addFilter(COMPLAINTS)  # adding it again has no effect
    COMPLAINTS.messages.clear()
    with tifffile.TiffFile(path) as file:
        yield file
    broken = [message for message in COMPLAINTS.messages if "TiffPages" in message]
    if broken:
        raise ValueError(f"its chain of pages is broken: {broken[0]}")


def first_page(file: tifffile.TiffFile) -> tifffile.TiffPage:
    pages = image_pages(file)
    if not pages:
        raise ValueError("it holds no image")
    return file.pages[pages[0]].aspage()


def image_pages(file: tifffile.TiffFile) -> list[int]:
    """Numbers of the full-resolution images, without overviews and masks (NewSubfileType)."""
    numbers, offsets = [], set()
    for number, frame in enumerate(file.pages):
        page = frame.aspage()
        if page.offset in offsets:
            raise ValueError(f"its chain of pages is cyclic at page {number}")
        offsets.add(page.offset)
        if page.imagedepth > 1:
            raise ValueError(f"page {number} is a volume of {page.imagedepth} slices; save each slice as a page first")
        if not page.subfiletype & 0b101:
            numbers.append(number)
    _check_imagej(file, len(numbers))
    if len(numbers) > 1:
        _check_axes(file, len(numbers))
    return numbers


def _check_imagej(file: tifffile.TiffFile, pages: int) -> None:
    """ValueError for ImageJ's files of more than 4 GB, whose images follow the only page without pages of their own."""
    images = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
    if images > pages == 1:
        raise ValueError(
            f"ImageJ stored {images} images behind one page; save it as an image sequence, or convert it with tifffile "
            "(imwrite(OUT, imread(IN), metadata=None))"
        )


def _check_axes(file: tifffile.TiffFile, pages: int) -> None:
    """ValueError for stacks whose pages have two axes, such as frames and channels: they are not successive frames. A single axis
    may have any name, because writers choose it without a question."""
    axes = {name: size for name, size in _axes(file).items() if size > 1}
    if math.prod(axes.values()) == pages and len(axes) > 1:
        sizes = " x ".join(f"{size} {name}" for name, size in axes.items())
        raise ValueError(
            f"its {pages} pages are {sizes}, which would be mixed up as frames; save the frames of each in a file of their own"
        )


def _axes(file: tifffile.TiffFile) -> dict[str, int]:
    """Sizes of the axes of the pages, as ImageJ, OME or tifffile (names `axis 1`, ...) stored them."""
    page = file.pages.first
    if file.is_imagej:
        found = file.imagej_metadata or {}
        return {name: int(found.get(name, 1)) for name in ("frames", "slices", "channels")}
    if file.is_ome:
        sizes = dict(
            re.findall(r'\bSize([TZC])="(\d+)"', str(file.ome_metadata).partition("<Pixels")[2].partition(">")[0])
        )
        channels = int(sizes.get("C", 1)) // page.samplesperpixel
        return {"frames": int(sizes.get("T", 1)), "slices": int(sizes.get("Z", 1)), "channels": channels}
    shape = (file.shaped_metadata or [{}])[0].get("shape", ())
    return {f"in axis {number + 1}": size for number, size in enumerate(shape[: max(len(shape) - len(page.shape), 0)])}


def value_type(page: tifffile.TiffPage) -> np.dtype:
    if page.dtype is None or page.dtype.kind not in "uifb":
        raise ValueError(f"its value type is not supported ({page.dtype})")
    return page.dtype


def stored_orientation(page: tifffile.TiffPage) -> int:
    value = page.tags.valueof(ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def applied_orientation(page: tifffile.TiffPage) -> int:
    """The orientation to apply. Files with georeference are not rotated: it refers to the pixels as stored."""
    return 1 if any(code in page.tags for code in PLACES) else stored_orientation(page)
