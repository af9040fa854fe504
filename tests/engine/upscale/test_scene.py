"""GeoTIFF scenes: the result as read by rasterio, for every kind of file; seams and interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from data.files import sha256, temporary_path
from data.raster_writer import _scaled_place
from data.validity import filled, keep_apart, nearest
from engine.checkpoint import save_weights
from engine.restore import restore
from engine.upscale import scene as scene_module
from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from tests.engine.small import small_mtdo, small_stno

rasterio = pytest.importorskip("rasterio")
from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.enums import ColorInterp, Resampling  # noqa: E402
from rasterio.rpc import RPC  # noqa: E402
from rasterio.transform import Affine, from_origin  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
PLACE = {"crs": "EPSG:32632", "transform": from_origin(5e5, 5e6, 10, 10)}


@pytest.fixture(scope="module")
def weight(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "m.safetensors"
    save_weights(path, network())
    return path


def network():
    """A network close to bicubic interpolation, like a trained one; a random one would add an offset to each colour."""
    small = small_mtdo()
    with torch.no_grad():
        small.reconstruction.conv_last.weight.mul_(0.1)
    return small


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


TYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("nodata", [None, 0, -9999, float("nan")])
def test_every_type_keeps_its_units_and_nodata(tmp_path, weight, dtype, nodata):
    kind = np.dtype(dtype)
    if nodata is not None and (not np.can_cast(np.min_scalar_type(nodata), kind) if kind.kind != "f" else False):
        pytest.skip("the type does not hold the value")
    data = stored(dtype)
    if nodata is not None:
        data[:, :, :14] = nodata
        data[:, 20, 30] = nodata
    source = write(tmp_path / "in.tif", data, nodata=nodata)
    with rasterio.open(make(source, weight)) as out, rasterio.open(source) as before:
        assert (
            out.dtypes == before.dtypes
            and out.crs == before.crs
            and out.transform == before.transform * Affine.scale(0.5)
        )
        assert out.nodata == before.nodata or np.isnan([out.nodata, before.nodata]).all()
        valid = np.kron(before.read_masks(1), np.ones((2, 2), np.uint8)) != 0
        assert np.array_equal(out.read_masks(1) != 0, valid)
        values, truth = out.read(1), before.read(1)[before.read_masks(1) != 0].astype(np.float64)
        if nodata is not None:
            assert np.array_equal(values[~valid], np.full((~valid).sum(), nodata, kind), equal_nan=kind.kind == "f")
        inside = values[valid].astype(np.float64)
        spread = truth.max() - truth.min()
        for statistic in (np.mean, np.median, lambda v: np.percentile(v, 5), lambda v: np.percentile(v, 95)):
            assert abs(statistic(inside) - statistic(truth)) < 0.01 * spread
        assert abs(inside.std() - truth.std()) < 0.015 * spread
        near = np.kron(before.read(1).astype(np.float64), np.ones((2, 2)))
        assert np.abs(inside - near[valid]).max() < 0.2 * spread  # holes do not change other pixels


def test_hole_does_not_change_neighbouring_pixels(tmp_path, weight):
    """Next to a hole the result is that of a scene in which the hole has the values at its edge."""
    data = (picture() * 2000 + 100).astype(np.uint16)
    data[:, :, :16] = data[:, :, 16:17]
    plain = write(tmp_path / "plain.tif", data)
    data[:, :, :16] = 0
    source = write(tmp_path / "in.tif", data, nodata=0)
    results = [make(path, weight, f"{path.stem}_large.tif", limits=(0, 4095)) for path in (plain, source)]
    with rasterio.open(results[0]) as expected, rasterio.open(results[1]) as out:
        assert np.array_equal(out.read(1)[:, 32:], expected.read(1)[:, 32:])


@pytest.mark.parametrize("inside", [True, False])
def test_masks(tmp_path, weight, inside):
    mask = np.ones((40, 56), bool)
    mask[5:15, 8:30] = False
    data = (picture(3) * 200 + 20).astype(np.uint8)
    data[:, ~mask] = 255
    if inside:
        source = write(tmp_path / "in.tif", data, mask)
    else:
        source = write(tmp_path / "in.tif", data)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(source, "r+") as file:
            file.write_mask(mask)
        assert (tmp_path / "in.tif.msk").is_file()
    with rasterio.open(make(source, weight)) as out:
        assert np.array_equal(out.dataset_mask() != 0, np.kron(mask, np.ones((2, 2), bool)))
        assert out.read()[:, out.dataset_mask() != 0].max() < 230
    assert not (tmp_path / "out.tif.msk").exists()


@pytest.mark.parametrize("bands", [2, 4])
def test_alpha(tmp_path, weight, bands):
    data = (picture(bands) * 200 + 20).astype(np.uint8)
    data[-1] = 255
    data[:, :10] = 0
    source = write(tmp_path / "in.tif", data, photometric="RGB" if bands == 4 else "MINISBLACK", alpha="YES")
    with rasterio.open(make(source, weight)) as out, rasterio.open(source) as before:
        assert out.colorinterp == before.colorinterp and out.colorinterp[-1] == ColorInterp.alpha
        values = out.read()
        assert np.array_equal(values[-1], np.kron(data[-1], np.ones((2, 2), np.uint8)))
        assert values[:-1, :20].max() == 0 and values[:-1, 20:].min() > 10
    with rasterio.open(make(source, weight, "bands.tif", bands=(1,))) as out:
        assert out.count == 1 and np.array_equal(out.read_masks(1) != 0, values[-1] != 0)


def test_nodata_per_band(tmp_path, weight):
    data = (picture(3) * 2000 + 100).astype(np.int16)
    for band, missing in enumerate((5, -7)):
        data[band, 10 * band : 10 * band + 8] = missing
    source = write(tmp_path / "in.tif", data)
    bands = "".join(
        f'<PAMRasterBand band="{k}"><NoDataValue>{v}</NoDataValue></PAMRasterBand>' for k, v in ((1, 5), (2, -7))
    )
    (tmp_path / "in.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    with rasterio.open(make(source, weight)) as out:
        assert out.nodatavals == (5.0, -7.0, None)
        for band in (1, 2, 3):
            expected = np.full((80, 112), True)
            if band < 3:
                expected[20 * (band - 1) : 20 * (band - 1) + 16] = False
            assert np.array_equal(out.read_masks(band) != 0, expected)
            assert out.read(band)[expected].min() > 50


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 8, 13])
def test_all_bands_and_their_metadata_are_kept(tmp_path, weight, bands):
    data = (picture(bands) * 3000 + 100 * np.arange(bands)[:, None, None]).astype(np.uint16)
    source = write(tmp_path / "in.tif", data, alpha="NO", photometric="MINISBLACK")
    with rasterio.open(source, "r+") as file:
        file.scales, file.offsets = [1e-4 * (k + 1) for k in range(bands)], [-0.1 * k for k in range(bands)]
        file.units = [f"unit{k}" for k in range(bands)]
        file.descriptions = [f"B{k:02d}" for k in range(bands)]
        file.update_tags(ACQUIRED="2020-01-01", AREA_OR_POINT="Point", TIFFTAG_DATETIME="2020:01:01 00:00:00")
        file.update_tags(ns="SENSOR", angle="12.5")
        file.update_tags(1, wavelength="490", STATISTICS_MEAN="1")
        file.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red][:bands] + [ColorInterp.undefined] * (
            bands - 3
        )
    with rasterio.open(make(source, weight)) as out, rasterio.open(source) as before:
        for fact in ("count", "dtypes", "scales", "offsets", "units", "descriptions", "colorinterp", "crs", "nodata"):
            assert getattr(out, fact) == getattr(before, fact), fact
        assert out.tags() == before.tags() and out.tags(ns="SENSOR") == {"angle": "12.5"}
        assert out.tags(1) == {"wavelength": "490"}
        assert out.transform == before.transform * Affine.scale(0.5)
        means = out.read().reshape(bands, -1).mean(1), data.reshape(bands, -1).mean(1)
        assert means[0] == pytest.approx(means[1], rel=0.01)


def test_selected_bands(tmp_path, weight):
    source = write(tmp_path / "in.tif", (picture(5) * 3000 + 9).astype(np.uint16), nodata=0)
    with rasterio.open(source, "r+") as file:
        file.descriptions = tuple("abcde")
    with rasterio.open(make(source, weight, bands=(5, 3, 1), limits=(0, 4095))) as out:
        assert out.descriptions == ("e", "c", "a") and out.nodata == 0
        assert abs(out.read(1).mean() - (picture(5)[4] * 3000 + 9).mean()) < 15
    with pytest.raises(InputError, match="has 5 band"):
        make(source, weight, "none.tif", bands=(6,))


@pytest.mark.parametrize("place", ["gcps", "rpcs", "rotated", "none"])
def test_georeference_is_preserved(tmp_path, weight, place):
    data = (picture() * 250).astype(np.uint8)
    if place == "gcps":
        points = [
            GroundControlPoint(r, c, 7 + c / 100, 45 - r / 100, 3.0, str(k))
            for k, (r, c) in enumerate(((0, 0), (0, 56), (40, 0)))
        ]
        more = {"crs": None, "transform": None}
    elif place == "rpcs":
        more = {"crs": None, "transform": None}
        rpc = RPC(height_off=100.0, height_scale=50.0, lat_off=45.0, lat_scale=1.0, line_den_coeff=[1.0] + [0.0] * 19,
                  line_num_coeff=[0.0, 0.0, 1.0] + [0.0] * 17, line_off=19.5, line_scale=20.0, long_off=7.0, long_scale=1.0,
                  samp_den_coeff=[1.0] + [0.0] * 19, samp_num_coeff=[0.0, 1.0] + [0.0] * 18, samp_off=27.5, samp_scale=28.0,
                  err_bias=0.0, err_rand=0.0)  # fmt: skip
    else:
        more = (
            {"transform": Affine(3.0, 0.5, 500.0, 0.4, -3.0, 900.0)}
            if place == "rotated"
            else {"crs": None, "transform": None}
        )
    source = write(tmp_path / "in.tif", data, **more)
    with rasterio.open(source, "r+") as file:
        if place == "gcps":
            file.gcps = points, rasterio.crs.CRS.from_epsg(4326)
        if place == "rpcs":
            file.rpcs = rpc
    with rasterio.open(make(source, weight)) as out, rasterio.open(source) as before:
        if place == "gcps":
            assert out.gcps[1] == before.gcps[1]
            assert [(p.row, p.col, p.x, p.y, p.z) for p in out.gcps[0]] == [
                (2 * p.row, 2 * p.col, p.x, p.y, p.z) for p in points
            ]
        elif place == "rpcs":
            assert (out.rpcs.line_off, out.rpcs.samp_off, out.rpcs.line_scale, out.rpcs.samp_scale) == (
                39.5,
                55.5,
                40.0,
                56.0,
            )
            assert out.rpcs.line_num_coeff == rpc.line_num_coeff and out.rpcs.height_off == 100
        else:
            for row, column in ((0, 0), (40, 56), (7, 31)) if place == "rotated" else ():
                assert out.transform * (2 * column, 2 * row) == pytest.approx(before.transform * (column, row))
            assert (out.crs is None) == (place == "none")


LAYOUTS = [
    {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "zstd"},
    {"interleave": "band", "compress": "lzw", "predictor": 2},
    {"compress": "lzma"}, {"compress": "lerc"}, {"ENDIANNESS": "BIG"}, {"BIGTIFF": "YES"}, {"nbits": 12},
    {"tiled": True, "blockxsize": 16, "blockysize": 16, "SPARSE_OK": "TRUE", "nodata": 0},
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(map(str, layout.values())))
def test_result_does_not_depend_on_the_file_layout(tmp_path, weight, layout):
    data = (picture(3) * 3900 + 90).astype(np.uint16)
    data[:, :, :20] = 0
    plain = write(tmp_path / "plain.tif", data, nodata=0)
    source = write(tmp_path / "in.tif", data, **{"nodata": 0, **layout})
    with (
        rasterio.open(make(plain, weight, "expected.tif", limits=(0, 4095))) as expected,
        rasterio.open(make(source, weight, limits=(0, 4095))) as out,
    ):
        difference = out.read().astype(int) - np.minimum(
            expected.read().astype(int), 4095 if "nbits" in layout else 65535
        )
        assert np.abs(difference).max() == 0
        bits = out.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
        assert bits == ("12" if "nbits" in layout else None)


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_overviews_and_cloud_optimised_files(tmp_path, weight, driver):
    data = (picture(1, 260, 270) * 3000 + 50).astype(np.uint16)
    data[:, :40] = 0
    if driver == "COG":
        source = write(tmp_path / "in.tif", data, driver="COG", nodata=0, blocksize=128)
    else:
        source = write(tmp_path / "in.tif", data, nodata=0, tiled=True, blockxsize=128, blockysize=128)
        with rasterio.open(source, "r+") as file:
            file.build_overviews([2, 4], Resampling.average)
    with rasterio.open(make(source, weight, tile=256)) as out:
        assert out.overviews(1) and (out.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG") == (driver == "COG")
        assert out.nodata == 0 and (out.read(1)[:80] == 0).all() and out.read(1)[80:].min() > 30
        small = out.read(1, out_shape=(130, 135))
        assert abs(small[small > 0].mean() - data[data > 0].mean()) < 30


def test_tiles_have_no_seams(tmp_path, weight):
    """A scene with holes in tiles: equal to a single tile up to the effect of the limited context."""
    data = (picture(2, 150, 160) * 3000 + 50).astype(np.uint16)
    data[:, 60:80, 50:65] = 0
    source = write(tmp_path / "in.tif", data, nodata=0, alpha="NO")
    with (
        rasterio.open(make(source, weight, "whole.tif", limits=(0, 4095))) as whole,
        rasterio.open(make(source, weight, "tiles.tif", limits=(0, 4095), tile=64)) as tiled,
    ):
        difference = tiled.read().astype(float) - whole.read()
    assert np.sqrt((difference**2).mean()) < 1 and np.abs(difference).max() < 30  # of 3,000
    columns = np.abs(difference).mean(axis=(0, 1))
    assert columns.max() < 4 * (columns.mean() + 0.05)


def test_single_tile_equals_the_network(tmp_path, weight):
    data = (picture(3, 48, 48) * 255).astype(np.uint8)
    source = write(tmp_path / "in.tif", data, photometric="RGB")
    with torch.no_grad():
        frame = torch.from_numpy(data).float().div(255)
        expected = network()(torch.stack([frame] * 3)[None])[0].clamp(0, 1).mul(255).round()
    with rasterio.open(make(source, weight)) as out:
        assert np.abs(out.read().astype(float) - expected.numpy()).max() <= 1


def test_any_scale_with_stno(tmp_path, tmp_path_factory):
    save_weights(tmp_path / "s.safetensors", small_stno())
    source = write(tmp_path / "in.tif", (picture(2) * 1000 - 500).astype(np.int16), nodata=-32768, alpha="NO")
    with rasterio.open(make(source, tmp_path / "s.safetensors", scale=2.5)) as out:
        assert (out.height, out.width, out.count, out.dtypes[0]) == (100, 140, 2, "int16")
        assert out.res == pytest.approx((4.0, 4.0))


def test_profiles_and_images_without_georeference(tmp_path, weight):
    from PIL import Image, ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray((picture(3).transpose(1, 2, 0) * 255).astype(np.uint8)).save(
        tmp_path / "in.tif", icc_profile=profile
    )
    with Image.open(make(tmp_path / "in.tif", weight)) as out:
        assert out.info["icc_profile"] == profile and out.size == (112, 80) and out.mode == "RGB"


def test_scene_into_a_folder(tmp_path, weight):
    source = write(tmp_path / "in.tif", (picture() * 250).astype(np.uint8))
    make(source, weight, "large")
    assert [path.name for path in (tmp_path / "large").iterdir()] == ["in.tif"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("complex", "real numbers"),
        ("complex integers", "real numbers"),
        ("cut", r"in\.tif"),
        ("huge", r"in\.tif"),
        ("text", r"in\.tif"),
    ],
)
def test_unsupported_files_are_refused(tmp_path, weight, bad, message):
    source = tmp_path / "in.tif"
    if bad == "complex":
        write(source, picture().astype(np.complex64))
    elif bad == "complex integers":
        write(source, picture().astype(np.complex64), dtype="complex_int16")
    elif bad == "cut":
        write(source, (np.random.default_rng(0).random((1, 200, 200)) * 255).astype(np.uint8))
        source.write_bytes(source.read_bytes()[:9000])
    elif bad == "huge":
        with rasterio.open(source, "w", driver="GTiff", width=10**6, height=10**6, count=1, dtype="uint8", SPARSE_OK="TRUE",
                           BIGTIFF="YES", tiled=True, blockxsize=32768, blockysize=32768):  # fmt: skip
            pass
    else:
        source.write_bytes(b"II*\0 quota exceeded")
    with pytest.raises(InputError, match=message):
        make(source, weight)
    assert not (tmp_path / "out.tif").exists()


# --- kinds of files -----------------------------------------------------------------------------------------------------


def halves(values: tuple[int, int]) -> np.ndarray:
    """(1, 40, 56) uint8: the left half has one value, the right half another."""
    return np.broadcast_to(np.where(np.arange(56) < 28, *values), (1, 40, 56)).astype(np.uint8)


def test_one_bit_with_georeference_keeps_its_values(tmp_path, weight):
    source = write(tmp_path / "in.tif", halves((1, 0)), nbits=1, compress="ccittfax4")
    with rasterio.open(make(source, weight)) as out:
        assert out.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "1" and out.count == 1
        values = out.read(1)
        assert np.array_equal(values[:, :50], np.ones((80, 50))) and not values[:, 62:].any()


def test_white_is_zero_files(tmp_path, weight):
    data = halves((200, 60))
    data[:, :10] = 0  # rows
    source = write(tmp_path / "in.tif", data, photometric="MINISWHITE", nodata=0)
    with rasterio.open(make(source, weight)) as out, tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE and out.nodata == 0
        values = out.read(1)
        assert not values[:20].any() and (out.read_masks(1)[20:] == 255).all()
        assert abs(values[20:, :50].mean() - 200) < 2 and abs(values[20:, 62:].mean() - 60) < 2


def test_palette_becomes_rgb_and_its_nodata_a_mask(tmp_path, weight, capsys):
    data = halves((1, 2))
    data[:, :10] = 7
    source = write(tmp_path / "in.tif", data, photometric="palette", nodata=7)
    with rasterio.open(source, "r+") as file:
        file.write_colormap(1, {1: (200, 30, 40, 255), 2: (20, 130, 240, 255), 7: (0, 0, 0, 0)})
    with rasterio.open(make(source, weight)) as out:
        assert out.count == 3 and out.nodata is None and out.crs == PLACE["crs"]
        mask = out.dataset_mask() != 0
        assert not mask[:20].any() and mask[20:].all()
        assert np.abs(out.read()[:, 20:, :50].reshape(3, -1).mean(1) - (200, 30, 40)).max() < 2
        assert np.abs(out.read()[:, 20:, 62:].reshape(3, -1).mean(1) - (20, 130, 240)).max() < 2
    assert "is converted to RGB" in capsys.readouterr().out


@pytest.mark.parametrize("order", ["first", "second of six"])
def test_alpha_keeps_its_position_among_the_bands(tmp_path, weight, order):
    data = (picture(4 if order == "first" else 6) * 200 + 20).astype(np.uint8)
    place = 0 if order == "first" else 1
    data[place] = np.where(np.arange(56) < 10, 0, 255)
    if order == "first":
        source = write(tmp_path / "in.tif", data, photometric="MINISBLACK", alpha="NO")
        with rasterio.open(source, "r+") as file:
            file.colorinterp = [ColorInterp.alpha, ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    else:
        source = write(tmp_path / "in.tif", data, photometric="MINISBLACK", alpha="YES")
    with rasterio.open(make(source, weight)) as out, rasterio.open(source) as before:
        assert out.colorinterp == before.colorinterp and out.colorinterp[place] == ColorInterp.alpha
        assert np.array_equal(out.read(place + 1), np.kron(data[place], np.ones((2, 2), np.uint8)))
        for band in set(range(len(data))) - {place}:
            assert abs(out.read(band + 1)[:, 20:].mean() - data[band, :, 10:].mean()) < 2, band


def test_reference_system_without_a_transform(tmp_path, weight):
    source = write(tmp_path / "in.tif", (picture() * 250).astype(np.uint8), transform=None)
    with rasterio.open(make(source, weight)) as out:
        assert out.crs == PLACE["crs"] and out.transform.is_identity


def test_jpeg_2000_becomes_a_geotiff(tmp_path, weight):
    data = (picture(1, 64, 64) * 3000 + 100).astype(np.uint16)
    source = write(tmp_path / "in.jp2", data, driver="JP2OpenJPEG", quality=100, reversible="YES")
    with rasterio.open(make(source, weight)) as out:
        assert (out.driver, out.dtypes, out.crs) == ("GTiff", ("uint16",), PLACE["crs"])
        assert out.transform == PLACE["transform"] * Affine.scale(0.5)
        assert abs(out.read(1).mean() - data.mean()) < 15


def test_format_is_detected_from_content_not_suffix(tmp_path, weight):
    source = write(tmp_path / "in.gtiff", (picture() * 250).astype(np.uint8))
    with rasterio.open(make(source, weight)) as out:
        assert out.crs == PLACE["crs"]


# --- interruptions ----------------------------------------------------------------------------------------------------


def test_resumed_scene_equals_an_uninterrupted_one(tmp_path, weight, monkeypatch):
    source = write(tmp_path / "in.tif", (picture(4, 150, 70) * 3000 + 9).astype(np.uint16), nodata=0, alpha="NO")
    whole = make(source, weight, "whole.tif", tile=64)
    make_piece, made = scene_module.SceneJob.make_piece, []

    def failing(job, number, *rest):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(number)
        make_piece(job, number, *rest)

    monkeypatch.setattr(scene_module.SceneJob, "make_piece", failing)
    with pytest.raises(KeyboardInterrupt):
        make(source, weight, tile=64)
    pieces = tmp_path / ".out.tif.upscaling" / "pieces"
    temporary_path(pieces / "000003.zst").write_bytes(b"half")
    (pieces / "000001.zst").write_bytes((pieces / "000001.zst").read_bytes()[:-9])  # damaged: must be restored again
    monkeypatch.setattr(
        scene_module.SceneJob, "make_piece", lambda job, n, *rest: (made.append(n), make_piece(job, n, *rest))
    )
    out = make(source, weight, tile=64, resume=True)
    assert (
        out.read_bytes() == whole.read_bytes()
        and made[:3] == [0, 1, 2]
        and made[3] == 1
        and len(made) == len(set(made)) + 1
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tif", "out.tif", "whole.tif"]


@pytest.mark.slow
def test_twenty_kills_do_not_change_the_result(tmp_path, weight):
    """Each of 20 processes completes at least one of 147 pieces and is killed; the 21st finishes the file."""
    source = write(tmp_path / "in.tif", (picture(9, 1600, 64) * 3000 + 9).astype(np.uint16), nodata=0)
    whole, out, rng = tmp_path / "whole.tif", tmp_path / "out.tif", np.random.default_rng(0)
    how = ["--weight", weight, "--precision", "fp32", "--tile", "64", "--resume"]
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "upscale.py", source, out, *how]
    # the reference also runs in a subprocess, because this process has another number of threads
    subprocess.run([sys.executable, "upscale.py", source, whole, *how], check=True, **quiet)
    pieces = tmp_path / ".out.tif.upscaling" / "pieces"
    for _ in range(20):
        before = set(pieces.glob("*.zst"))
        process = subprocess.Popen(command, **quiet)
        while process.poll() is None and set(pieces.glob("*.zst")) <= before:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.03)
        assert process.poll() is None, "the file was finished before 20 kills"
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL and not out.exists()
    subprocess.run(command, check=True, **quiet)
    assert sha256(out) == sha256(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tif", "out.tif", "whole.tif"]


# --- parts ------------------------------------------------------------------------------------------------------------


def test_holes_take_the_nearest_value():
    values = np.array([[[1, 0, 0, 0, 9]], [[0, 0, 0, 0, 0]], [[1, 2, 3, 4, 5]]], np.int16)
    valid = np.array([[[1, 0, 0, 0, 1]], [[0, 0, 0, 0, 0]], [[1, 1, 1, 1, 1]]], bool)
    assert filled(values, valid)[0, 0, [0, 1, 3, 4]].tolist() == [1, 1, 9, 9]
    assert not filled(values, valid)[1].any() and filled(values, valid)[2].tolist() == values[2].tolist()
    assert filled(values, None) is values


def test_nearest_pixels_contain_the_centres():
    assert nearest(3, 6, 0, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert nearest(4, 10, 2, 7).tolist() == [1, 1, 1, 2, 2]
    assert nearest(5, 2, 0, 2).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("dtype", "missing", "source", "expected"),
    [
        ("uint16", 0, 7, 1),
        ("int16", 5, 2, 4),
        ("uint8", 255, 250, 254),
        ("float32", -1.0, 3.0, np.nextafter(np.float32(-1), np.float32(3))),
    ],
)
def test_measured_values_never_become_nodata(dtype, missing, source, expected):
    values = np.array([[[missing, source]]], dtype)
    keep_apart(values, [missing], np.full_like(values, source))
    assert values.tolist() == [[[expected, source]]]


def test_scene_equals_restore_in_tiles(tmp_path, weight):
    """Tiles that are stored by rows and blended later give the same result as `restore`."""
    from data.clips import ArrayClip
    from engine.restore import Options

    data = picture(3, 130, 110).astype(np.float32)
    source = write(tmp_path / "in.tif", data)
    clip = ArrayClip("in", [data.transpose(1, 2, 0)])
    expected = next(restore(network(), clip, options=Options(tile=64))).numpy()
    with rasterio.open(make(source, weight, tile=64)) as out:
        assert np.abs(out.read() - expected).max() < 1e-5


def test_series_of_scenes_keeps_its_holes(tmp_path, weight):
    """A series of scenes with nodata: each result is that of the clip with filled holes, with nodata restored."""
    from data.clips import ArrayClip

    frames = [np.roll((picture(4) * 2000 + 100).astype(np.int16), 2 * k, axis=2) for k in range(4)]
    shown = []
    (tmp_path / "in").mkdir()
    for k, frame in enumerate(frames):
        frame[:, 10 + k, 20:26] = -9999
        write(tmp_path / "in" / f"{k:03d}.tif", frame, nodata=-9999)
        valid = frame != -9999
        shown.append(filled(frame, valid)[:3].transpose(1, 2, 0).astype(np.float32) / 4095)
    make(tmp_path / "in", weight, "out", limits=(0, 4095))
    expected = list(restore(network(), ArrayClip("in", shown)))
    for k in range(4):
        with rasterio.open(tmp_path / "out" / f"{k:03d}.tif") as out:
            hole = np.kron(
                np.isin(np.arange(40), [10 + k])[:, None] & np.isin(np.arange(56), range(20, 26)), np.ones((2, 2), bool)
            )
            assert out.count == 4 and out.dtypes[0] == "int16" and out.nodata == -9999
            values = out.read()
            assert (values[:, hole] == -9999).all()
            assert np.abs(values[:3, ~hole] - expected[k].numpy()[:, ~hole] * 4095).max() <= 1


@pytest.mark.parametrize("kind", ["without rasterio", "stack", "png"])
def test_holes_of_other_tiffs_are_kept(tmp_path, weight, monkeypatch, kind):
    """nodata affects neither the network's input nor neighbouring pixels, and keeps its exact position."""
    pages = [(picture(1)[0] * 20000 + 20000).astype(np.uint16) for _ in range(3 if kind == "stack" else 1)]
    plain = [page.copy() for page in pages]
    for page, without in zip(pages, plain, strict=True):
        page[:, :16] = 7
        without[:, :16] = without[:, 16:17]
    results = []
    for name, content in (("plain", plain), ("holes", pages)):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as writer:
            for page in content:
                tags = [(42113, 2, 0, "7", True)] if name == "holes" else []
                writer.write(page, photometric="minisblack", metadata=None, extratags=tags)
        if kind == "without rasterio":
            monkeypatch.setattr("data.raster.available", lambda: False)
        suffix = "png" if kind == "png" else "tif"
        results.append(read_all(make(tmp_path / f"{name}.tif", weight, f"{name}_large.{suffix}")))
    expected, out = results
    assert (out[:, :, :32] == 7).all() and np.array_equal(out[:, :, 32:], expected[:, :, 32:])


def read_all(path: Path) -> np.ndarray:
    """(pages, H, W), read by tifffile."""
    with Image.open(path) as image:
        frames = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frames.append(np.asarray(image))
    return np.stack(frames)


def test_georeference_with_different_scales_of_the_axes():
    """10 rows and 20 columns become 20 rows and 80 columns with the same last corner."""

    transform = Affine(0.5, 0.1, 5e5, 0.2, -0.7, 4e6)
    scaled = _scaled_place({"transform": transform}, 2, 4)["transform"]
    assert scaled * (80, 20) == pytest.approx(transform * (20, 10))
