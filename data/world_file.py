"""World files (.pgw, .jgw, .tfw, ...): the georeference of a picture in a text file of six numbers next to it.

The numbers are the x and y size of a pixel and its rotation in the order A, D, B, E, then the position of the *centre* of the
upper left pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from data.files import is_file
from data.geo_tags import GeoTags
from errors import InputError

REFERENCE = ".prj"  # of the file with the reference system, which is copied


def suffix(image: str) -> str:
    """The suffix of the world file of a picture with this suffix: .pgw for .png, .jgw for .jpg and .jpeg."""
    letters = {"jpeg": "jpg", "tiff": "tif"}.get(image.lower().lstrip("."), image.lower().lstrip("."))
    return f".{letters[0]}{letters[-1]}w"


def find(path: Path) -> Path | None:
    """The world file of a picture, or None."""
    return next((place for place in candidates(path) if is_file(place)), None)


def candidates(path: Path) -> Iterator[Path]:
    """The names that the world file of a picture can have."""
    known = (suffix(path.suffix), f"{path.suffix}w") if len(path.suffix) > 1 else ()
    for ending in dict.fromkeys((*known, ".wld")):
        yield path.with_suffix(ending.lower())
        yield path.with_suffix(ending.upper())
        yield path.with_suffix(f".{ending[1:].capitalize()}")  # .Tfw, as some programs on Windows write


def reference(path: Path) -> bytes | None:
    """The content of the .prj file next to a picture with a world file, or None."""
    if find(path) is None:
        return None
    places = (path.with_suffix(ending) for ending in (REFERENCE, REFERENCE.upper()))
    return next((place.read_bytes() for place in places if is_file(place)), None)


def read(path: Path) -> GeoTags | None:
    """The georeference in the world file of a picture; None without one. InputError for a file that holds no six numbers."""
    place = find(path)
    if place is None:
        return None
    try:
        a, d, b, e, x, y = map(float, place.read_text(encoding="ascii").replace(",", ".").split())
        if not all(map(math.isfinite, (a, d, b, e, x, y))) or a * e == b * d:
            raise ValueError
    except (OSError, ValueError):
        raise InputError(
            f"{place}: is not a world file (six numbers, one per line); repair it or move it away"
        ) from None
    return GeoTags.of_affine(a, b, x - (a + b) / 2, d, e, y - (d + e) / 2)


def text(geo: GeoTags) -> str | None:
    """The content of a world file for a georeference; None if it has no affine transform."""
    affine = geo.affine
    if affine is None:
        return None
    a, b, c, d, e, f = affine
    return "".join(f"{number:.15g}\n" for number in (a, d, b, e, c + (a + b) / 2, f + (d + e) / 2))
