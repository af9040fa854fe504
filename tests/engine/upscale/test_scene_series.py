"""Folders of scenes: series, bands of one scene, scenes of different kinds, and names of output folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from tests.engine.upscale.geotiff import make, picture, write

rasterio = pytest.importorskip("rasterio")
from rasterio.transform import from_origin  # noqa: E402


def scenes(folder: Path, **by_index) -> Path:
    """Three scenes of four bands of uint16 with nodata 0. by_index: options of `write` for a scene, by `scene_N`."""
    folder.mkdir()
    for index in range(3):
        data = (np.roll(picture(4), index, axis=2) * 3000 + 100).astype(np.uint16)
        more = by_index.get(f"scene_{index}", {})
        bands, dtype = more.pop("bands", 4), more.pop("dtype", "uint16")
        write(folder / f"scene_{index}.tif", data[:bands].astype(dtype), **({"nodata": 0} | more))
    return folder


@pytest.mark.parametrize("name", ["out.v2", "results_2024.05", "a.b.c"])
def test_folder_with_a_dot_in_its_name(tmp_path, scene_weight, name):
    source = scenes(tmp_path / "in")
    upscale(Request(source, tmp_path / name, scene_weight, precision="fp32"))
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == [f"scene_{k}.tif" for k in range(3)]
    with rasterio.open(tmp_path / name / "scene_1.tif") as out:
        assert out.count == 4 and out.nodata == 0
    single = tmp_path / f"single.{name}"
    upscale(Request(source / "scene_0.tif", single, scene_weight, precision="fp32"))
    with rasterio.open(single / "scene_0.tif") as out:
        assert out.count == 4


@pytest.mark.parametrize(
    "other", [{"dtype": "int16"}, {"bands": 3}, {"crs": "EPSG:32633"}], ids=["type", "bands", "reference system"]
)
def test_scenes_of_different_kinds_are_restored_separately(tmp_path, scene_weight, capsys, other):
    source = scenes(tmp_path / "in", scene_1=dict(other))
    upscale(Request(source, tmp_path / "out", scene_weight, precision="fp32"))
    upscale(Request(source / "scene_1.tif", tmp_path / "single.tif", scene_weight, precision="fp32"))
    with rasterio.open(tmp_path / "out" / "scene_1.tif") as out, rasterio.open(tmp_path / "single.tif") as expected:
        assert np.array_equal(out.read(), expected.read()) and out.crs == expected.crs
    assert "scenes of different kinds do not influence each other" in capsys.readouterr().out


@pytest.mark.parametrize("pattern", ["T32TPS_20240101_B{:02d}_10m.tif", "LC08_SR_B{}.TIF", "B{:02d}.tif"])
def test_bands_of_one_scene_are_not_a_series(tmp_path, scene_weight, capsys, pattern):
    (tmp_path / "in").mkdir()
    for band in (2, 3, 4, 8):
        write(tmp_path / "in" / pattern.format(band), (picture(1) * 1000 * band + 100).astype(np.uint16), nodata=0)
    upscale(Request(tmp_path / "in", tmp_path / "out", scene_weight, precision="fp32"))
    upscale(Request(tmp_path / "in" / pattern.format(8), tmp_path / "single.tif", scene_weight, precision="fp32"))
    with rasterio.open(tmp_path / "out" / pattern.format(8)) as out, rasterio.open(tmp_path / "single.tif") as expected:
        assert np.array_equal(out.read(), expected.read())
    assert "they are the bands of one scene" in capsys.readouterr().out


def test_landsat_folder(tmp_path, scene_weight):
    """Bands, a band of another size, a thermal band and quality flags: each separately, the flags by nearest neighbour."""
    (tmp_path / "in").mkdir()
    for name in ("SR_B2", "SR_B3", "ST_B10", "SR_B8"):
        data = (picture(1, 80 if name == "SR_B8" else 40) * 1000 + 100).astype(np.uint16)
        write(tmp_path / "in" / f"LC08_T1_{name}.TIF", data, nodata=0)
    flags = np.where(picture(1) > 0.5, 21824, 1).astype(np.uint16)
    write(tmp_path / "in" / "LC08_T1_QA_PIXEL.TIF", flags)
    upscale(Request(tmp_path / "in", tmp_path / "out", scene_weight, precision="fp32"))
    assert len(list((tmp_path / "out").iterdir())) == 5
    with rasterio.open(tmp_path / "out" / "LC08_T1_QA_PIXEL.TIF") as out:
        assert np.array_equal(out.read(1), np.kron(flags[0], np.ones((2, 2), np.uint16)))
    with rasterio.open(tmp_path / "out" / "LC08_T1_SR_B8.TIF") as out:
        assert out.shape == (160, 112)


def test_folder_of_jpeg_2000(tmp_path, scene_weight):
    (tmp_path / "in").mkdir()
    for band in (2, 3):
        data = (picture(1, 64, 64) * 1000 * band + 100).astype(np.uint16)
        write(tmp_path / "in" / f"T32_B{band:02d}.jp2", data, driver="JP2OpenJPEG", quality=100, reversible="YES")
    upscale(Request(tmp_path / "in", tmp_path / "out", scene_weight, precision="fp32"))
    for band in (2, 3):
        with rasterio.open(tmp_path / "out" / f"T32_B{band:02d}.tif") as out:
            assert out.shape == (128, 128) and abs(out.read(1).mean() - (500 * band + 100)) < 50 * band


@pytest.mark.parametrize("options", [{}, {"limits": (0, 4095)}, {"percentiles": (1, 99)}])
def test_stacks_of_many_bands_never_lose_bands_silently(tmp_path, scene_weight, options):
    with tifffile.TiffWriter(tmp_path / "in.tif") as writer:
        for _ in range(2):
            page = (picture(4) * 3000 + 100).astype(np.uint16).transpose(1, 2, 0)
            writer.write(page, photometric="minisblack", planarconfig="contig", metadata=None)
    for name, chosen in (("chosen.tif", {"bands": (4, 2, 1)}), ("all.tif", {})):
        with tifffile.TiffFile(make(tmp_path / "in.tif", scene_weight, name, **chosen, **options)) as out:
            large = out.asarray()
        sources = [band - 1 for band in chosen.get("bands", (1, 2, 3, 4))]
        assert large.shape == (2, 80, 112, len(sources)) and large.dtype == np.uint16
        for band, source in enumerate(sources):
            assert abs(large[0, ..., band].mean() - picture(4)[source].mean() * 3000 - 100) < 40


def test_dark_16_bit_frames_are_stretched(tmp_path, scene_weight, capsys):
    """Plain 12-bit TIFF frames: without a stretch they are nearly black for the network."""
    (tmp_path / "in").mkdir()
    frames = [(np.roll(picture(1)[0], k, axis=1) * 900 + 50).astype(np.uint16) for k in range(3)]
    for k, frame in enumerate(frames):
        tifffile.imwrite(tmp_path / "in" / f"{k:03d}.tif", frame, metadata=None)
    upscale(Request(tmp_path / "in", tmp_path / "out", scene_weight, precision="fp32"))
    for k, frame in enumerate(frames):
        large = tifffile.imread(tmp_path / "out" / f"{k:03d}.tif")
        assert large.dtype == np.uint16 and abs(large.mean() - frame.mean()) < 2 and abs(large.std() - frame.std()) < 3
    assert "are stretched for the network" in capsys.readouterr().out


def damaged(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "no TIFF":
        path.write_bytes(b"II*\0 quota exceeded")
    else:
        write(path, picture(4).astype(np.complex64))


@pytest.mark.parametrize("kind", ["cut", "no TIFF", "complex"])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("places", ["series", "mosaic"])
def test_damaged_scene_does_not_stop_the_others(tmp_path, scene_weight, kind, number, places):
    moved = {f"scene_{k}": {"transform": from_origin(5e5 + 5000 * k, 5e6, 10, 10)} for k in range(3)}
    source = scenes(tmp_path / "in", **(moved if places == "mosaic" else {}))
    damaged(source / f"scene_{number}.tif", kind)
    with pytest.raises(InputError, match=rf"1 of 3 clips were not upscaled \('scene_{number}"):
        upscale(Request(source, tmp_path / "out", scene_weight, precision="fp32"))
    left = [f"scene_{k}.tif" for k in range(3) if k != number]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == left
    for name in left:
        with rasterio.open(tmp_path / "out" / name) as out, rasterio.open(source / name) as before:
            assert abs(out.read(1).mean() - before.read(1).mean()) < 15


def test_scenes_with_the_same_output_are_refused(tmp_path, scene_weight):
    source = scenes(tmp_path / "in")
    (source / "scene_0.tiff").write_bytes((source / "scene_0.tif").read_bytes())
    with pytest.raises(InputError, match=r"'scene_0\.tif' and 'scene_0\.tiff' would both be written to"):
        upscale(Request(source, tmp_path / "out", scene_weight, precision="fp32"))


@pytest.mark.parametrize("suffix", [".tfw", ".prj"])
def test_damaged_sidecar_files_are_named(tmp_path, scene_weight, suffix):
    source = write(tmp_path / "in.tif", (picture() * 200).astype(np.uint8), crs=None, transform=None)
    (tmp_path / "in.tfw").write_text("10\n0\n0\n-10\n5\n5\n")
    (tmp_path / f"in{suffix}").write_text("1\n2\n" if suffix == ".tfw" else "garbage")
    with pytest.raises(InputError, match=rf"in\{suffix}: is"):
        make(source, scene_weight)
