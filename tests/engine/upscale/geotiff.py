"""GeoTIFF files for tests of scenes, and a network that is close to bicubic interpolation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.upscale.request import Request
from engine.upscale.run import upscale

rasterio = pytest.importorskip("rasterio")
from rasterio.transform import from_origin  # noqa: E402

PLACE = {"crs": "EPSG:32632", "transform": from_origin(5e5, 5e6, 10, 10)}


def picture(bands: int = 1, height: int = 40, width: int = 56) -> np.ndarray:
    """(bands, height, width) float64 in [0, 1]: smooth, with different bands."""
    y, x = np.mgrid[:height, :width]
    return np.stack([np.sin(x / 5 + k) * 0.25 + np.cos(y / 6 - k) * 0.24 + 0.5 for k in range(bands)])


def write(path: Path, data: np.ndarray, mask: np.ndarray | None = None, **more) -> Path:
    count, height, width = data.shape
    options = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": count,
        "dtype": data.dtype,
        **PLACE,
        **more,
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **options) as file:
        file.write(data)
        if mask is not None:
            file.write_mask(mask)
    return path


def make(source: Path, weight: Path, out: str = "out.tif", **more) -> Path:
    upscale(Request(source, source.with_name(out), weight, precision="fp32", **more))
    return source.with_name(out)


def stored(dtype: str, bands: int = 1) -> np.ndarray:
    """A picture in the middle of the range, or of the usual range, of a type; no value is 0."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return (picture(bands) * 300 + 5).astype(dtype)
    low, high = {1: (5, 120), 2: (50, 9000), 4: (1000, 10**9), 8: (10**6, 10**12)}[dtype.itemsize]
    low = -high if dtype.kind == "i" else low
    data = (picture(bands) * (high - low) + low).astype(dtype)
    return np.where(data == 0, 1, data).astype(dtype)


def halves(values: tuple[int, int]) -> np.ndarray:
    """(1, 40, 56) uint8: the left half has one value, the right half another."""
    return np.broadcast_to(np.where(np.arange(56) < 28, *values), (1, 40, 56)).astype(np.uint8)
