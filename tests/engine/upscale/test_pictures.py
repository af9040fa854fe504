"""Pictures keep transparency, metadata and georeference; one line names omitted parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from data.degrade import imresize
from data.details import Details
from data.media import read_details, read_image, write_image
from engine.checkpoint import save_weights
from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from tests.engine.small import moving_clip, small_stno


def make(source: Path, out: Path, weight: Path, **more) -> Path:
    upscale(Request(source, out, weight, precision="fp32", **more))
    return out


def transparent(bands: int = 4, dtype=np.uint8) -> np.ndarray:
    """A picture with a soft transparent disc; the colours of fully transparent pixels are black."""
    colours = moving_clip(1, 16, 24).array(0)[..., : bands - 1].astype(dtype)
    y, x = np.mgrid[:16, :24]
    alpha = np.clip((np.hypot(y - 8, x - 12) - 4) * 60, 0, 255)[..., None]
    top = np.iinfo(dtype).max // 255
    return np.concatenate([np.where(alpha > 0, colours, 0) * top, np.rint(alpha) * top], axis=-1).astype(dtype)


@pytest.mark.parametrize(
    ("suffix", "bands", "dtype"),
    [
        (".png", 4, np.uint8),
        (".png", 2, np.uint8),
        (".png", 4, np.uint16),
        (".png", 2, np.uint16),
        (".webp", 4, np.uint8),
        (".webp", 2, np.uint8),
    ],
)
def test_transparency_is_preserved(weight, tmp_path, suffix, bands, dtype):
    import torch

    picture = transparent(bands, dtype)
    write_image(tmp_path / "in.png", picture)
    out = read_image(make(tmp_path / "in.png", tmp_path / f"out{suffix}", weight))
    assert out.shape == (32, 48, 4 if suffix == ".webp" else bands) and out.dtype == dtype
    top = np.iinfo(dtype).max
    expected = imresize(torch.from_numpy(picture[..., -1] / top), size=(32, 48)).clamp(0, 1).numpy() * top
    assert np.abs(out[..., -1] - np.rint(expected)).max() <= (0 if suffix == ".png" else 1)
    visible = out[..., -1] > 0
    assert out[..., :1][visible].min() > 15 * (top // 255)  # the black of hidden pixels does not bleed into the edge


def test_opaque_and_fully_transparent_pictures(weight, tmp_path):
    picture = transparent()
    for name, value in (("opaque", 255), ("hidden", 0)):
        picture[..., 3] = value
        write_image(tmp_path / f"{name}.png", picture)
        out = read_image(make(tmp_path / f"{name}.png", tmp_path / f"{name}_out.png", weight))
        assert (out[..., 3] == value).all() and out[..., :3].std() > 20


@pytest.mark.parametrize("out", ["out.jpg", "out.bmp", "out.mp4"])
def test_unsupported_transparency_is_reported(weight, tmp_path, capsys, out):
    write_image(tmp_path / "in.png", transparent())
    make(tmp_path / "in.png", tmp_path / out, weight)
    lines = [line for line in capsys.readouterr().out.splitlines() if "transparency is left out" in line]
    assert len(lines) == 1


def test_frames_of_mixed_transparency(weight, tmp_path):
    write_image(tmp_path / "in" / "0.png", transparent()[..., :3])
    write_image(tmp_path / "in" / "1.png", transparent())
    make(tmp_path / "in", tmp_path / "out", weight)
    frames = [read_image(tmp_path / "out" / f"{k}.png") for k in range(2)]
    assert [frame.shape for frame in frames] == [(32, 48, 4)] * 2
    assert (frames[0][..., 3] == 255).all() and frames[1][16, 24, 3] == 0


def test_transparency_between_two_frames(tmp_path):
    save_weights(tmp_path / "s.safetensors", small_stno())
    for k, value in enumerate((0, 200)):
        picture = transparent()
        picture[..., 3] = value
        write_image(tmp_path / "in" / f"{k}.png", picture)
    make(tmp_path / "in", tmp_path / "out", tmp_path / "s.safetensors", fps="x2", scale=2, scenes=False)
    frames = [read_image(path)[0, 0, 3] for path in sorted((tmp_path / "out").iterdir())]
    assert frames == [0, 100, 200]


def test_stack_keeps_its_transparency(weight, tmp_path):
    with tifffile.TiffWriter(tmp_path / "in.tif") as writer:
        for _ in range(2):
            writer.write(transparent(), photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    make(tmp_path / "in.tif", tmp_path / "out.tif", weight)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert [tuple(page.extrasamples) for page in file.pages] == [(2,), (2,)]
        assert file.pages[1].asarray()[16, 24, 3] == 0 and file.pages[1].asarray()[0, 0, 3] == 255


def details(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = orientation, "Maker"
    tags.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    return tags.tobytes()


@pytest.mark.parametrize("out", ["out.png", "out.jpg", "out.webp", "out"])
def test_metadata_of_a_photograph(weight, tmp_path, out):
    picture = moving_clip(1, 24, 16).array(0)
    Image.fromarray(picture).save(
        tmp_path / "in.jpg", exif=details(6), dpi=(300, 300), comment="hello", xmp=b"<x/>", quality=98
    )
    make(tmp_path / "in.jpg", tmp_path / out, weight)
    path = tmp_path / out if "." in out else tmp_path / "out" / "in.png"
    with Image.open(path) as image:
        image.load()
        tags = image.getexif()
        assert tags.get(0x0112, 1) == 1 and tags[0x010F] == "Maker" and image.size == (48, 32)
        assert tags.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    found = read_details(path)
    assert found.xmp == b"<x/>"
    if path.suffix != ".webp":
        assert found.dpi == pytest.approx((600, 600), rel=1e-3) and found.text("Comment") == "hello"


def test_omitted_metadata_is_named_in_one_line(weight, tmp_path, capsys):
    given = Details(exif=details(1)[6:], texts=(("Title", "one"),), dpi=(72.0, 72.0))
    write_image(tmp_path / "in.png", moving_clip(1, 16, 24).array(0), details=given)
    make(tmp_path / "in.png", tmp_path / "out.bmp", weight)
    lines = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert lines == ["'in.png': left out, because .bmp cannot hold it: EXIF, texts (Title)"]


@pytest.mark.parametrize("kind", ["gain map", "gain map after the file", "previews"])
def test_further_pictures_of_a_jpeg_are_named(weight, tmp_path, capsys, kind):
    """Ultra HDR photographs: without its gain map, a picture is not described as one that has it."""
    picture, second = (Image.fromarray(moving_clip(2, 16, 24).array(index)) for index in range(2))
    described = (
        b"<x xmlns:hdrgm='http://ns.adobe.com/hdr-gain-map/1.0/' a='1' hdrgm:Version=\"1.0\" hdrgm:GainMapMax='3'/>"
    )
    xmp = {} if kind == "previews" else {"xmp": described}
    if kind == "gain map after the file":
        picture.save(tmp_path / "in.jpg", quality=98, **xmp)
        second.save(tmp_path / "second.jpg")
        with (tmp_path / "in.jpg").open("ab") as file:
            file.write((tmp_path / "second.jpg").read_bytes())
    else:
        picture.save(tmp_path / "in.jpg", "MPO", save_all=True, append_images=[second], quality=98, **xmp)
    make(tmp_path / "in.jpg", tmp_path / "out.jpg", weight)
    assert "further pictures" in capsys.readouterr().out
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.format == "JPEG" and image.size == (48, 32)
        expected = None if kind == "previews" else b"<x xmlns:hdrgm='http://ns.adobe.com/hdr-gain-map/1.0/' a='1'/>"
        assert image.info.get("xmp") == expected


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize(
    ("kind", "right", "wrong"), [("PNG", "png", "tif"), ("JPEG", "jpg", "tiff"), ("TIFF", "tif", "png")]
)
def test_wrong_suffixes_do_not_change_the_result(weight, tmp_path, folder, kind, right, wrong):
    for suffix in (right, wrong):
        for name in ("000", "001") if folder else ("000",):
            (tmp_path / suffix).mkdir(exist_ok=True)
            Image.fromarray(moving_clip(1, 16, 24).array(0)).save(tmp_path / suffix / f"{name}.{suffix}", kind)
        source = tmp_path / suffix if folder else tmp_path / suffix / f"000.{suffix}"
        make(source, tmp_path / f"out of {suffix}", weight, image_format="png")
    results = [read_image(min((tmp_path / f"out of {suffix}").iterdir())) for suffix in (right, wrong)]
    assert results[0].shape == (32, 48, 3) and (results[0] == results[1]).all()


def test_georeference_of_a_tiff_with_another_suffix(weight, tmp_path):
    tags = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 5e6, 0.0), True)]
    tifffile.imwrite(tmp_path / "in.png", moving_clip(1, 16, 24).array(0), photometric="rgb", extratags=tags)
    make(tmp_path / "in.png", tmp_path / "out.png", weight)
    assert numbers(tmp_path / "out.pgw") == LARGE


# --- world files ------------------------------------------------------------------------------------------------------

WORLD = "10\n0\n0\n-10\n500005\n4999995\n"
LARGE = [5.0, 0.0, 0.0, -5.0, 500002.5, 4999997.5]


def numbers(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().split()]


@pytest.mark.parametrize(("source", "out"), [(".png", ".jpg"), (".jpg", ".png"), (".png", ".webp")])
def test_world_files_of_pictures(weight, tmp_path, source, out):
    write_image(tmp_path / f"in{source}", moving_clip(1, 16, 24).array(0))
    (tmp_path / ("in.pgw" if source == ".png" else "in.jgw")).write_text(WORLD)
    (tmp_path / "in.prj").write_text("PROJCS[...]")
    make(tmp_path / f"in{source}", tmp_path / f"out{out}", weight)
    made = {".jpg": "out.jgw", ".png": "out.pgw", ".webp": "out.wpw"}[out]
    assert numbers(tmp_path / made) == LARGE and (tmp_path / "out.prj").read_text() == "PROJCS[...]"


def test_world_files_of_a_folder(weight, tmp_path):
    for k in range(3):
        write_image(tmp_path / "in" / f"{k}.png", moving_clip(3, 16, 24).array(k))
        (tmp_path / "in" / f"{k}.pgw").write_text(WORLD)
    out = make(tmp_path / "in", tmp_path / "out", weight)
    assert sorted(path.name for path in out.iterdir()) == sorted(f"{k}.{s}" for k in range(3) for s in ("png", "pgw"))
    assert numbers(out / "2.pgw") == LARGE
    make(tmp_path / "in", tmp_path / "out", weight, overwrite=True)
    make(tmp_path / "in", tmp_path / "tif", weight, image_format="tif")
    with tifffile.TiffFile(tmp_path / "tif" / "0.tif") as file:
        assert file.pages[0].tags[33550].value[:2] == (5.0, 5.0)
        assert file.pages[0].tags[33922].value[3:5] == (500000.0, 5000000.0)


def test_world_files_are_not_overwritten(weight, tmp_path):
    write_image(tmp_path / "in.png", moving_clip(1, 16, 24).array(0))
    (tmp_path / "in.pgw").write_text(WORLD)
    (tmp_path / "out.pgw").write_text("precious")
    with pytest.raises(InputError, match=r"out\.pgw' exists"):
        make(tmp_path / "in.png", tmp_path / "out.png", weight)
    assert (tmp_path / "out.pgw").read_text() == "precious" and not (tmp_path / "out.png").exists()


def test_geotiff_as_png_gets_a_world_file_and_a_message(weight, tmp_path, capsys):
    rasterio = pytest.importorskip("rasterio")
    data = moving_clip(1, 16, 24).array(0).transpose(2, 0, 1)
    place = rasterio.transform.from_origin(500000, 5000000, 10, 10)
    with rasterio.open(
        tmp_path / "in.tif", "w", driver="GTiff", height=16, width=24, count=3, dtype="uint8", crs="EPSG:32632",
        transform=place, photometric="RGB",
    ) as file:  # fmt: skip
        file.write(data)
    make(tmp_path / "in.tif", tmp_path / "out.png", weight)
    assert numbers(tmp_path / "out.pgw") == LARGE
    assert "its reference system is left out" in capsys.readouterr().out


# --- kinds of files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jfif", ".ppm", ".gif"])
def test_further_formats_are_read(weight, tmp_path, suffix):
    kind = {".jfif": "JPEG", ".ppm": "PPM", ".gif": "GIF"}[suffix]
    Image.fromarray(moving_clip(1, 16, 24).array(0)).save(tmp_path / f"in{suffix}", kind)
    assert read_image(make(tmp_path / f"in{suffix}", tmp_path / "out.png", weight)).shape == (32, 48, 3)
    with pytest.raises(InputError, match=r"read but not written|\.png"):
        make(tmp_path / f"in{suffix}", tmp_path / f"out{suffix}", weight)


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_animations_are_read_as_videos(weight, tmp_path, suffix):
    frames = [Image.fromarray(moving_clip(3, 16, 24).array(k)) for k in range(3)]
    frames[0].save(tmp_path / f"in{suffix}", save_all=True, append_images=frames[1:], duration=100)
    make(tmp_path / f"in{suffix}", tmp_path / "out", weight)
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize("suffix", [".heic", ".img"])
def test_unsupported_formats_are_named(weight, tmp_path, suffix):
    frames = [Image.fromarray(moving_clip(2, 16, 24).array(k)) for k in range(2)]
    frames[0].save(tmp_path / f"in{suffix}", "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="convert it"):
        make(tmp_path / f"in{suffix}", tmp_path / "out", weight)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"in{suffix}"]


def test_reference_file_of_a_picture_in_the_same_folder_is_kept(weight, tmp_path):
    write_image(tmp_path / "in.jpg", moving_clip(1, 16, 24).array(0))
    (tmp_path / "in.jgw").write_text(WORLD)
    (tmp_path / "in.prj").write_text("PROJCS[...]")
    make(tmp_path / "in.jpg", tmp_path / "in.png", weight)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jgw", "in.jpg", "in.pgw", "in.png", "in.prj"]


@pytest.mark.parametrize("out", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("kind", ["gray", "CMYK"])
def test_profile_for_other_colours_is_left_out_and_named(weight, tmp_path, capsys, kind, out):
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"CMYK" if kind == "CMYK" else b"RGB "
    picture = Image.fromarray(moving_clip(1, 16, 24).array(0)).convert("L" if kind == "gray" else "CMYK")
    picture.save(tmp_path / "in.jpg", icc_profile=bytes(profile))
    with Image.open(make(tmp_path / "in.jpg", tmp_path / f"out{out}", weight)) as result:
        assert "icc_profile" not in result.info
    described, made = ("RGB", "gray") if kind == "gray" else ("CMYK", "RGB")
    line = f"its ICC profile is left out, because it describes {described} and the result is {made}"
    lines = capsys.readouterr().out
    assert line in lines and ("its CMYK colours become RGB" in lines) == (kind == "CMYK")
