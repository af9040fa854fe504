"""Restoration of scenes: tiles, scales, series of scenes and TIFFs read without rasterio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from data.validity import filled
from engine.checkpoint import save_weights
from engine.restore import restore
from tests.engine.small import near_bicubic_mtdo, small_stno
from tests.engine.upscale.geotiff import make, picture, write

rasterio = pytest.importorskip("rasterio")


def test_tiles_have_no_seams(tmp_path, scene_weight):
    """A scene with holes in tiles: equal to a single tile up to the effect of the limited context."""
    data = (picture(2, 150, 160) * 3000 + 50).astype(np.uint16)
    data[:, 60:80, 50:65] = 0
    source = write(tmp_path / "in.tif", data, nodata=0, alpha="NO")
    with (
        rasterio.open(make(source, scene_weight, "single.tif", limits=(0, 4095))) as single,
        rasterio.open(make(source, scene_weight, "tiles.tif", limits=(0, 4095), tile=64)) as tiled,
    ):
        difference = tiled.read().astype(float) - single.read()
    assert np.sqrt((difference**2).mean()) < 1 and np.abs(difference).max() < 30  # of 3,000
    columns = np.abs(difference).mean(axis=(0, 1))
    assert columns.max() < 4 * (columns.mean() + 0.05)


def test_single_tile_equals_the_network(tmp_path, scene_weight):
    data = (picture(3, 48, 48) * 255).astype(np.uint8)
    source = write(tmp_path / "in.tif", data, photometric="RGB")
    with torch.no_grad():
        frame = torch.from_numpy(data).float().div(255)
        expected = near_bicubic_mtdo()(torch.stack([frame] * 3)[None])[0].clamp(0, 1).mul(255).round()
    with rasterio.open(make(source, scene_weight)) as out:
        assert np.abs(out.read().astype(float) - expected.numpy()).max() <= 1


def test_scene_equals_restore_in_tiles(tmp_path, scene_weight):
    """Tiles that are stored by rows and blended later give the same result as `restore`."""
    from data.clips import ArrayClip
    from engine.restore import Options

    data = picture(3, 130, 110).astype(np.float32)
    source = write(tmp_path / "in.tif", data)
    clip = ArrayClip("in", [data.transpose(1, 2, 0)])
    expected = next(restore(near_bicubic_mtdo(), clip, options=Options(tile=64))).numpy()
    with rasterio.open(make(source, scene_weight, tile=64)) as out:
        assert np.abs(out.read() - expected).max() < 1e-5


def test_any_scale_with_stno(tmp_path, tmp_path_factory):
    save_weights(tmp_path / "s.safetensors", small_stno())
    source = write(tmp_path / "in.tif", (picture(2) * 1000 - 500).astype(np.int16), nodata=-32768, alpha="NO")
    with rasterio.open(make(source, tmp_path / "s.safetensors", scale=2.5)) as out:
        assert (out.height, out.width, out.count, out.dtypes[0]) == (100, 140, 2, "int16")
        assert out.res == pytest.approx((4.0, 4.0))


def test_scene_into_a_folder(tmp_path, scene_weight):
    source = write(tmp_path / "in.tif", (picture() * 250).astype(np.uint8))
    make(source, scene_weight, "large")
    assert [path.name for path in (tmp_path / "large").iterdir()] == ["in.tif"]


def test_series_of_scenes_keeps_its_holes(tmp_path, scene_weight):
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
    make(tmp_path / "in", scene_weight, "out", limits=(0, 4095))
    expected = list(restore(near_bicubic_mtdo(), ArrayClip("in", shown)))
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
def test_holes_of_other_tiffs_are_kept(tmp_path, scene_weight, monkeypatch, kind):
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
        results.append(read_all(make(tmp_path / f"{name}.tif", scene_weight, f"{name}_large.{suffix}")))
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


@pytest.mark.parametrize("kind", ["without rasterio", "beside", "ycbcr", "stack", "folder"])
def test_masks_of_other_tiffs_are_kept(tmp_path, scene_weight, monkeypatch, kind):
    """A mask, in the file or in GDAL's `.msk`, hides its pixels from the network and is that of the result."""
    monkeypatch.setattr("data.raster.available", lambda: False)
    mask, plain = np.full((40, 56), True), (picture(3) * 200 + 20).astype(np.uint8)
    mask[16:32, 32:48] = False  # blocks of the JPEG
    data = np.where(mask, plain, 255)
    (tmp_path / "in").mkdir()
    source, more = tmp_path / "in" / "0.tif", {"photometric": "RGB"}
    if kind == "ycbcr":
        more = {"photometric": "YCBCR", "compress": "JPEG", "interleave": "pixel", "JPEG_QUALITY": 100}
    if kind == "stack":
        with tifffile.TiffWriter(source) as writer:
            for _ in range(2):
                writer.write(np.moveaxis(data, 0, -1), photometric="rgb", metadata=None)
                writer.write(mask, photometric="mask", subfiletype=4, metadata=None)
    else:
        write(source, data, **more)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind != "beside"), rasterio.open(source, "r+") as file:
            file.write_mask(mask)
    write(tmp_path / "filled.tif", filled(data, np.broadcast_to(mask, data.shape)), photometric="RGB")
    out = make(source.parent if kind == "folder" else source, scene_weight, "out" if kind == "folder" else "out.tif")
    expected = tifffile.imread(make(tmp_path / "filled.tif", scene_weight, "expected.tif"))
    large = mask.repeat(2, 0).repeat(2, 1)
    with rasterio.open(out / "0.tif" if kind == "folder" else out) as file:
        assert np.array_equal(file.read_masks(1) != 0, large)
        difference = np.abs(np.moveaxis(file.read(), 0, -1)[large].astype(int) - expected[large])
    assert difference.max() <= (30 if kind == "ycbcr" else 0)
    with tifffile.TiffFile(out / "0.tif" if kind == "folder" else out) as file:
        assert len(file.pages) == (4 if kind == "stack" else 2)
