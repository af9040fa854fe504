"""The place of a raster on the ground, for the same area in smaller pixels: transform, GCPs, RPCs and geolocation arrays."""

from __future__ import annotations

from functools import cache
from typing import Any

GEOLOCATION = "GEOLOCATION"  # GDAL's namespace of arrays with the longitude and latitude of every n-th pixel


def scaled_place(place: dict[str, Any], scale_y: float, scale_x: float) -> dict[str, Any]:
    """Metadata of the same area with `scale_y` x `scale_x` as many pixels. GCPs refer to pixel edges, RPCs to pixel centres."""
    from affine import Affine
    from rasterio.control import GroundControlPoint

    scaled = {key: value for key, value in place.items() if value is not None}
    if "transform" in scaled:
        scaled["transform"] = scaled["transform"] * Affine.scale(1 / scale_x, 1 / scale_y)
    if "gcps" in scaled:
        scaled["gcps"] = [
            GroundControlPoint(p.row * scale_y, p.col * scale_x, p.x, p.y, p.z, p.id, p.info) for p in scaled["gcps"]
        ]
    if "rpcs" in scaled:
        rpcs = scaled["rpcs"].to_dict()
        for axis, scale in (("line", scale_y), ("samp", scale_x)):
            rpcs[f"{axis}_off"] = (rpcs[f"{axis}_off"] + 0.5) * scale - 0.5
            rpcs[f"{axis}_scale"] *= scale
        scaled["rpcs"] = type(scaled["rpcs"])(**rpcs)
    return scaled


def scaled_geolocation(tags: dict[str, str], scale_y: float, scale_x: float) -> dict[str, str]:
    """GDAL's geolocation tags for the larger picture: element i of an array is at the pixel OFFSET + i * STEP, from the corner of the
    picture or (GEOREFERENCING_CONVENTION) from the centre of its first pixel.
    """
    centre = 0.5 if tags.get("GEOREFERENCING_CONVENTION") == "PIXEL_CENTER" else 0.0
    changed = dict(tags)
    for axis, scale in (("LINE", scale_y), ("PIXEL", scale_x)):
        try:
            offset, step = float(tags.get(f"{axis}_OFFSET", 0)), float(tags.get(f"{axis}_STEP", 1))
        except ValueError:  # damaged: no reader can use it
            continue
        changed[f"{axis}_OFFSET"] = f"{(offset + centre) * scale - centre:.15g}"
        changed[f"{axis}_STEP"] = f"{step * scale:.15g}"
    return changed


def moved_gcps(points: list[Any], distance: float) -> list[Any]:
    """Ground control points moved by a distance in pixels along both axes."""
    from rasterio.control import GroundControlPoint

    return [GroundControlPoint(p.row + distance, p.col + distance, p.x, p.y, p.z, p.id, p.info) for p in points]


@cache
def gcp_error() -> float:
    """By how many pixels GDAL moves ground control points when it writes them into a file whose pixels are points.

    1 in GDAL 3.10, which adds half a pixel when it writes and again when it reads, instead of subtracting it first. Its copies of
    files are correct.
    """
    import numpy as np
    import rasterio
    from rasterio.control import GroundControlPoint

    corners = [GroundControlPoint(row, column, column, -row) for row in (0, 8) for column in (0, 8)]
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff", height=8, width=8, count=1, dtype="uint8", gcps=corners, crs="EPSG:4326"
        ) as file:
            file.update_tags(AREA_OR_POINT="Point")
            file.write(np.zeros((1, 8, 8), np.uint8))
        with memory.open() as file:
            return float(file.gcps[0][0].row)
