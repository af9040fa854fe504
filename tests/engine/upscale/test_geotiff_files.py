"""Sidecar files of GeoTIFFs, metadata of scenes saved as pictures, and stacks of measured values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from tests.engine.small import moving_clip

rasterio = pytest.importorskip("rasterio")
from rasterio.crs import CRS  # noqa: E402
from rasterio.transform import from_origin  # noqa: E402

LARGE = from_origin(5e5, 5e6, 5, 5)


def make(source: Path, weight: Path, out: str = "out.tif", **more) -> Path:
    upscale(Request(source, source.with_name(out), weight, precision="fp32", **more))
    return source.with_name(out)


def gray(index: int = 0) -> np.ndarray:
    return moving_clip(index + 1, 16, 24).array(index)[..., 0]


def plain(path: Path, **more) -> Path:
    tifffile.imwrite(path, gray(), photometric="minisblack", metadata=None, **more)
    return path


@pytest.mark.parametrize("wkt", [True, False])
def test_world_file_and_reference_system_of_a_tiff(tmp_path, weight, wkt):
    source = plain(tmp_path / "in.tif")
    (tmp_path / "in.tfw").write_text("10\n0\n0\n-10\n500005\n4999995\n")
    if wkt:
        (tmp_path / "in.prj").write_text(CRS.from_epsg(32632).to_wkt(version="WKT1_ESRI"))
    with rasterio.open(make(source, weight)) as out:
        assert out.transform == LARGE and (out.crs.to_epsg() if out.crs else None) == (32632 if wkt else None)


def test_all_metadata_of_aux_xml_is_read(tmp_path, weight):
    source = plain(tmp_path / "in.tif")
    (tmp_path / "in.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32632</SRS><GeoTransform> 5e5, 10, 0, 5e6, 0, -10</GeoTransform><Metadata><MDI key='a'>b</MDI>"
        "</Metadata><PAMRasterBand band='1'><Description>red</Description><UnitType>m</UnitType><Offset>3</Offset>"
        "<Scale>2</Scale></PAMRasterBand></PAMDataset>"
    )
    with rasterio.open(make(source, weight)) as out:
        assert (out.crs.to_epsg(), out.transform, out.tags()["a"]) == (32632, LARGE, "b")
        assert (out.descriptions, out.units, out.offsets, out.scales) == (("red",), ("m",), (3.0,), (2.0,))


def test_rpcs_of_a_text_file(tmp_path, weight):
    source = plain(tmp_path / "in.tif")
    lines = [f"{name}: {value}" for name, value in (
        ("LINE_OFF", "7.5 pixels"), ("SAMP_OFF", "11.5 pixels"), ("LAT_OFF", 45), ("LONG_OFF", 7), ("HEIGHT_OFF", 100),
        ("LINE_SCALE", 8), ("SAMP_SCALE", 12), ("LAT_SCALE", 1), ("LONG_SCALE", 1), ("HEIGHT_SCALE", 50),
    )]  # fmt: skip
    lines += [
        f"{name}_COEFF_{k}: {float(k == 1)}"
        for name in ("LINE_NUM", "LINE_DEN", "SAMP_NUM", "SAMP_DEN")
        for k in range(1, 21)
    ]
    (tmp_path / "in_RPC.TXT").write_text("\n".join(lines))
    with rasterio.open(make(source, weight)) as out:
        rpcs = out.rpcs
        assert (rpcs.line_off, rpcs.samp_off, rpcs.line_scale, rpcs.samp_scale) == (15.5, 23.5, 16.0, 24.0)


def test_resolution_of_a_picture(tmp_path, weight):
    with Image.open(make(plain(tmp_path / "in.tif", resolution=(300, 200), resolutionunit="INCH"), weight)) as out:
        assert out.info["dpi"] == (600, 400)


def test_exif_and_xmp_of_a_scene_are_named(tmp_path, weight, capsys):
    tags = Image.Exif()
    tags.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    loaded = Image.Exif()
    loaded.load(tags.tobytes())
    loaded[700] = b"<x/>"
    Image.fromarray(gray()).save(tmp_path / "in.tif", exif=loaded)
    with Image.open(make(tmp_path / "in.tif", weight)) as out:
        assert 700 not in out.tag_v2 and 34665 not in out.tag_v2
    assert "'in.tif': left out of the GeoTIFF: EXIF, XMP" in capsys.readouterr().out


def test_near_infrared_tagged_as_alpha_is_reported(tmp_path, weight, capsys):
    data = np.stack([gray()] * 4)
    for name, last in (("nir", gray()), ("alpha", np.where(gray() > 60, 255, 0))):
        data[3] = last
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", height=16, width=24, count=4, dtype="uint8", crs="EPSG:32632",
            transform=LARGE,
        ) as file:  # fmt: skip
            file.write(data)
        make(tmp_path / f"{name}.tif", weight, f"{name}_large.tif")
        assert ("band 4 is declared as transparency" in capsys.readouterr().out) == (name == "nir")


# --- stacks -----------------------------------------------------------------------------------------------------------


def stack(path: Path, pages: list[np.ndarray], **more) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(page, photometric="minisblack", metadata=None, **more)
    return path


@pytest.mark.parametrize(
    ("dtype", "base"),
    [("uint32", 4_000_000_000), ("int32", -2_000_000_000), ("uint64", 2**40), ("float64", 2_459_000.25)],
)
def test_stacks_of_values_close_together_far_from_zero(tmp_path, weight, dtype, base):
    """float32 has steps of 256 there."""
    pages = [(gray(k).astype(float) / 4 + base).astype(dtype) for k in range(2)]
    with tifffile.TiffFile(make(stack(tmp_path / "in.tif", pages), weight)) as out:
        large = out.asarray()
    assert large.dtype == dtype
    for page, before in zip(large.astype(float) - base, pages, strict=True):
        assert abs(page.mean() - (before.astype(float) - base).mean()) < 1 and np.ptp(page) < 70


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", "float32"])
def test_stacks_of_measured_values_need_no_limits(tmp_path, weight, capsys, dtype):
    pages = [(gray(k).astype(float) * 40 - (0 if dtype[0] == "u" else 3000)).astype(dtype) for k in range(3)]
    source = stack(tmp_path / "in.tif", pages)
    with tifffile.TiffFile(make(source, weight)) as out:
        large = out.asarray()
    assert large.dtype == dtype and large.shape == (3, 32, 48)
    spread = np.ptp(pages[0].astype(float))
    for page, before in zip(large.astype(float), pages, strict=True):
        assert abs(page.mean() - before.mean()) < 0.01 * spread
    lines = [line for line in capsys.readouterr().out.splitlines() if "are stretched for the network" in line]
    assert len(lines) == 1 and "--limits" in lines[0]


@pytest.mark.parametrize("nodata", ["nan", "-9999"])
def test_missing_values_do_not_count_for_the_stretch(tmp_path, weight, nodata):
    pages = [gray(k).astype(np.float32) * 40 for k in range(2)]
    for page in pages:
        page[4:8, 5:9] = float(nodata)
    tags = [] if nodata == "nan" else [(42113, 2, 0, nodata, True)]
    with tifffile.TiffFile(make(stack(tmp_path / "in.tif", pages, extratags=tags), weight)) as out:
        large = out.asarray()
    hole = np.zeros((32, 48), bool)
    hole[8:16, 10:18] = True
    assert np.array_equal(np.isnan(large[0]) if nodata == "nan" else large[0] == -9999, hole)
    assert abs(large[0][~hole].mean() - np.nanmean(pages[0][pages[0] > -1])) < 60
    assert large[0][~hole].min() > 0


def test_videos_of_many_bands_need_a_choice_of_three(tmp_path, weight):
    pages = [np.stack([gray(k)] * 5, -1) for k in range(2)]
    source = stack(tmp_path / "in.tif", pages, planarconfig="contig")
    with pytest.raises(InputError, match=r"has 5 bands.*--bands 3,2,1"):
        make(source, weight, "out.mp4")
    with tifffile.TiffFile(make(source, weight, bands=(3, 2, 1))) as out:
        assert out.asarray().shape == (2, 32, 48, 3)


def test_missing_values_of_a_gray_stack_are_black_in_a_video(tmp_path, weight):
    import av

    pages = [gray(k).astype(np.float32) * 40 for k in range(2)]
    for page in pages:
        page[4:8, 5:9] = np.nan
    make(stack(tmp_path / "in.tif", pages), weight, "out.mkv", lossless=True)
    with av.open(str(tmp_path / "out.mkv")) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == 2 and frames[1][8:16, 10:18].max() < 3 and frames[1][20:].mean() > 60


@pytest.mark.parametrize("colour", [0, 1])
def test_stack_with_gray_and_colour_pages_is_in_colour(tmp_path, weight, colour):
    rgb = np.stack([gray(), 255 - gray(), gray() // 2], -1)
    with tifffile.TiffWriter(tmp_path / "in.tif") as writer:
        for index in range(2):
            page = rgb if index == colour else gray()
            writer.write(page, photometric="rgb" if page.ndim == 3 else "minisblack", metadata=None)
    with tifffile.TiffFile(make(tmp_path / "in.tif", weight)) as out:
        large = [page.asarray() for page in out.pages]
    assert [page.shape for page in large] == [(32, 48, 3)] * 2
    assert np.abs(large[colour].mean((0, 1)) - rgb.mean((0, 1))).max() < 5


@pytest.mark.parametrize("other", ["size", "depth"])
def test_stack_of_unlike_pages_is_refused_before_the_work(tmp_path, weight, other):
    pages = [gray(), gray()[:8] if other == "size" else gray().astype(np.uint16)]
    with pytest.raises(InputError, match=r"in\.tif page 1: .* the clip's first frame has"):
        make(stack(tmp_path / "in.tif", pages), weight, scenes=False)


def test_images_of_imagej_without_pages_are_refused(tmp_path, weight):
    """ImageJ writes files of more than 4 GB with one page: the other images must not be lost silently."""
    description = "ImageJ=1.53t\nimages=3\nslices=3\n"
    tifffile.imwrite(tmp_path / "in.tif", gray(), metadata=None, description=description)
    with (tmp_path / "in.tif").open("ab") as file:
        file.write(gray().tobytes() * 2)
    with pytest.raises(InputError, match="ImageJ stored 3 images behind one page"):
        make(tmp_path / "in.tif", weight)
