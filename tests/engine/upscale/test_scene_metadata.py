"""Metadata of scenes: bands, georeference, profiles and file layouts, as read by rasterio."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from data.raster_place import scaled_place
from errors import InputError
from tests.engine.upscale.geotiff import PLACE, make, picture, write

rasterio = pytest.importorskip("rasterio")
from rasterio import shutil as raster_files  # noqa: E402
from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.enums import ColorInterp, Resampling  # noqa: E402
from rasterio.rpc import RPC  # noqa: E402
from rasterio.transform import Affine  # noqa: E402


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 8, 13])
def test_all_bands_and_their_metadata_are_kept(tmp_path, scene_weight, bands):
    data = (picture(bands) * 3000 + 100 * np.arange(bands)[:, None, None]).astype(np.uint16)
    source = write(tmp_path / "in.tif", data, alpha="NO", photometric="MINISBLACK")
    with rasterio.open(source, "r+") as file:
        file.scales, file.offsets = [1e-4 * (k + 1) for k in range(bands)], [-0.1 * k for k in range(bands)]
        file.units = [f"unit{k}" for k in range(bands)]
        file.descriptions = [f"B{k:02d}" for k in range(bands)]
        file.update_tags(ACQUIRED="2020-01-01", AREA_OR_POINT="Point", TIFFTAG_DATETIME="2020:01:01 00:00:00")
        file.update_tags(ns="SENSOR", angle="12.5")
        file.update_tags(1, wavelength="490", STATISTICS_MEAN="1")
        file.update_tags(bands, ns="IMAGERY", CENTRAL_WAVELENGTH_UM="0.665")
        file.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red][:bands] + [ColorInterp.undefined] * (
            bands - 3
        )
    with rasterio.open(make(source, scene_weight)) as out, rasterio.open(source) as before:
        for fact in ("count", "dtypes", "scales", "offsets", "units", "descriptions", "colorinterp", "crs", "nodata"):
            assert getattr(out, fact) == getattr(before, fact), fact
        assert out.tags() == before.tags() and out.tags(ns="SENSOR") == {"angle": "12.5"}
        assert out.tags(1) == {"wavelength": "490"}
        assert out.tags(bands, ns="IMAGERY") == {"CENTRAL_WAVELENGTH_UM": "0.665"}
        assert out.transform == before.transform * Affine.scale(0.5)
        means = out.read().reshape(bands, -1).mean(1), data.reshape(bands, -1).mean(1)
        assert means[0] == pytest.approx(means[1], rel=0.01)


@pytest.mark.parametrize(
    ("description", "kept"),
    [('{"shape": [40, 56]}', False), ("ImageJ=1.54f\nunit=um\n", False), ("harbour, noon", True)],
)
def test_descriptions_that_state_the_size_of_the_source_are_left_out(tmp_path, scene_weight, description, kept):
    tifffile.imwrite(tmp_path / "in.tif", picture()[0].astype(np.float32), description=description, metadata=None)
    with rasterio.open(make(tmp_path / "in.tif", scene_weight)) as out:
        assert (out.tags().get("TIFFTAG_IMAGEDESCRIPTION") == description) == kept


def test_selected_bands(tmp_path, scene_weight):
    source = write(tmp_path / "in.tif", (picture(5) * 3000 + 9).astype(np.uint16), nodata=0)
    with rasterio.open(source, "r+") as file:
        file.descriptions = tuple("abcde")
    with rasterio.open(make(source, scene_weight, bands=(5, 3, 1), limits=(0, 4095))) as out:
        assert out.descriptions == ("e", "c", "a") and out.nodata == 0
        assert abs(out.read(1).mean() - (picture(5)[4] * 3000 + 9).mean()) < 15
    with pytest.raises(InputError, match="has 5 band"):
        make(source, scene_weight, "none.tif", bands=(6,))


@pytest.mark.parametrize("place", ["gcps", "rpcs", "rotated", "none"])
def test_georeference_is_preserved(tmp_path, scene_weight, place):
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
    with rasterio.open(make(source, scene_weight)) as out, rasterio.open(source) as before:
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


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
@pytest.mark.parametrize("kind", ["Area", "Point"])
def test_ground_control_points_by_the_kind_of_pixels(tmp_path, scene_weight, kind, driver):
    """The tie points in the file: of pixel edges, or of pixel centres (half a pixel less) if pixels are points."""
    source, half = tmp_path / "in.tif", 0.5 if kind == "Point" else 0.0
    places = [(0, 0), (0, 56), (40, 0), (39.25, 55.5)]
    ties = np.array([[c - half, r - half, 0, 7 + c / 100, 45 - r / 100, 0] for r, c in places])
    keys = (1, 1, 0, 3, 1024, 0, 1, 2, 1025, 0, 1, 2 if half else 1, 2048, 0, 1, 4326)
    data = (picture()[0] * 250).astype(np.uint8)
    tifffile.imwrite(source, data, extratags=[(33922, 12, 24, ties.ravel(), True), (34735, 3, 16, keys, True)])
    if driver == "COG":
        raster_files.copy(source, tmp_path / "cog.tif", driver="COG")
        source = tmp_path / "cog.tif"
        with rasterio.open(source) as file:  # GDAL may have moved them
            ties[:, :2] = [(p.col - half, p.row - half) for p in file.gcps[0]]
    with tifffile.TiffFile(make(source, scene_weight)) as out:
        written = np.reshape(out.pages[0].tags[33922].value, (4, 6))
    np.testing.assert_allclose(written[:, :2], (ties[:, :2] + half) * 2 - half, atol=1e-9)
    np.testing.assert_allclose(written[:, 2:], ties[:, 2:])


@pytest.mark.parametrize(("convention", "offset"), [("TOP_LEFT_CORNER", "6"), ("PIXEL_CENTER", "6.5")])
def test_geolocation_arrays(tmp_path, scene_weight, convention, offset):
    """An array value for every second pixel from the fourth on is one for every fourth pixel of the result."""
    source = write(tmp_path / "in.tif", (picture() * 250).astype(np.uint8), crs=None, transform=None)
    tags = {"X_DATASET": "x.tif", "PIXEL_OFFSET": "3", "PIXEL_STEP": "2", "GEOREFERENCING_CONVENTION": convention}
    with rasterio.open(source, "r+") as file:
        file.update_tags(ns="GEOLOCATION", **tags)
    with rasterio.open(make(source, scene_weight)) as out:
        found = out.tags(ns="GEOLOCATION")
    assert found["X_DATASET"] == "x.tif" and (found["PIXEL_OFFSET"], found["PIXEL_STEP"]) == (offset, "4")
    assert (found["LINE_OFFSET"], found["LINE_STEP"]) == ("0" if offset == "6" else "0.5", "2")


def test_reference_system_without_a_transform(tmp_path, scene_weight):
    source = write(tmp_path / "in.tif", (picture() * 250).astype(np.uint8), transform=None)
    with rasterio.open(make(source, scene_weight)) as out:
        assert out.crs == PLACE["crs"] and out.transform.is_identity


def test_georeference_with_different_scales_of_the_axes():
    """10 rows and 20 columns become 20 rows and 80 columns with the same last corner."""

    transform = Affine(0.5, 0.1, 5e5, 0.2, -0.7, 4e6)
    scaled = scaled_place({"transform": transform}, 2, 4)["transform"]
    assert scaled * (80, 20) == pytest.approx(transform * (20, 10))


LAYOUTS = [
    {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "zstd"},
    {"interleave": "band", "compress": "lzw", "predictor": 2},
    {"compress": "lzma"}, {"compress": "lerc"}, {"ENDIANNESS": "BIG"}, {"BIGTIFF": "YES"}, {"nbits": 12},
    {"tiled": True, "blockxsize": 16, "blockysize": 16, "SPARSE_OK": "TRUE", "nodata": 0},
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(map(str, layout.values())))
def test_result_does_not_depend_on_the_file_layout(tmp_path, scene_weight, layout):
    data = (picture(3) * 3900 + 90).astype(np.uint16)
    data[:, :, :20] = 0
    plain = write(tmp_path / "plain.tif", data, nodata=0)
    source = write(tmp_path / "in.tif", data, **{"nodata": 0, **layout})
    with (
        rasterio.open(make(plain, scene_weight, "expected.tif", limits=(0, 4095))) as expected,
        rasterio.open(make(source, scene_weight, limits=(0, 4095))) as out,
    ):
        difference = out.read().astype(int) - np.minimum(
            expected.read().astype(int), 4095 if "nbits" in layout else 65535
        )
        assert np.abs(difference).max() == 0
        bits = out.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
        assert bits == ("12" if "nbits" in layout else None)


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_overviews_and_cloud_optimised_files(tmp_path, scene_weight, driver):
    data = (picture(1, 260, 270) * 3000 + 50).astype(np.uint16)
    data[:, :40] = 0
    if driver == "COG":
        source = write(tmp_path / "in.tif", data, driver="COG", nodata=0, blocksize=128)
    else:
        source = write(tmp_path / "in.tif", data, nodata=0, tiled=True, blockxsize=128, blockysize=128)
        with rasterio.open(source, "r+") as file:
            file.build_overviews([2, 4], Resampling.average)
    with rasterio.open(make(source, scene_weight, tile=256)) as out:
        assert out.overviews(1) and (out.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG") == (driver == "COG")
        assert out.nodata == 0 and (out.read(1)[:80] == 0).all() and out.read(1)[80:].min() > 30
        small = out.read(1, out_shape=(130, 135))
        assert abs(small[small > 0].mean() - data[data > 0].mean()) < 30


def test_profiles_and_images_without_georeference(tmp_path, scene_weight):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray((picture(3).transpose(1, 2, 0) * 255).astype(np.uint8)).save(
        tmp_path / "in.tif", icc_profile=profile
    )
    with Image.open(make(tmp_path / "in.tif", scene_weight)) as out:
        assert out.info["icc_profile"] == profile and out.size == (112, 80) and out.mode == "RGB"
