"""Compare an upscaled GeoTIFF with its source, both read by GDAL: python benchmarks/geotiff.py IN.tif OUT.tif

Prints type, reference system, pixel size, corner and bounds of both, and the difference between the result, averaged over the
source's pixels, and the source. Needs only rasterio and NumPy (pip install rasterio numpy). Exit code 1: wrong georeference.
"""

from __future__ import annotations

import sys

import numpy as np
import rasterio


def main(source: str, result: str) -> int:
    with rasterio.open(source) as before, rasterio.open(result) as after:
        scale = after.height // before.height
        for name, each in ((source, before), (result, after)):
            print(f"{name}: {each.width}x{each.height} {each.dtypes[0]}, {each.crs}, pixel {each.res[0]:.6g}")
        bounds = max(abs(a - b) for a, b in zip(before.bounds, after.bounds, strict=True))
        pixel = before.transform.a / after.transform.a, before.transform.e / after.transform.e
        print(f"pixels {pixel[0]:g} and {pixel[1]:g} times smaller, bounds differ by {bounds:g}")
        low, high = before.read().astype(float), after.read().astype(float)
        means = high.reshape(len(high), before.height, scale, before.width, scale).mean((2, 4))
        print(
            f"means over {scale}x{scale} pixels against the source: {np.sqrt(np.mean((means - low) ** 2)):.1f} (rms), ",
            end="",
        )
        print(f"source {low.min():g} to {low.max():g}, result {high.min():g} to {high.max():g}")
        right = before.crs == after.crs and before.dtypes == after.dtypes and set(pixel) == {float(scale)}
        return 0 if right and bounds <= 1e-9 * max(map(abs, before.bounds)) else 1


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
