"""Metadata of pictures in every format, world files, and kinds of files that are read."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from data import world_file
from data.clips import FolderClip
from data.details import Details
from data.geo_tags import GeoTags
from data.media import probe, read_details, read_geo, read_image, write_image
from errors import InputError

PICTURE = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="a"/></x:xmpmeta>'
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int = 1) -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F], tags[0x011A], tags[0x011B] = orientation, "Maker", 72.0, 144.0
    tags.get_ifd(0x8769).update({0xA002: 12, 0xA003: 8, 0x9003: "2020:01:02 03:04:05"})
    tags.get_ifd(0x8825).update({1: "N", 2: (48.0, 30.0, 0.0)})
    return tags.tobytes()[6:]


FULL = Details(
    PROFILE, exif(), XMP, (100.0, 200.0), (("Title", "one"), ("Author", "Ü, 衛星")), ((b"gAMA", b"\0\0\xb1\x8f"),)
)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_supported_metadata_is_written_and_read(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", PICTURE, details=FULL)
    found, lost = read_details(tmp_path / f"a{suffix}"), FULL.lost(suffix)
    for field, name in (("profile", "ICC profile"), ("exif", "EXIF"), ("xmp", "XMP"), ("colours", "gamma")):
        kept = getattr(found, field)
        assert (kept == getattr(FULL, field)) == (not any(name in entry for entry in lost)), field
    assert (found.dpi is None) == ("resolution" in lost)
    assert found.dpi is None or found.dpi == pytest.approx((100, 200), rel=0.01)
    texts = tuple(text for text in found.texts if text[0] != "Software")  # added by the TIFF writer
    assert texts == {".png": FULL.texts, ".tif": (("Author", "Ü, 衛星"),)}.get(suffix, ())
    assert ("texts (Title)" in lost, "texts (Title, Author)" in lost) == (
        suffix == ".tif",
        suffix not in (".png", ".tif"),
    )


def test_png_metadata_equals_other_readers(tmp_path):
    write_image(tmp_path / "a.png", PICTURE, details=FULL)
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.info["dpi"] == pytest.approx((100, 200), rel=0.001) and image.info["gamma"] == 0.45455
        assert image.info["Title"] == "one" and image.info["Author"] == "Ü, 衛星"
        assert image.getexif()[0x010F] == "Maker" and image.info["icc_profile"] == PROFILE
        assert np.array_equal(np.asarray(image), PICTURE)


def test_chunks_of_another_writer(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Packed", "a" * 500, zip=True)
    info.add_itxt("Language", "größer", "de", "Sprache", zip=True)
    Image.fromarray(PICTURE).save(tmp_path / "a.png", pnginfo=info, dpi=(72, 72), icc_profile=PROFILE)
    found = read_details(tmp_path / "a.png")
    assert found.texts == (("Packed", "a" * 500), ("Language", "größer")) and found.profile == PROFILE
    assert found.dpi == pytest.approx((72, 72), rel=0.001)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_details_of_an_enlarged_upright_picture(orientation):
    made = Details(exif=exif(orientation), xmp=XMP, dpi=(100.0, 200.0)).enlarged((16, 24), (2.0, 2.0))
    assert made.dpi == ((400.0, 200.0) if orientation == 6 else (200.0, 400.0))
    tags = Image.Exif()
    tags.load(made.exif)
    assert 0x0112 not in tags and tags[0x010F] == "Maker"
    assert (tags[0x011A], tags[0x011B]) == ((288.0, 144.0) if orientation == 6 else (144.0, 288.0))
    inner = tags.get_ifd(0x8769)
    assert (inner[0xA002], inner[0xA003], inner[0x9003]) == (24, 16, "2020:01:02 03:04:05")
    assert tags.get_ifd(0x8825)[1] == "N" and b'tiff:Orientation="1"' in made.xmp


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_inks_are_told_from_light(tmp_path, suffix):
    for mode in ("CMYK", "RGB"):
        Image.new(mode, (8, 8)).save(tmp_path / f"{mode}{suffix}")
        assert read_details(tmp_path / f"{mode}{suffix}").inks == (mode == "CMYK")


def test_damaged_metadata_is_ignored():
    damaged = Details(exif=b"MM\0*\0\0\0\x08\xff\xff broken", xmp=b"\xff")
    assert damaged.enlarged((16, 24), (2, 2)).exif is None or isinstance(damaged.enlarged((16, 24), (2, 2)).exif, bytes)


def test_exif_of_a_tiff_is_written_to_a_png(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.tif", exif=_with(exif()), dpi=(100, 200))
    found = read_details(tmp_path / "a.tif")
    assert found.dpi == (100, 200) and found.exif is not None
    tags = Image.Exif()
    tags.load(found.exif)
    assert tags.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05" and tags.get_ifd(0x8825)[1] == "N"
    assert 273 not in tags  # tags of the TIFF's strips


def _with(content: bytes) -> Image.Exif:
    tags = Image.Exif()
    tags.load(content)
    return tags


def test_metadata_too_long_for_a_jpeg_is_lost(tmp_path):
    given = Details(exif=exif() + bytes(70_000), xmp=b"x" * 70_000, texts=(("Comment", "c" * 70_000),))
    write_image(tmp_path / "a.jpg", PICTURE, details=given)
    assert read_details(tmp_path / "a.jpg").exif is None and given.lost(".jpg")[:2] == ["EXIF", "XMP"]


@pytest.mark.parametrize("dpi", [(float("inf"), 72.0), (float("nan"), 1.0), (1e30, 1e30)])
def test_impossible_resolutions(tmp_path, dpi):
    write_image(tmp_path / "a.png", PICTURE, details=Details(dpi=dpi).enlarged((8, 12), (1, 1)))
    assert np.array_equal(read_image(tmp_path / "a.png"), PICTURE)


# --- transparency and kinds of files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gray", "colour", "palette"])
def test_transparent_colour_of_a_png_is_read_as_alpha(tmp_path, kind):
    image = Image.fromarray(PICTURE)
    image = {"gray": image.convert("L"), "palette": image.quantize(8)}.get(kind, image)
    colour = (1, 2, 3) if kind == "colour" else 3
    image.save(tmp_path / "a.png", transparency=colour)
    assert probe(tmp_path / "a.png").bands == read_image(tmp_path / "a.png").shape[-1] == (2 if kind == "gray" else 4)
    assert FolderClip([tmp_path / "a.png"]).transparent


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("bands", [2, 4])
def test_transparency_of_clips(tmp_path, suffix, bands):
    array = np.random.default_rng(1).integers(1, 255, (8, 12, bands), np.uint8)
    array[2:5, 3:6, -1] = 0
    if suffix == ".webp":
        Image.fromarray(array).save(tmp_path / "a.webp", lossless=True, exact=True)
    elif suffix == ".tif":
        colours = "rgb" if bands == 4 else "minisblack"
        tifffile.imwrite(tmp_path / "a.tif", array, photometric=colours, extrasamples=["unassalpha"], metadata=None)
    else:
        write_image(tmp_path / "a.png", array)
    clip = FolderClip([tmp_path / f"a{suffix}"])
    assert clip.transparent and np.array_equal(clip.alpha(0), array[..., -1:])
    colours = clip.array(0)[..., 0]
    seen = array[..., -1] > 0
    assert np.array_equal(colours[seen], array[..., 0][seen])
    assert colours[3, 3] in (array[3, 2, 0], array[1, 3, 0])  # the nearest visible colour


def test_premultiplied_colours_are_divided_by_their_alpha(tmp_path):
    straight = np.full((8, 12, 4), (200, 100, 50, 128), np.uint8)
    stored = straight.copy()
    stored[..., :3] = np.rint(straight[..., :3] * (128 / 255))
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"], metadata=None)
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - straight).max() <= 1


@pytest.mark.parametrize("bits", [1, 8, 10, 16])
@pytest.mark.parametrize("bands", [1, 3])
def test_netpbm(tmp_path, bits, bands):
    white = 2**bits - 1
    values = np.random.default_rng(0).integers(0, white + 1, (5, 7, bands))
    if bits == 1:
        bands, values = 1, values[..., :1]
        rows = np.packbits(values[..., 0].astype(np.uint8), axis=1).tobytes()
        content = b"P4\n# black is 1\n7 5\n" + rows
        expected = (255 * (1 - values)).astype(np.uint8)
    else:
        kind = b"P5" if bands == 1 else b"P6"
        content = kind + b"\n# a comment\n7 5\n%d\n" % white + values.astype("u1" if bits == 8 else ">u2").tobytes()
        full = 255 if bits == 8 else 65535
        expected = np.rint(values * (full / white)).astype(np.uint8 if bits == 8 else np.uint16)
    (tmp_path / "a.ppm").write_bytes(content)
    assert np.array_equal(read_image(tmp_path / "a.ppm"), expected)
    info = probe(tmp_path / "a.ppm")
    assert (info.size, info.bands, info.bits) == ((5, 7), bands, 8 if bits <= 8 else 16)


def test_animations_have_pages(tmp_path):
    frames = [Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)]
    for suffix in ("gif", "webp", "png"):
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
        assert probe(tmp_path / f"a.{suffix}").pages == 2, suffix


# --- world files ------------------------------------------------------------------------------------------------------


def test_names_of_world_files():
    assert [world_file.suffix(s) for s in (".png", ".JPG", ".jpeg", ".tiff", ".bmp")] == [
        ".pgw",
        ".jgw",
        ".jgw",
        ".tfw",
        ".bpw",
    ]


@pytest.mark.parametrize("name", ["a.pgw", "a.PGW", "a.Pgw", "a.pngw", "a.wld"])
@pytest.mark.parametrize("numbers", [(10, 0, 0, -10, 500005, 4999995), (3.0, 0.4, 0.5, -3.0, 500.0, 900.0)])
def test_world_files_scale_about_the_corner(tmp_path, name, numbers):
    write_image(tmp_path / "a.png", PICTURE)
    (tmp_path / name).write_text("\n".join(map(str, numbers)))
    geo = read_geo(tmp_path / "a.png")
    a, d, b, e, x, y = numbers
    corner = x - (a + b) / 2, y - (d + e) / 2
    made = [float(line) for line in world_file.text(geo.scaled(2, 2)).split()]
    assert made[:4] == pytest.approx([a / 2, d / 2, b / 2, e / 2])
    assert made[4:] == pytest.approx([corner[0] + (a + b) / 4, corner[1] + (d + e) / 4])
    assert [float(line) for line in world_file.text(geo).split()] == pytest.approx(numbers)


def test_damaged_world_file_is_named(tmp_path):
    write_image(tmp_path / "a.png", PICTURE)
    (tmp_path / "a.pgw").write_text("1 2 3")
    with pytest.raises(InputError, match=r"a\.pgw: is not a world file"):
        read_geo(tmp_path / "a.png")


def test_affine_of_pixel_is_point_files():
    keys = (3, (1, 1, 0, 1, 1025, 0, 1, 2))
    geo = GeoTags({34735: keys, 33550: (12, (10.0, 10.0, 0.0)), 33922: (12, (0.0, 0.0, 0.0, 105.0, 995.0, 0.0))})
    assert geo.affine == (10.0, 0.0, 100.0, 0.0, -10.0, 1000.0)
    assert GeoTags.of_affine(*geo.affine).affine == geo.affine
