import io
import os
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, ImageOps

from data.details import Details
from data.media import (
    colours,
    from_tensor,
    probe,
    read_details,
    read_image,
    rgb,
    to_float,
    to_planes,
    to_tensor,
    to_uint8,
    write_image,
)
from data.video import VideoFile
from errors import InputError

RANDOM = np.random.default_rng(0)


def pixels(bands: int = 3, dtype=np.uint8, size=(12, 17)) -> np.ndarray:
    if dtype == np.float32:
        return RANDOM.random((*size, bands), np.float32)
    return RANDOM.integers(0, np.iinfo(dtype).max, (*size, bands), dtype, endpoint=True)


EXACT = [
    (".png", 1, np.uint8),
    (".png", 3, np.uint8),
    (".png", 4, np.uint8),
    (".png", 1, np.uint16),
    (".png", 3, np.uint16),
]
EXACT += [
    (".bmp", 3, np.uint8),
    (".tif", 1, np.uint8),
    (".tif", 3, np.uint16),
    (".tiff", 4, np.uint16),
    (".tif", 1, np.float32),
]
EXACT += [(".tif", 3, np.float32), (".tif", 2, np.uint16), (".tif", 8, np.uint16)]


@pytest.mark.parametrize(("suffix", "bands", "dtype"), EXACT)
def test_round_trips_are_exact(tmp_path, suffix, bands, dtype):
    array = pixels(bands, dtype)
    path = tmp_path / f"a{suffix}"
    write_image(path, array)
    again = read_image(path)
    assert again.dtype == dtype and np.array_equal(again, array)
    info = probe(path)
    assert info.size == (12, 17) and info.bands == bands and info.bits == {1: 8, 2: 16, 4: 32}[array.dtype.itemsize]
    assert info.alpha == (suffix in (".png", ".bmp") or bands == 4)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("bands", [3, 4])
def test_lossless_webp_is_exact(tmp_path, bands):
    array = pixels(bands)
    write_image(tmp_path / "a.webp", array, quality=100)
    assert np.array_equal(read_image(tmp_path / "a.webp"), array)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_are_close(tmp_path, suffix):
    array = np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[:, None, None], (1, 32, 3))
    write_image(tmp_path / f"a{suffix}", array)
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - array).max() <= 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp", ".jpg"])
def test_every_mode_is_read_as_gray_or_rgb(tmp_path, mode, suffix):
    image = Image.fromarray(pixels(1, np.uint16)[..., 0]) if mode == "I;16" else Image.fromarray(pixels()).convert(mode)
    try:
        image.save(tmp_path / f"a{suffix}")
    except (OSError, ValueError):
        pytest.skip(f"Pillow does not write {mode} to {suffix}")
    array = read_image(tmp_path / f"a{suffix}")
    assert array.ndim == 3 and array.shape[:2] == (12, 17)
    assert array.dtype == (np.uint16 if mode == "I;16" and suffix in (".png", ".tif") else np.uint8)
    assert to_tensor(array).shape == (3, 12, 17)
    assert probe(tmp_path / f"a{suffix}").size == (12, 17)
    if mode == "1":
        assert set(np.unique(array)) <= {0, 255} or suffix in (".webp", ".jpg")
    if mode in ("CMYK", "YCbCr") and suffix == ".tif":
        expected = np.asarray(image.convert("RGB")).astype(int)
        assert np.abs(array - expected).max() <= 1
    if suffix in (".png", ".tif") and mode in ("L", "RGB", "P"):
        assert np.array_equal(
            colours(array), np.asarray(image.convert("RGB") if mode == "P" else image).reshape(12, 17, -1)
        )


def test_orientation_tags_are_applied(tmp_path):
    image = Image.fromarray(np.tile(np.arange(16, dtype=np.uint8)[:, None] * 16, (1, 8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif, quality=100)
    array = read_image(tmp_path / "a.jpg")
    assert array.shape == (8, 16, 1) and probe(tmp_path / "a.jpg").size == (8, 16)
    assert array[0, 0, 0] > array[0, -1, 0]


def test_format_is_detected_from_content_not_suffix(tmp_path):
    array = pixels()
    write_image(tmp_path / "a.png", array)
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert np.array_equal(read_image(tmp_path / "a.jpg"), array)


def test_names_with_spaces_and_non_ascii_letters(tmp_path):
    path = tmp_path / "кадр 衛星 ä" / "n 1.png"
    array = pixels()
    write_image(path, array)
    assert np.array_equal(read_image(path), array)


def test_conversions():
    gray, deep, alpha = pixels(1), pixels(3, np.uint16), pixels(4)
    assert torch.equal(to_tensor(gray)[0], to_tensor(gray)[2])
    assert to_tensor(deep).max() <= 1 and torch.allclose(
        to_tensor(deep)[1, 3, 4], torch.tensor(deep[3, 4, 1] / 65535).float()
    )
    assert torch.equal(to_tensor(alpha), to_tensor(alpha[..., :3]))
    assert to_planes(alpha).dtype == torch.uint8 and torch.equal(to_float(to_planes(alpha)), to_tensor(alpha))
    assert np.array_equal(to_uint8(to_tensor(alpha)), alpha[..., :3])
    assert np.array_equal(from_tensor(to_tensor(deep), np.dtype(np.uint16)), deep)
    assert np.array_equal(from_tensor(to_tensor(gray), np.dtype(np.uint8), 1), gray)
    assert to_uint8(torch.full((2, 5, 3, 1, 1), 2.0)).shape == (2, 5, 1, 1, 3)
    assert to_uint8(torch.tensor([-1.0, 0.5, 7.0]).reshape(3, 1, 1)).ravel().tolist() == [0, 128, 255]
    assert rgb(pixels(2)).shape == (12, 17, 3)
    with pytest.raises(InputError, match="choose bands"):
        rgb(pixels(5))


def test_tensors_do_not_share_read_only_memory():
    array = pixels(3, size=(1, 1))
    array.flags.writeable = False
    planes = to_planes(array)
    planes += 1
    assert (planes.ravel().numpy() != array.ravel()).all()


def test_values_that_a_format_cannot_store_are_refused(tmp_path):
    for name, array in [
        ("a.jpg", pixels(3, np.uint16)),
        ("a.png", pixels(3, np.float32)),
        ("a.png", pixels(5)),
        ("a.xyz", pixels()),
    ]:
        with pytest.raises(InputError, match=name):
            write_image(tmp_path / name, array)
    assert list(tmp_path.iterdir()) == []


def test_file_instead_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_image(tmp_path / "file" / "a.png", pixels())


def damaged(folder: Path) -> dict[str, Path]:
    """Files that are not valid images, by their defect."""

    def save(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    def encoded(kind: str, image: Image.Image, **options) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    image = Image.fromarray(pixels(size=(64, 64)))
    kinds = {"PNG": "png", "JPEG": "jpg", "BMP": "bmp", "WEBP": "webp", "TIFF": "tif"}
    files = {}
    for kind, suffix in kinds.items():
        content = encoded(kind, image)
        files[f"half a {kind}"] = save(f"half.{suffix}", content[: len(content) // 2])
        files[f"head of a {kind}"] = save(f"head.{suffix}", content[:20])
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        content = encoded("TIFF", image, compression=compression)
        files[f"half a {compression}"] = save(f"{compression}.tif", content[: len(content) // 2])
    png = bytearray(encoded("PNG", image))
    png[len(png) // 2] ^= 0xFF
    files["flipped bits"] = save("flipped.png", bytes(png))
    huge = bytearray(encoded("PNG", image))
    huge[16:24] = b"\x7f\xff\xff\xff\x7f\xff\xff\xff"
    files["a PNG that claims to be huge"] = save("huge.png", bytes(huge))
    files["no bytes"] = save("empty.png", b"")
    files["text"] = save("text.png", b"this is no image")
    files["a web page"] = save("page.jpg", b"<html>404</html>")
    frames = [Image.fromarray(pixels()) for _ in range(3)]
    for kind, suffix in {"GIF": "gif", "WEBP": "webp", "PNG": "png"}.items():
        content = encoded(kind, frames[0], save_all=True, append_images=frames[1:])
        files[f"an animated {kind}"] = save(f"animated.{suffix}", content)
    files["a stack"] = save("stack.tif", encoded("TIFF", frames[0], save_all=True, append_images=frames[1:]))
    nan = pixels(1, np.float32)
    nan[3, 4] = np.nan
    write_image(folder / "nan.tif", nan)
    files["NaN"] = folder / "nan.tif"
    files["a folder"] = folder / "folder.png"
    files["a folder"].mkdir()
    files["nothing"] = folder / "missing.png"
    (folder / "loop.png").symlink_to(folder / "loop.png")
    files["a link to itself"] = folder / "loop.png"
    return files


def test_damaged_files_are_named_in_one_line(tmp_path):
    for what, path in damaged(tmp_path).items():
        with pytest.raises(InputError) as caught:
            read_image(path)
        message = str(caught.value)
        assert message.startswith(str(path)) and "\n" not in message and len(message) < 400, (what, message)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "HEIC"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "MP4 or QuickTime"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"\n <!DOCTYPE HTML><title>404</title>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer, not downloaded"),
    ],
)
def test_other_kinds_of_content_are_named(tmp_path, content, kind):
    (tmp_path / "a.jpg").write_bytes(content + bytes(100))
    for read in (probe, read_image):
        with pytest.raises(InputError) as caught:
            read(tmp_path / "a.jpg")
        assert f"of another kind ({kind})" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04", "of another kind (ZIP); unpack it"),
        (b"MATLAB 5.0 MAT-file", "of another kind (MATLAB); convert or replace it"),
        (b"ZISRAWFILE", "of another kind (Zeiss CZI); convert or replace it"),
        (b"\x89PNG\r\n\x1a\n", "of another kind (PNG); convert or replace it"),
        (b"\0" * 257 + b"ustar", "of another kind (tar); unpack it"),
        (b"", "the file is empty"),
    ],
)
def test_other_kinds_of_content_of_a_video_are_named(tmp_path, content, reason):
    (tmp_path / "a.mp4").write_bytes(content and content + bytes(300))
    with pytest.raises(InputError) as caught:
        VideoFile(tmp_path / "a.mp4")
    assert reason in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG of 12 bits per value", "JPEG-LS"])
def test_kinds_of_jpeg_are_named(tmp_path, kind):
    values = (np.arange(32 * 40).reshape(32, 40) * 3).astype(np.uint16)
    content = (
        imagecodecs.jpegls_encode(values) if kind == "JPEG-LS" else imagecodecs.jpeg8_encode(values, bitspersample=12)
    )
    exif = b"\xff\xe1\x40\x00" + bytes(0x3FFE)  # metadata before the frame's header
    (tmp_path / "a.jpg").write_bytes(content[:2] + exif + content[2:])
    with pytest.raises(InputError, match=rf"of another kind \({kind}\); convert or replace it"):
        read_image(tmp_path / "a.jpg")


def test_very_wide_images(tmp_path):
    array = pixels(1, size=(2, 65536))
    for suffix in (".png", ".tif", ".bmp"):
        write_image(tmp_path / f"a{suffix}", array)
        assert np.array_equal(colours(read_image(tmp_path / f"a{suffix}")), array)


def test_unreadable_files(tmp_path):
    path = tmp_path / "a.png"
    write_image(path, pixels())
    path.chmod(0)
    try:
        path.read_bytes()
        pytest.skip("this user may read everything")
    except PermissionError:
        pass
    with pytest.raises(InputError, match="permission"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_icc_profiles_are_read_and_kept(tmp_path, suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / f"in{suffix}", icc_profile=profile)
    assert read_details(tmp_path / f"in{suffix}").profile == profile
    write_image(tmp_path / f"out{suffix}", picture, details=Details(profile))
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert image.info["icc_profile"] == profile
    # An RGB profile does not apply to grey images
    write_image(tmp_path / f"gray{suffix}", picture[..., :1], details=Details(profile))
    assert read_details(tmp_path / f"gray{suffix}").profile is None
    if suffix in (".png", ".tif"):
        assert np.array_equal(read_image(tmp_path / f"out{suffix}"), picture)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_orientation_equals_pillow(tmp_path, suffix, orientation):
    picture = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    path = tmp_path / f"in{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, picture, photometric="rgb", metadata=None, extratags=[(274, "H", 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(picture).save(path, exif=exif, lossless=True)
    turned = Image.fromarray(picture)
    turned.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(turned))
    assert np.array_equal(read_image(path), expected) and probe(path).size == expected.shape[:2]


def test_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (probe, read_image):
        with pytest.raises(InputError, match="is a pipe or a device"):
            read(tmp_path / "a.png")


def test_pgm_as_text_of_16_bits(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_text("P2\n3 1\n1000\n0 500 1000\n")
    assert probe(tmp_path / "a.pgm").bits == 16
    assert read_image(tmp_path / "a.pgm")[..., 0].tolist() == [[0, 32768, 65535]]


@pytest.mark.parametrize("white", [1000, 65535])
def test_ppm_of_more_than_8_bits(tmp_path: Path, white: int) -> None:
    """As text, and with a long comment before the size."""
    values = np.linspace(0, white, 6).round().astype(int)
    rows = " ".join(map(str, values[:3])) + " # red, green, blue\n" + " ".join(map(str, values[3:]))
    (tmp_path / "text.ppm").write_text(f"P3\n2 1\n{white}\n{rows}\n")
    head = b"P6\n# " + b"a program and its version " * 8 + b"\n2 1\n%d\n" % white
    (tmp_path / "bytes.ppm").write_bytes(head + values.astype(">u2").tobytes())
    for name in ("text.ppm", "bytes.ppm"):
        assert probe(tmp_path / name).bits == 16
        assert read_image(tmp_path / name).ravel().tolist() == np.rint(values * (65535 / white)).tolist()
    (tmp_path / "short.ppm").write_text(f"P3\n2 2\n{white}\n{rows}\n")
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_image(tmp_path / "short.ppm")
