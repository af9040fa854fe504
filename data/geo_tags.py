"""Georeferencing tags of TIFF: read, check and scale them.

Scaling divides pixel sizes and multiplies pixel coordinates; all other GeoTIFF tags are copied.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile

PIXEL_SCALE, TIEPOINT, TRANSFORMATION, RPC = 33550, 33922, 34264, 50844
GEO_KEYS, GEO_DOUBLES, GEO_ASCII, GDAL_METADATA, GDAL_NODATA = 34735, 34736, 34737, 42112, 42113
PLACES = (PIXEL_SCALE, TIEPOINT, TRANSFORMATION, RPC)
GEO_TAGS = (*PLACES, GEO_KEYS, GEO_DOUBLES, GEO_ASCII, GDAL_METADATA, GDAL_NODATA)
NUMBERS = {PIXEL_SCALE: (3, 3), TIEPOINT: (6, 6), TRANSFORMATION: (16, 16), RPC: (92, 92)}  # fewest; a multiple of
DOUBLE = 12  # TIFF's type of 64-bit floats
RASTER_TYPE_KEY, PIXEL_IS_POINT = 1025, 2


@dataclass(frozen=True)
class GeoTags:
    """Georeferencing tags of one image."""

    tags: dict[int, tuple[int, tuple | str]]  # code -> (TIFF data type, value)

    def scaled(self, scale_y: float, scale_x: float) -> GeoTags:
        """Tags of the same area with `scale_y` x `scale_x` as many pixels: divide pixel sizes, multiply pixel coordinates."""
        centre = 0.5 if self._pixel_is_point() else 0.0  # "point": coordinates are those of pixel centres

        def moved(pixel: float, scale: float) -> float:
            return (pixel + centre) * scale - centre

        tags = dict(self.tags)
        for code, (_, value) in self.tags.items():
            numbers = [float(number) for number in value] if code in NUMBERS and not isinstance(value, str) else []
            if code == PIXEL_SCALE:
                numbers[0], numbers[1] = numbers[0] / scale_x, numbers[1] / scale_y
            elif code == TIEPOINT:
                numbers[0::6] = [moved(pixel, scale_x) for pixel in numbers[0::6]]
                numbers[1::6] = [moved(pixel, scale_y) for pixel in numbers[1::6]]
            elif code == TRANSFORMATION:
                numbers = _scaled_matrix(numbers, scale_y, scale_x, centre)
            elif code == RPC:  # err_bias, err_rand, LINE_OFF, SAMP_OFF, ..., LINE_SCALE, SAMP_SCALE; pixel centres
                numbers[2] = (numbers[2] + 0.5) * scale_y - 0.5
                numbers[3] = (numbers[3] + 0.5) * scale_x - 0.5
                numbers[7], numbers[8] = numbers[7] * scale_y, numbers[8] * scale_x
            else:
                continue
            tags[code] = (DOUBLE, tuple(numbers))
        return GeoTags(tags)

    def of_bands(self, numbers: Sequence[int]) -> GeoTags:
        """Tags of a file that holds only these bands, numbered from 1: GDAL's names, scales and units of the others are left out."""
        if GDAL_METADATA not in self.tags:
            return self

        def renumbered(item: re.Match[str]) -> str:
            band = int(item["band"]) + 1
            if band not in numbers:
                return ""
            return f"{item['before']}{numbers.index(band)}{item['after']}"

        kind, text = self.tags[GDAL_METADATA]
        item = r'(?P<before>\s*<Item [^>]*\bsample=")(?P<band>\d+)(?P<after>"[^>]*>[^<]*</Item>)'
        return GeoTags(self.tags | {GDAL_METADATA: (kind, re.sub(item, renumbered, str(text)))})

    @classmethod
    def of_affine(cls, a: float, b: float, c: float, d: float, e: float, f: float) -> GeoTags:
        """x = a column + b row + c, y = d column + e row + f, from the upper left corner of the upper left pixel."""
        if b == d == 0 and a > 0 > e:
            return cls({PIXEL_SCALE: (DOUBLE, (a, -e, 0.0)), TIEPOINT: (DOUBLE, (0.0, 0.0, 0.0, c, f, 0.0))})
        matrix = (a, b, 0.0, c, d, e, 0.0, f, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
        return cls({TRANSFORMATION: (DOUBLE, matrix)})

    @property
    def has_reference(self) -> bool:
        """Whether the coordinates have a reference system."""
        return GEO_KEYS in self.tags

    @property
    def affine(self) -> tuple[float, float, float, float, float, float] | None:
        """a to f as in `of_affine`; None if the image has no affine transform."""
        centre = 0.5 if self._pixel_is_point() else 0.0
        if TRANSFORMATION in self.tags:
            m = [float(number) for number in self.tags[TRANSFORMATION][1]]
            a, b, c, d, e, f = m[0], m[1], m[3], m[4], m[5], m[7]
        elif PIXEL_SCALE in self.tags and TIEPOINT in self.tags and len(self.tags[TIEPOINT][1]) == 6:
            scale, tie = ([float(number) for number in self.tags[code][1]] for code in (PIXEL_SCALE, TIEPOINT))
            a, b, d, e = scale[0], 0.0, 0.0, -scale[1]
            c, f = tie[3] - a * tie[0], tie[4] - e * tie[1]
        else:
            return None
        return a, b, c - (a + b) * centre, d, e, f - (d + e) * centre

    def _pixel_is_point(self) -> bool:
        keys = self.tags.get(GEO_KEYS, (0, ()))[1]
        return any(keys[i] == RASTER_TYPE_KEY and keys[i + 3] == PIXEL_IS_POINT for i in range(4, len(keys) - 3, 4))

    def extratags(self) -> list[tuple]:
        """Convert the tags to the form that tifffile's writer expects."""
        return [
            (code, kind, None, value.encode(), True)
            if isinstance(value, str)
            else (code, kind, len(value), value, True)
            for code, (kind, value) in sorted(self.tags.items())
        ]


def _scaled_matrix(numbers: list[float], scale_y: float, scale_x: float, centre: float) -> list[float]:
    """A 4x4 matrix (row-major) from pixels to the ground, after pixel = (new + centre) / scale - centre."""
    matrix = np.array(numbers).reshape(4, 4)
    change = np.diag([1 / scale_x, 1 / scale_y, 1.0, 1.0])
    change[0, 3], change[1, 3] = centre / scale_x - centre, centre / scale_y - centre
    return (matrix @ change).ravel().tolist()


def tags_of(page: tifffile.TiffPage) -> GeoTags | None:
    """Georeference and GDAL's metadata of a page, or None where there are none."""
    tags = page.tags
    found = {code: (int(tags[code].dtype), _tag_value(tags[code].value)) for code in GEO_TAGS if code in tags}
    if not found:
        return None
    if GDAL_METADATA in found:
        kind, text = found[GDAL_METADATA]
        found[GDAL_METADATA] = kind, re.sub(r"\s*<Item name=\"STATISTICS_[^>]*>[^<]*</Item>", "", str(text))
    return GeoTags({code: entry for code, entry in found.items() if _well_formed(code, entry[1])})


def _tag_value(value: Any) -> tuple | str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else tuple(np.atleast_1d(value).tolist())


def _well_formed(code: int, value: tuple | str) -> bool:
    if code in (GEO_ASCII, GDAL_METADATA, GDAL_NODATA):
        return isinstance(value, str) and bool(value)
    if isinstance(value, str):
        return False
    if code == GEO_KEYS:
        return len(value) >= 4 and len(value) % 4 == 0 and all(isinstance(number, int) for number in value)
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in value):
        return False
    fewest, multiple = NUMBERS.get(code, (1, 1))
    return len(value) >= fewest and len(value) % multiple == 0
