"""Combinations of GeoTIFF: types, missing values, masks, layouts and numbers of bands, read back with rasterio.

Every pair of values of two properties occurs in at least one file. The first files cover most pairs; the others are marked slow.
"""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoint import save_weights
from engine.upscale.request import Request
from engine.upscale.run import upscale
from tests.engine.small import small_mtdo

rasterio = pytest.importorskip("rasterio")
from rasterio.enums import ColorInterp, Resampling  # noqa: E402
from rasterio.transform import Affine, from_origin  # noqa: E402

PROPERTIES: dict[str, list] = {
    "dtype": ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"],
    "nodata": [None, 0, -9999, float("nan"), "by band"],
    "mask": [None, "internal", "alpha"],
    "layout": ["stripped", "tiled", "bigtiff", "cog", "overviews", "jpeg", "lzw", "zstd", "deflate", "separate"],
    "bands": [1, 3, 4, 8],
}
LAYOUTS: dict[str, dict] = {
    "stripped": {}, "tiled": {"tiled": True, "blockxsize": 16, "blockysize": 16}, "bigtiff": {"BIGTIFF": "YES"},
    "cog": {"driver": "COG"}, "overviews": {}, "jpeg": {"compress": "jpeg", "JPEG_QUALITY": 100},
    "lzw": {"compress": "lzw", "predictor": 2}, "zstd": {"compress": "zstd"}, "deflate": {"compress": "deflate"},
    "separate": {"interleave": "band"},
}  # fmt: skip
FAST = 24  # cases


def possible(case: dict) -> bool:
    """Whether GDAL can write such a file."""
    dtype, nodata, layout = np.dtype(case["dtype"]), case["nodata"], case["layout"]
    if isinstance(nodata, float) and dtype.kind != "f":
        return False
    if nodata == -9999 and dtype.kind != "f" and (dtype.kind == "u" or dtype.itemsize == 1):
        return False
    if nodata is not None and case["mask"] is not None:
        return False  # GDAL ignores one of them
    if layout == "jpeg" and (dtype != np.uint8 or case["bands"] > 4 or nodata is not None or case["mask"] == "alpha"):
        return False
    if layout == "cog" and (nodata == "by band" or dtype.name == "int8" or case["mask"] == "internal"):
        return False
    return not (layout == "lzw" and dtype.kind == "f")


def cover() -> list[dict]:
    """Cases that cover every possible pair of values, found greedily in a fixed order."""
    cases = [
        case for values in product(*PROPERTIES.values()) if possible(case := dict(zip(PROPERTIES, values, strict=True)))
    ]
    pairs = [frozenset(combinations([(key, repr(value)) for key, value in case.items()], 2)) for case in cases]
    left = set().union(*pairs)
    chosen = []
    while left:
        best = max(range(len(cases)), key=lambda number: len(pairs[number] & left))
        chosen.append(cases[best])
        left -= pairs[best]
    return chosen


@pytest.fixture(scope="module")
def weight(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "m.safetensors"
    network = small_mtdo()
    with torch.no_grad():
        network.reconstruction.conv_last.weight.mul_(0.1)  # close to bicubic interpolation
    save_weights(path, network)
    return path


def measured(dtype: np.dtype, bands: int) -> np.ndarray:
    """(bands, 40, 56): smooth values in the middle of the (usual) range of the type, without 0."""
    y, x = np.mgrid[:40, :56]
    shapes = np.stack([np.sin(x / 5 + k) * 0.25 + np.cos(y / 6 - k) * 0.24 + 0.5 for k in range(bands)])
    low, high = {("u", 1): (20, 230), ("i", 1): (10, 120), ("u", 2): (300, 9000), ("i", 2): (-900, 5000),
                 ("u", 4): (1000, 10**9), ("i", 4): (-(10**6), 10**8)}.get((dtype.kind, dtype.itemsize), (-3.0, 800.0))  # fmt: skip
    data = shapes * (high - low) + low
    data = np.where(np.abs(data) < 1, 1, data)
    return data.astype(dtype)


def build(path: Path, case: dict) -> np.ndarray:
    """Write the file; return the mask of measured values, (bands, 40, 56)."""
    dtype, count, nodata = np.dtype(case["dtype"]), case["bands"], case["nodata"]
    data, valid = measured(dtype, count), np.ones((count, 40, 56), bool)
    valid[:, :, :9] = False
    valid[:, 20:23, 30:33] = False
    if nodata is None and case["mask"] is None:
        valid[:] = True
    missing = [7 + band for band in range(count)] if nodata == "by band" else [nodata] * count
    hidden = 0 if nodata is None else None
    for band in range(count):
        data[band][~valid[band]] = missing[band] if hidden is None else hidden
        if nodata is not None:  # no measured value is nodata
            data[band][valid[band] & (data[band] == missing[band])] += 1
    profile = {"driver": "GTiff", "height": 40, "width": 56, "count": count, "dtype": dtype.name, "crs": "EPSG:32632",
               "transform": from_origin(5e5, 5e6, 10, 10), "photometric": "MINISBLACK", "alpha": "NO"}  # fmt: skip
    profile |= {} if nodata in (None, "by band") else {"nodata": nodata}
    profile |= LAYOUTS[case["layout"]]
    if case["mask"] == "alpha":
        profile |= {"count": count + 1, "alpha": "YES"}
    if profile["driver"] == "COG":
        for name in ("photometric", "alpha"):
            profile.pop(name)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as file:
        file.write(data, list(range(1, count + 1)))
        if case["mask"] == "alpha":
            file.write(np.where(valid[0], 100 if dtype.itemsize == 1 else 255, 0).astype(dtype), count + 1)
            file.colorinterp = [ColorInterp.gray, *[ColorInterp.undefined] * (count - 1), ColorInterp.alpha]
        if case["mask"] == "internal":
            file.write_mask(valid[0])
        file.scales, file.offsets = (
            [0.5 + band for band in range(file.count)],
            [1.0 + band for band in range(file.count)],
        )
        file.units = [f"u{band}" for band in range(file.count)]
        file.descriptions = [f"B{band}" for band in range(file.count)]
        file.update_tags(AREA_OR_POINT="Point", KEY="value")
    if case["layout"] == "overviews":
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2], Resampling.nearest)
    if nodata == "by band":
        bands = "".join(
            f'<PAMRasterBand band="{k}"><NoDataValue>{value}</NoDataValue></PAMRasterBand>'
            for k, value in enumerate(missing, 1)
        )
        path.with_name(path.name + ".aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    return valid


def cases() -> list:
    """The cases as pytest parameters."""
    names = ["-".join(map(str, case.values())) for case in cover()]
    marks = [() if number < FAST else pytest.mark.slow for number in range(len(names))]
    return [pytest.param(case, id=name, marks=mark) for case, name, mark in zip(cover(), names, marks, strict=True)]


@pytest.mark.parametrize("case", cases())
def test_type_metadata_and_missing_values_are_preserved(tmp_path, weight, case):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    valid = build(source, case)
    upscale(Request(source, target, weight, precision="fp32"))
    with rasterio.open(source) as before, rasterio.open(target) as out:
        for fact in ("dtypes", "crs", "count", "scales", "offsets", "units", "descriptions", "colorinterp"):
            if (fact, case["layout"]) != ("colorinterp", "cog"):  # GDAL calls a first undefined band grey
                assert getattr(out, fact) == getattr(before, fact), fact
        assert out.tags() == before.tags() and out.shape == (80, 112)
        assert out.transform == before.transform @ Affine.scale(0.5)
        assert repr(out.nodatavals) == repr(before.nodatavals)
        assert bool(out.overviews(1)) == (case["layout"] == "overviews")
        assert (out.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG") == (case["layout"] == "cog")
        for band in range(1, case["bands"] + 1):
            large = np.kron(valid[band - 1], np.ones((2, 2), bool))
            hidden = [
                file.read(file.count) if case["mask"] == "alpha" else file.read_masks(band) for file in (before, out)
            ]
            assert np.array_equal(hidden[0] > 0, valid[band - 1]) and np.array_equal(hidden[1] > 0, large)
            values, truth = out.read(band).astype(float)[large], before.read(band).astype(float)[valid[band - 1]]
            spread = truth.max() - truth.min()
            for statistic in (np.mean, np.median, np.std):
                assert abs(statistic(values) - statistic(truth)) < 0.01 * max(abs(statistic(truth)), spread)
            near = np.kron(before.read(band).astype(float), np.ones((2, 2)))[large]
            assert np.abs(values - near).max() < 0.2 * spread  # values in holes do not change their neighbours
