"""Open TIFF files with tifffile, and find the pages that are images."""

from __future__ import annotations

import logging
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
    return numbers


def _check_imagej(file: tifffile.TiffFile, pages: int) -> None:
    """ValueError for ImageJ's files of more than 4 GB, whose images follow the only page without pages of their own."""
    images = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
    if images > pages == 1:
        raise ValueError(
            f"ImageJ stored {images} images behind one page; save it as an image sequence, or convert it with tifffile "
            "(imwrite(OUT, imread(IN), metadata=None))"
        )


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
