"""Kinds of scenes: palettes, one bit, inverted gray, JPEG 2000, and files that are refused."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tifffile

from errors import InputError
from tests.engine.upscale.geotiff import PLACE, halves, make, picture, stored, write

rasterio = pytest.importorskip("rasterio")
from rasterio.enums import ColorInterp, Resampling  # noqa: E402
from rasterio.shutil import copy  # noqa: E402
from rasterio.transform import Affine  # noqa: E402


def test_one_bit_with_georeference_keeps_its_values(tmp_path, scene_weight):
    source = write(tmp_path / "in.tif", halves((1, 0)), nbits=1, compress="ccittfax4")
    with rasterio.open(make(source, scene_weight)) as out:
        assert out.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "1" and out.count == 1
        values = out.read(1)
        assert np.array_equal(values[:, :50], np.ones((80, 50))) and not values[:, 62:].any()


def test_white_is_zero_files(tmp_path, scene_weight):
    data = halves((200, 60))
    data[:, :10] = 0  # rows
    source = write(tmp_path / "in.tif", data, photometric="MINISWHITE", nodata=0)
    with rasterio.open(make(source, scene_weight)) as out, tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE and out.nodata == 0
        values = out.read(1)
        assert not values[:20].any() and (out.read_masks(1)[20:] == 255).all()
        assert abs(values[20:, :50].mean() - 200) < 2 and abs(values[20:, 62:].mean() - 60) < 2


def test_palette_becomes_rgb_and_its_nodata_a_mask(tmp_path, scene_weight, capsys):
    data = halves((1, 2))
    data[:, :10] = 7
    source = write(tmp_path / "in.tif", data, photometric="palette", nodata=7, crs=None, transform=None)
    with rasterio.open(source, "r+") as file:
        file.write_colormap(1, {1: (200, 30, 40, 255), 2: (20, 130, 240, 255), 7: (0, 0, 0, 0)})
    with rasterio.open(make(source, scene_weight)) as out:
        assert out.count == 3 and out.nodata is None
        mask = out.dataset_mask() != 0
        assert not mask[:20].any() and mask[20:].all()
        assert np.abs(out.read()[:, 20:, :50].reshape(3, -1).mean(1) - (200, 30, 40)).max() < 2
        assert np.abs(out.read()[:, 20:, 62:].reshape(3, -1).mean(1) - (20, 130, 240)).max() < 2
    assert "is converted to RGB" in capsys.readouterr().out


def test_jpeg_2000_becomes_a_geotiff(tmp_path, scene_weight):
    data = (picture(1, 64, 64) * 3000 + 100).astype(np.uint16)
    source = write(tmp_path / "in.jp2", data, driver="JP2OpenJPEG", quality=100, reversible="YES")
    with rasterio.open(make(source, scene_weight)) as out:
        assert (out.driver, out.dtypes, out.crs) == ("GTiff", ("uint16",), PLACE["crs"])
        assert out.transform == PLACE["transform"] * Affine.scale(0.5)
        assert abs(out.read(1).mean() - data.mean()) < 15


def test_format_is_detected_from_content_not_suffix(tmp_path, scene_weight):
    source = write(tmp_path / "in.gtiff", (picture() * 250).astype(np.uint8))
    with rasterio.open(make(source, scene_weight)) as out:
        assert out.crs == PLACE["crs"]


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
def test_unsupported_files_are_refused(tmp_path, scene_weight, bad, message):
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
        make(source, scene_weight)
    assert not (tmp_path / "out.tif").exists()


COLOURS = {10: (0, 100, 0, 255), 80: (0, 0, 200, 255), 255: (0, 0, 0, 0)}


@pytest.mark.parametrize("layout", ["plain", "overviews", "cog"])
def test_classes_are_enlarged_by_nearest_neighbour(tmp_path, scene_weight, capsys, layout):
    """A georeferenced palette with few colours, such as land cover: numbers, colours and nodata stay as they are."""
    data = np.where(np.arange(600)[:, None] % 7 < 3, 10, np.where(np.arange(560) % 5 < 2, 80, 255)).astype(np.uint8)[
        None
    ]
    data = data if layout != "plain" else data[:, :40, :56]
    source = write(tmp_path / "in.tif", data, photometric="PALETTE", nodata=255)
    with rasterio.open(source, "r+") as file:
        file.write_colormap(1, COLOURS)
        if layout == "overviews":
            file.build_overviews([2], Resampling.nearest)
    if layout == "cog":
        copy(source, tmp_path / "cog.tif", driver="COG", OVERVIEW_RESAMPLING="NEAREST", BLOCKSIZE=128)
        source = tmp_path / "cog.tif"
    with rasterio.open(make(source, scene_weight)) as out:
        assert (out.count, out.dtypes, out.nodata, out.colorinterp) == (1, ("uint8",), 255, (ColorInterp.palette,))
        assert np.array_equal(out.read(1), np.kron(data[0], np.ones((2, 2), np.uint8)))
        assert {number: out.colormap(1)[number][:3] for number in (10, 80)} == {10: (0, 100, 0), 80: (0, 0, 200)}
        if layout != "plain":
            assert set(np.unique(out.read(1, out_shape=(300, 280)))) <= {10, 80, 255}
    assert "are taken for classes or flags and enlarged by nearest neighbour" in capsys.readouterr().out


def write_with_colours(path, data, colours, place):
    """As in rasterio's documentation: GDAL then leaves the file a grey one with a table of colours."""
    options = {"driver": "GTiff", "height": 40, "width": 56, "count": 1, "dtype": data.dtype, **place}
    with rasterio.open(path, "w", **options) as file:
        file.write(data)
        file.write_colormap(1, colours)
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].photometric == 1
    return path


@pytest.mark.parametrize("place", [PLACE, {"crs": None, "transform": None}], ids=["georeferenced", "no place"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_classes_written_with_rasterio(tmp_path, scene_weight, place, dtype):
    data = np.where(np.arange(40)[:, None] % 7 < 3, 10, 80).astype(dtype) * np.ones((1, 1, 56), dtype)
    source = write_with_colours(tmp_path / "in.tif", data, COLOURS, place)
    with rasterio.open(make(source, scene_weight)) as out:
        assert (out.count, out.dtypes, out.colorinterp) == (1, (dtype,), (ColorInterp.palette,))
        assert np.array_equal(out.read(1), np.kron(data[0], np.ones((2, 2), dtype)))
        assert [out.colormap(1)[number][:3] for number in (10, 80)] == [(0, 100, 0), (0, 0, 200)]


def test_values_keep_their_table_of_colours(tmp_path, scene_weight):
    """A table for the display of many values, such as of an index of vegetation, does not make them a picture."""
    data = (picture(1) * 255).astype(np.uint8)
    colours = {k: (k, 255 - k, 7, 255) for k in range(256)}
    source = write_with_colours(tmp_path / "in.tif", data, colours, PLACE)
    with rasterio.open(make(source, scene_weight)) as out:
        assert (out.count, out.colorinterp, out.colormap(1)[9]) == (1, (ColorInterp.palette,), (9, 246, 7, 255))
        assert abs(out.read(1).mean() - data.mean()) < 2
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages[0].photometric == 1


def test_palette_of_a_picture_becomes_rgb(tmp_path, scene_weight, capsys):
    """A palette without a georeference, or with many colours, holds the colours of a picture."""
    numbers = np.arange(40 * 56).reshape(1, 40, 56) % 100
    source = write(tmp_path / "in.tif", numbers.astype(np.uint8), photometric="PALETTE")
    with rasterio.open(source, "r+") as file:
        file.write_colormap(1, {k: (k, 2 * k, 255 - k, 255) for k in range(100)})
    with rasterio.open(make(source, scene_weight)) as out:
        assert out.count == 3 and abs(out.read(2).mean() - 2 * out.read(1).mean()) < 3
    assert "is converted to RGB" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_premultiplied_alpha_becomes_straight(tmp_path, scene_weight, dtype):
    top = np.iinfo(dtype).max
    colours = np.rint(picture(3) * top * 0.9)
    alpha = np.where(np.arange(56) < 28, top, top // 2) * np.ones((1, 40, 1))
    data = np.concatenate([np.rint(colours * alpha / top), alpha]).astype(dtype)
    source = write(tmp_path / "in.tif", data, photometric="RGB", alpha="PREMULTIPLIED")
    with rasterio.open(make(source, scene_weight)) as out, tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages[0].extrasamples == (2,)
        assert np.array_equal(out.read(4), np.kron(data[3], np.ones((2, 2), dtype)))
        for band in range(3):
            for part in (slice(0, 28), slice(28, 56)):
                large = out.read(band + 1)[:, 2 * part.start : 2 * part.stop]
                assert abs(large.mean() - colours[band][:, part].mean()) < 0.01 * top


@pytest.mark.parametrize("low", [0.02, 0.93])
def test_floats_of_a_small_range_are_stretched(tmp_path, scene_weight, low):
    """Reflectances and backscatter, which would be nearly constant for the network."""
    data = (picture() * 0.01 + low).astype(np.float32)
    with rasterio.open(make(write(tmp_path / "in.tif", data), scene_weight)) as out:
        assert out.read(1).mean() == pytest.approx(data.mean(), rel=1e-3)
        assert out.read(1).std() == pytest.approx(data.std(), rel=0.01)


@pytest.mark.parametrize("stack", [False, True])
@pytest.mark.parametrize(("low", "high", "taken"), [(-1.0, 1.0, False), (0.0, 1.8, False), (-0.02, 1.03, True)])
def test_floats_beyond_0_to_1_are_stretched(tmp_path, scene_weight, capsys, low, high, taken, stack):
    """An index such as NDVI, of -1 to 1, is nothing that the network has seen; values that overshoot are."""
    data = (picture() * (high - low) + low).astype(np.float32)
    data[:, 0, 0] = 1.4  # a glint
    if stack:
        tifffile.imwrite(tmp_path / "in.tif", np.repeat(data, 2, axis=0), photometric="minisblack", metadata=None)
    else:
        write(tmp_path / "in.tif", data)
    make(tmp_path / "in.tif", scene_weight)
    assert ("are stretched" in capsys.readouterr().out) != taken


@pytest.mark.parametrize("kind", ["jp2 to png", "vrt", "envi"])
def test_rasters_that_are_not_read_name_the_remedy(tmp_path, scene_weight, kind):
    source = write(tmp_path / "in.jp2", (picture(1, 64, 64) * 250).astype(np.uint8), driver="JP2OpenJPEG")
    if kind == "jp2 to png":
        with pytest.raises(InputError, match=r"becomes a GeoTIFF: name the output \.tif"):
            make(source, scene_weight, "out.png")
        return
    name = "in.vrt" if kind == "vrt" else "in.dat"
    copy(source, tmp_path / name, driver="VRT" if kind == "vrt" else "ENVI")
    with pytest.raises(InputError, match=rf"are not read; .*gdal_translate '{name}' 'in\.tif'"):
        make(tmp_path / name, scene_weight)


@pytest.mark.parametrize("out", ["out.png", "out.tif"])
def test_palette_restored_in_memory_is_reported(tmp_path, scene_weight, capsys, monkeypatch, out):
    source = write(tmp_path / "in.tif", halves((10, 80)), photometric="PALETTE")
    with rasterio.open(source, "r+") as file:
        file.write_colormap(1, COLOURS)
    monkeypatch.setattr("data.raster.available", lambda: False)
    make(source, scene_weight, out)
    assert "'in.tif': its palette is converted to RGB" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["city_mask.tif", "labels.tif", "ESA_WorldCover_10m.tif", "NLCD2019.tif"])
def test_likely_names_of_classes_with_few_values(tmp_path, scene_weight, name):
    data = np.where(picture(1) > 0.5, 4, 1).astype(np.uint8)
    with rasterio.open(make(write(tmp_path / name, data), scene_weight, "a.tif")) as out:
        assert np.array_equal(out.read(), np.kron(data, np.ones((1, 2, 2), np.uint8)))
    (tmp_path / "a.tif").unlink()
    many = (picture(1) * 250).astype(np.uint8)
    with rasterio.open(make(write(tmp_path / name, many), scene_weight, "a.tif")) as out:
        assert not np.array_equal(out.read(), np.kron(many, np.ones((1, 2, 2), np.uint8)))


CATEGORIES = "<PAMDataset><PAMRasterBand band='1'><CategoryNames><Category>sea</Category></CategoryNames></PAMRasterBand></PAMDataset>"


@pytest.mark.parametrize(
    "name", ["T32_SCL_20m.tif", "LC08_QA_PIXEL.TIF", "x_udm2.tif", "land_cover.tif", "in.tif", "scale.tif"]
)
def test_layers_of_classes_and_flags_are_not_interpolated(tmp_path, scene_weight, capsys, name):
    """Known by their names, or by names of categories in `.aux.xml`."""
    data = np.where(picture(2) > 0.5, 21824, 1).astype(np.uint16)
    source = write(tmp_path / name, data, nodata=1)
    if name == "in.tif":
        (tmp_path / "in.tif.aux.xml").write_text(CATEGORIES)
    with rasterio.open(make(source, scene_weight, "out_large.tif")) as out:
        exact = np.array_equal(out.read(), np.kron(data, np.ones((1, 2, 2), np.uint16)))
        assert out.nodata == 1 and exact == (name != "scale.tif")
    assert ("classes or flags" in capsys.readouterr().out) == (name != "scale.tif")


@pytest.mark.parametrize(("source", "out"), [(b"caf\xe9.tif", b"out.tif"), (b"in.tif", b"caf\xe9.tif")])
def test_names_that_gdal_cannot_open_are_refused_before_the_work(tmp_path, scene_weight, source, out):
    path = tmp_path / os.fsdecode(source)
    try:
        write(tmp_path / "plain.tif", stored("uint16")).rename(path)
    except OSError:
        pytest.skip("a file system of UTF-8 names")
    with pytest.raises(InputError, match="not valid UTF-8, which GDAL needs for GeoTIFF: rename it"):
        make(path, scene_weight, os.fsdecode(out))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_compression_that_gdal_does_not_read_is_refused_with_the_remedy(tmp_path, scene_weight):
    values = (np.arange(32 * 40).reshape(32, 40) * 3).astype(np.uint16)
    how = {"compression": "jpeg", "compressionargs": {"bitspersample": 12}, "bitspersample": 12}
    tifffile.imwrite(tmp_path / "in.tif", values, **how)
    with pytest.raises(InputError, match=r"compressed in a way that GDAL does not read: convert it first"):
        make(tmp_path / "in.tif", scene_weight)
    assert not (tmp_path / "out.tif").exists()
