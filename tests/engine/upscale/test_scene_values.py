"""Values of scenes: types, units, nodata, masks and transparency, as read by rasterio."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from data.validity import filled, keep_apart, nearest, undeclared_fill
from errors import InputError
from tests.engine.upscale.geotiff import make, picture, stored, write

rasterio = pytest.importorskip("rasterio")
from rasterio.enums import ColorInterp  # noqa: E402
from rasterio.transform import Affine  # noqa: E402

TYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("nodata", [None, 0, -9999, float("nan")])
def test_every_type_keeps_its_units_and_nodata(tmp_path, scene_weight, dtype, nodata):
    kind = np.dtype(dtype)
    if nodata is not None and (not np.can_cast(np.min_scalar_type(nodata), kind) if kind.kind != "f" else False):
        pytest.skip("the type does not hold the value")
    data = stored(dtype)
    if nodata is not None:
        data[:, :, :14] = nodata
        data[:, 20, 30] = nodata
    source = write(tmp_path / "in.tif", data, nodata=nodata)
    with rasterio.open(make(source, scene_weight)) as out, rasterio.open(source) as before:
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


def test_hole_does_not_change_neighbouring_pixels(tmp_path, scene_weight):
    """Next to a hole the result is that of a scene in which the hole has the values at its edge."""
    data = (picture() * 2000 + 100).astype(np.uint16)
    data[:, :, :16] = data[:, :, 16:17]
    plain = write(tmp_path / "plain.tif", data)
    data[:, :, :16] = 0
    source = write(tmp_path / "in.tif", data, nodata=0)
    results = [make(path, scene_weight, f"{path.stem}_large.tif", limits=(0, 4095)) for path in (plain, source)]
    with rasterio.open(results[0]) as expected, rasterio.open(results[1]) as out:
        assert np.array_equal(out.read(1)[:, 32:], expected.read(1)[:, 32:])


@pytest.mark.parametrize("inside", [True, False])
def test_masks(tmp_path, scene_weight, inside):
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
    with rasterio.open(make(source, scene_weight)) as out:
        assert np.array_equal(out.dataset_mask() != 0, np.kron(mask, np.ones((2, 2), bool)))
        assert out.read()[:, out.dataset_mask() != 0].max() < 230
    assert not (tmp_path / "out.tif.msk").exists()


@pytest.mark.parametrize("bands", [2, 4])
def test_alpha(tmp_path, scene_weight, bands):
    data = (picture(bands) * 200 + 20).astype(np.uint8)
    data[-1] = 255
    data[:, :10] = 0
    source = write(tmp_path / "in.tif", data, photometric="RGB" if bands == 4 else "MINISBLACK", alpha="YES")
    with rasterio.open(make(source, scene_weight)) as out, rasterio.open(source) as before:
        assert out.colorinterp == before.colorinterp and out.colorinterp[-1] == ColorInterp.alpha
        values = out.read()
        assert np.array_equal(values[-1], np.kron(data[-1], np.ones((2, 2), np.uint8)))
        assert values[:-1, :20].max() == 0 and values[:-1, 20:].min() > 10
    with rasterio.open(make(source, scene_weight, "bands.tif", bands=(1,))) as out:
        assert out.count == 1 and np.array_equal(out.read_masks(1) != 0, values[-1] != 0)


@pytest.mark.parametrize("order", ["first", "second of six"])
def test_alpha_keeps_its_position_among_the_bands(tmp_path, scene_weight, order):
    data = (picture(4 if order == "first" else 6) * 200 + 20).astype(np.uint8)
    place = 0 if order == "first" else 1
    data[place] = np.where(np.arange(56) < 10, 0, 255)
    if order == "first":
        source = write(tmp_path / "in.tif", data, photometric="MINISBLACK", alpha="NO")
        with rasterio.open(source, "r+") as file:
            file.colorinterp = [ColorInterp.alpha, ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    else:
        source = write(tmp_path / "in.tif", data, photometric="MINISBLACK", alpha="YES")
    with rasterio.open(make(source, scene_weight)) as out, rasterio.open(source) as before:
        assert out.colorinterp == before.colorinterp and out.colorinterp[place] == ColorInterp.alpha
        assert np.array_equal(out.read(place + 1), np.kron(data[place], np.ones((2, 2), np.uint8)))
        for band in set(range(len(data))) - {place}:
            assert abs(out.read(band + 1)[:, 20:].mean() - data[band, :, 10:].mean()) < 2, band


def test_nodata_per_band(tmp_path, scene_weight):
    data = (picture(3) * 2000 + 100).astype(np.int16)
    for band, missing in enumerate((5, -7)):
        data[band, 10 * band : 10 * band + 8] = missing
    source = write(tmp_path / "in.tif", data)
    bands = "".join(
        f'<PAMRasterBand band="{k}"><NoDataValue>{v}</NoDataValue></PAMRasterBand>' for k, v in ((1, 5), (2, -7))
    )
    (tmp_path / "in.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    with rasterio.open(make(source, scene_weight)) as out:
        assert out.nodatavals == (5.0, -7.0, None)
        for band in (1, 2, 3):
            expected = np.full((80, 112), True)
            if band < 3:
                expected[20 * (band - 1) : 20 * (band - 1) + 16] = False
            assert np.array_equal(out.read_masks(band) != 0, expected)
            assert out.read(band)[expected].min() > 50


@pytest.mark.parametrize("stack", [False, True])
@pytest.mark.parametrize(
    ("dtype", "fill"), [("float32", -9999), ("float32", np.finfo(np.float32).min), ("int16", -32768), ("float64", 1e30)]
)
def test_undeclared_marks_of_missing_values_are_holes(tmp_path, scene_weight, capsys, dtype, fill, stack):
    """They neither take up the range of values nor change their neighbours; the file remains without nodata."""
    plain = (picture() * 3000 + 50).astype(dtype)
    plain[:, :, :16] = plain[:, :, 16:17]
    holes = plain.copy()
    holes[:, :, :16] = fill
    results = []
    for name, data in (("plain", plain), ("holes", holes)):
        if stack:
            pages = np.repeat(data, 2, axis=0)
            tifffile.imwrite(tmp_path / f"{name}.tif", pages, photometric="minisblack", metadata=None)
        else:
            write(tmp_path / f"{name}.tif", data)
        capsys.readouterr()
        out = make(tmp_path / f"{name}.tif", scene_weight, f"{name}_large.tif", limits=(0, 4000))
        assert ("are taken for missing ones" in capsys.readouterr().out) == (name == "holes")
        results.append(tifffile.imread(out).reshape(-1, 80, 112)[0])
    assert (results[1][:, :32] == np.dtype(dtype).type(fill)).all()
    assert np.array_equal(results[1][:, 32:], results[0][:, 32:])


@pytest.mark.parametrize("data", [np.arange(-9999.0, 4000, 7), np.array([-9999.0, -4000, 3000]), np.full(3, -9999.0)])
def test_values_that_only_look_like_marks_are_kept(data):
    assert undeclared_fill(data[None], None) is None
    assert undeclared_fill(np.full((1, 3), 65535, np.uint16), None) is None


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
        ("uint8", 0, 0, 0),
        ("float32", -1.0, 3.0, np.nextafter(np.float32(-1), np.float32(3))),
    ],
)
def test_measured_values_never_become_nodata(dtype, missing, source, expected):
    values = np.array([[[missing, source]]], dtype)
    keep_apart(values, [missing], np.full_like(values, source))
    assert values.tolist() == [[[expected, source]]]


@pytest.mark.parametrize("ending", [".aux.xml", ".msk", ".ovr"])
def test_sidecar_files_of_an_earlier_result_are_not_applied(tmp_path, scene_weight, ending):
    """GDAL would take nodata, masks or overviews of the earlier file for those of the new one."""
    source = write(tmp_path / "in.tif", (picture() * 200 + 20).astype(np.uint8))
    with rasterio.open(make(source, scene_weight, "expected.tif")) as file:
        expected = file.read(1, masked=True)
    stale = tmp_path / f"out.tif{ending}"
    stale.write_text("<PAMDataset><PAMRasterBand band='1'><NoDataValue>100</NoDataValue></PAMRasterBand></PAMDataset>")
    with pytest.raises(InputError, match=r"belongs to an earlier 'out\.tif'"):
        make(source, scene_weight)
    assert stale.is_file() and not (tmp_path / "out.tif").exists()
    with rasterio.open(make(source, scene_weight, overwrite=True)) as out:
        assert not stale.exists() and np.array_equal(out.read(1, masked=True), expected)


def test_nodata_and_mask_together(tmp_path, scene_weight):
    """GDAL ignores nodata where a mask exists: the mask stays as it is, and the values of nodata do not spread."""
    mask = np.arange(40)[:, None] + np.zeros((1, 56)) >= 5
    data = (picture() * 200 + 20).astype(np.uint8)
    data[:, 30:] = 0
    source = write(tmp_path / "in.tif", data, mask, nodata=0)
    with rasterio.open(make(source, scene_weight)) as out:
        assert out.nodata == 0 and np.array_equal(out.dataset_mask() != 0, np.kron(mask, np.ones((2, 2))) != 0)
        values = out.read(1)
        assert (
            not values[60:].any() and abs(values[10:60].mean() - data[0, 5:30].mean()) < 1 and values[10:60].min() > 10
        )


@pytest.mark.parametrize(("dtype", "nodata"), [("int64", -(2**63)), ("uint64", 2**64 - 1), ("int64", 2**53 + 1)])
def test_nodata_beyond_the_exact_integers_of_float64(tmp_path, scene_weight, dtype, nodata):
    data = (picture()[0] * 1000 + 10).astype(dtype)
    data[:9] = nodata
    tags = [(42113, 2, 0, str(nodata), True), (33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0,) * 6, True)]
    tifffile.imwrite(tmp_path / "in.tif", data, metadata=None, extratags=tags)
    with rasterio.open(make(tmp_path / "in.tif", scene_weight)) as out, rasterio.open(tmp_path / "in.tif") as before:
        assert out.dtypes == (dtype,) and out.nodata == before.nodata
        values, masks = out.read(1), out.read_masks(1) != 0
        assert (values[:18] == nodata).all() and not masks[:18].any() and masks[18:].all()
        assert abs(values[18:].astype(float).mean() - data[9:].astype(float).mean()) < 5
