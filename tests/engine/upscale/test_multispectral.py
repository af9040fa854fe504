"""Stacks and folders of frames with more bands than colours: TIFF outputs hold all bands, with their metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.bands import Bands
from data.clips import FolderClip, SubClip, TiffStackClip
from data.media import read_image
from engine.upscale.job import ClipJob
from errors import InputError
from tests.engine.small import small_mtdo
from tests.engine.upscale.geotiff import PLACE, make, picture, stored, write

rasterio = pytest.importorskip("rasterio")
from rasterio.enums import ColorInterp  # noqa: E402
from rasterio.transform import Affine  # noqa: E402

PAGES = 3
NAMES = ("blue", "green", "red", "near infrared", "red edge", "coastal", "cirrus", "thermal")


def stack(path: Path, data: np.ndarray, **more) -> Path:
    """A TIFF of several pages, each with georeference, band names and scales. data: (bands, H, W); pages are scaled copies."""
    described = more.pop("described", True)
    for page in range(PAGES):
        write_page(path, (data * (1 - page / 50)).astype(data.dtype), page, described, more)
    return path


def write_page(path: Path, data: np.ndarray, page: int, described: bool, more: dict) -> None:
    count, height, width = data.shape
    options = {
        "driver": "GTiff",
        "count": count,
        "height": height,
        "width": width,
        "dtype": data.dtype,
        **PLACE,
        **more,
    }
    mode = {"APPEND_SUBDATASET": "YES"} if page else {}
    with rasterio.open(path, "w", **options, **mode) as file:
        file.write(data)
        if described:
            for band in range(count):
                file.set_band_description(band + 1, NAMES[band])
            file.scales, file.units = [1e-4 * (k + 1) for k in range(count)], ["W"] * count


def opened(path: Path, page: int = 0):
    return rasterio.open(f"GTIFF_DIR:{page + 1}:{path}" if path.suffix == ".tif" else sorted(path.iterdir())[page])


@pytest.mark.parametrize(("dtype", "bands", "out"), [
    ("uint8", 4, "out.tif"), ("uint16", 8, "out.tif"), ("int16", 5, "out"), ("float32", 4, "out"), ("float64", 6, "out.tif"),
    ("uint16", 2, "out.tif"), ("uint16", 7, "out"),
])  # fmt: skip
def test_all_bands_of_a_stack(scene_weight, tmp_path, dtype, bands, out):
    source = stack(tmp_path / "in.tif", stored(dtype, bands))
    result = make(source, scene_weight, out)
    for page in range(PAGES):
        with opened(source, page) as before, opened(result, page) as after:
            assert after.count == bands and after.dtypes == before.dtypes and after.crs == before.crs
            assert after.transform == before.transform * Affine.scale(0.5)
            assert after.descriptions == before.descriptions and after.units == before.units
            assert after.scales == pytest.approx(before.scales) and after.colorinterp == before.colorinterp
            truth, values = before.read().astype(np.float64), after.read().astype(np.float64)
            spread = np.ptp(truth, axis=(1, 2))
            assert (np.abs(values.mean((1, 2)) - truth.mean((1, 2))) < 0.01 * spread).all()
            assert (np.abs(values[:, ::2, ::2] - truth).max((1, 2)) < 0.1 * spread).all()  # its own band, not another


def test_every_group_is_restored_with_its_neighbouring_frames(weight, tmp_path):
    source = stack(tmp_path / "in.tif", stored("uint16", 5), described=False)
    result = make(source, weight, limits=(0, 10_000))
    network = small_mtdo()
    for numbers in ((1, 2, 3), (4,), (5,)):
        clip = TiffStackClip(source, bands=Bands(numbers, limits=(0, 10_000)))
        for page in range(PAGES):
            with torch.no_grad():
                expected = network(clip.window(page, 3)[None])[0].numpy() * 10_000
            expected = expected if len(numbers) == 3 else expected.mean(0, keepdims=True)
            with opened(result, page) as after:
                assert np.abs(after.read(numbers) - expected.clip(0)).max() < 2


@pytest.mark.parametrize(("dtype", "nodata"), [
    ("uint16", 0), ("int16", -9999), ("float32", float("nan")), ("uint8", 255), ("uint32", 4294967295), ("int32", -2147483648),
    ("float64", -1.7976931348623157e308),
])  # fmt: skip
def test_nodata_of_every_band(scene_weight, tmp_path, dtype, nodata):
    data = stored(dtype, 5)
    data[:, :, :10] = nodata
    data[3, 20:30] = nodata
    source = tmp_path / "in.tif"
    for page in range(PAGES):
        write_page(source, data, page, True, {"nodata": nodata})
    with opened(source, 1) as before, opened(make(source, scene_weight), 1) as after:
        assert after.nodata == nodata or np.isnan([after.nodata, nodata]).all()
        valid = np.kron(before.read_masks(), np.ones((1, 2, 2), np.uint8)) != 0
        assert np.array_equal(after.read_masks() != 0, valid)
        for band in range(5):
            truth = before.read(band + 1)[before.read_masks(band + 1) != 0].astype(np.float64)
            values = after.read(band + 1)[valid[band]].astype(np.float64)
            assert abs(values.mean() - truth.mean()) < 0.01 * np.ptp(truth)


def test_colours_with_near_infrared_and_transparency(scene_weight, tmp_path):
    data = np.concatenate([stored("uint8", 4), np.full((1, 40, 56), 255, np.uint8)])
    data[4, :, :10] = 0
    source = tmp_path / "in.tif"
    for page in range(PAGES):
        write_page(source, data, page, False, {"photometric": "RGB", "ALPHA": "NO"})
        with rasterio.open(f"GTIFF_DIR:{page + 1}:{source}", "r+") as file:
            red, green, blue = ColorInterp.red, ColorInterp.green, ColorInterp.blue
            file.colorinterp = [red, green, blue, ColorInterp.undefined, ColorInterp.alpha]
    with opened(source) as before, opened(make(source, scene_weight), 2) as after:
        assert (
            after.count == 5
            and after.colorinterp[:4] == before.colorinterp[:4]
            and after.colorinterp[4] == ColorInterp.alpha
        )
        assert after.read(5)[:, :18].max() == 0 and after.read(5)[:, 24:].min() == 255
        assert after.read(4).std() > 10


def test_folder_of_multispectral_frames_with_new_frames(tmp_path, weights):
    (tmp_path / "in").mkdir()
    for index in range(3):
        write(tmp_path / "in" / f"{index}.tif", stored("uint16", 4) + np.uint16(10 * index))
    result = make(tmp_path / "in", weights["stno"], "out", fps="x2", scale=2, scenes=False)
    assert len(list(result.iterdir())) == 5
    for path in result.iterdir():
        with rasterio.open(path) as file:
            assert file.count == 4 and file.dtypes[0] == "uint16" and file.transform.a == 5


def test_part_of_a_stack_keeps_all_bands(scene_weight, tmp_path):
    source = stack(tmp_path / "in.tif", stored("uint16", 4))
    result = make(source, scene_weight, begin=1 / 25, end=3 / 25)
    with opened(source, 1) as before, opened(result, 0) as after:
        assert after.count == 4 and after.read().mean() == pytest.approx(before.read().mean(), rel=0.01)


def test_interrupted_run_gives_the_same_bytes(scene_weight, tmp_path, monkeypatch):
    source = stack(tmp_path / "in.tif", stored("uint16", 5))
    complete = make(source, scene_weight, "complete.tif").read_bytes()
    kept, keep = [], ClipJob.keep

    def stop(job: ClipJob, index: int, frame: torch.Tensor) -> None:
        if kept:
            raise KeyboardInterrupt
        kept.append(index)
        keep(job, index, frame)

    monkeypatch.setattr(ClipJob, "keep", stop)
    with pytest.raises(KeyboardInterrupt):
        make(source, scene_weight, "part.tif")
    monkeypatch.undo()
    assert make(source, scene_weight, "part.tif", resume=True).read_bytes() == complete


@pytest.mark.parametrize("out", ["out.png", "out.mp4", "out.webp"])
def test_outputs_of_three_bands_ask_for_a_choice(weight, tmp_path, out):
    source = stack(tmp_path / "in.tif", stored("uint16", 4))
    with pytest.raises(
        InputError, match=r"has 4 bands, and a picture or video shows one or three.*--bands 3,2,1, or write .tif"
    ):
        make(source, weight, out)
    with pytest.raises(InputError, match="--bands"):
        make(source, weight, "frames", image_format="png")
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_comparison_and_chosen_bands(scene_weight, tmp_path):
    source = stack(tmp_path / "in.tif", stored("uint16", 5))
    make(source, scene_weight, "all.tif", compare=True)
    assert (tmp_path / "all_compare.mp4").is_file()
    with opened(make(source, scene_weight, "two.tif", bands=(4, 2, 1)), 1) as after:
        assert after.descriptions == (NAMES[3], NAMES[1], NAMES[0])
        assert after.scales == pytest.approx((4e-4, 2e-4, 1e-4))
    with pytest.raises(InputError, match="--trust is for one or three bands"):
        make(source, scene_weight, "trust.tif", trust=True)


def test_frames_with_another_number_of_bands_are_named(weight, tmp_path):
    (tmp_path / "in").mkdir()
    for index, bands in enumerate((5, 5, 4)):
        write(tmp_path / "in" / f"{index}.tif", (picture(bands) * 200).astype(np.uint8))
    clip = FolderClip(tmp_path / "in")
    with pytest.raises(InputError, match=r"2.tif: has 4 band\(s\), the clip's first frame has 5"):
        clip.examine()


def test_parts_of_a_clip(tmp_path):
    clip = TiffStackClip(stack(tmp_path / "in.tif", stored("uint16", 8)))
    assert clip.colourless_bands == 8 and len(clip.parts) == 1
    clip.take_all_bands()
    assert [part.bands.choice for part in clip.parts] == [(1, 2, 3), (4, 5, 6), (7,), (8,)]
    assert [part.array(0).shape[-1] for part in SubClip(clip, [1, 2]).parts] == [3, 3, 1, 1]


def test_two_bands_without_rasterio(weight, tmp_path, monkeypatch):
    write(tmp_path / "in.tif", (picture(2) * 60_000).astype(np.uint16))
    monkeypatch.setattr("data.raster.available", lambda: False)
    out = read_image(make(tmp_path / "in.tif", weight))
    assert out.shape == (80, 112, 2) and out.dtype == np.uint16
    assert np.abs(out[::2, ::2].astype(float) - read_image(tmp_path / "in.tif")).mean(axis=(0, 1)).max() < 3000
