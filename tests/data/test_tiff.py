import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from data import geo_tags, tiff
from data.bands import Bands
from data.clips import CroppedClip, DegradedClip, FolderClip, TiffStackClip
from data.degrade import Degradation
from data.media import page_numbers, read_image, write_image
from errors import InputError

RANDOM = np.random.default_rng(0)
AREA_KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32643)
POINT_KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 2, 3072, 0, 1, 32643)
DOUBLE, SHORT, ASCII = 12, 3, 2


def geo(keys=AREA_KEYS, matrix: bool = False, pixel: float = 2.0) -> geo_tags.GeoTags:
    """Georeference in UTM 43N: upper left corner (500000, 4000000), pixels of `pixel` metres."""
    tags = {geo_tags.GEO_KEYS: (SHORT, keys), geo_tags.GDAL_NODATA: (ASCII, "0")}
    if matrix:
        tags[geo_tags.TRANSFORMATION] = (
            DOUBLE,
            (pixel, 0.3, 0, 500000, 0.2, -pixel, 0, 4000000, 0, 0, 0, 0, 0, 0, 0, 1),
        )
    else:
        tags[geo_tags.PIXEL_SCALE] = (DOUBLE, (pixel, pixel, 0.0))
        tags[geo_tags.TIEPOINT] = (DOUBLE, (0.0, 0.0, 0.0, 500000.0, 4000000.0, 0.0))
    return geo_tags.GeoTags(tags)


def deep(bands: int = 1, size=(20, 30), top: int = 2047) -> np.ndarray:
    return RANDOM.integers(0, top, (*size, bands), np.uint16)


def ground(path, x: float, y: float) -> tuple[float, float]:
    """Ground position of the pixel corner (x, y), read with Pillow by the rules of GeoTIFF."""
    with Image.open(path) as image:
        tags = dict(image.tag_v2)
    keys = tags[geo_tags.GEO_KEYS]
    point = any(keys[i] == 1025 and keys[i + 3] == 2 for i in range(4, len(keys), 4))
    x, y = (x - 0.5, y - 0.5) if point else (x, y)
    if geo_tags.TRANSFORMATION in tags:
        m = tags[geo_tags.TRANSFORMATION]
        return m[0] * x + m[1] * y + m[3], m[4] * x + m[5] * y + m[7]
    i, j, _, left, upper, _ = tags[geo_tags.TIEPOINT]
    wide, high = tags[geo_tags.PIXEL_SCALE][:2]
    return left + (x - i) * wide, upper - (y - j) * high


@pytest.mark.parametrize("keys", [AREA_KEYS, POINT_KEYS])
@pytest.mark.parametrize("matrix", [False, True])
@pytest.mark.parametrize(("scale_y", "scale_x"), [(4, 4), (2.5, 3)])
def test_ground_position_is_preserved(tmp_path, keys, matrix, scale_y, scale_x):
    tags = geo(keys, matrix)
    tiff.write(tmp_path / "low.tif", deep(), tags)
    tiff.write(tmp_path / "high.tif", deep(), tags.scaled(scale_y, scale_x))
    for x, y in [(0, 0), (30, 20), (7.5, 3.25)]:
        low, high = ground(tmp_path / "low.tif", x, y), ground(tmp_path / "high.tif", x * scale_x, y * scale_y)
        assert high == pytest.approx(low, abs=1e-6)
    again = tiff.read_geo(tmp_path / "high.tif")
    assert again is not None and again.tags[geo_tags.GEO_KEYS][1] == keys and again.tags[geo_tags.GDAL_NODATA][1] == "0"


def test_rational_polynomials_are_scaled():
    values = (0.0, 0.0, 99.5, 199.5, 10, 20, 30, 100.0, 200.0, *range(83))
    scaled = geo_tags.GeoTags({geo_tags.RPC: (DOUBLE, values)}).scaled(2, 4).tags[geo_tags.RPC][1]
    assert scaled[2:4] == (199.5, 799.5) and scaled[7:9] == (200, 800) and scaled[9:] == values[9:]


def test_16_bit_stack_keeps_depth_and_georeference(tmp_path):
    """A stack is upscaled by two: 16 bits, one band, stretch inverted, every page georeferenced."""
    pages = [deep() for _ in range(3)]
    with tifffile.TiffWriter(tmp_path / "in.tif") as writer:
        for page in pages:
            tiff.write_page(writer, page, geo())
    clip = TiffStackClip(tmp_path / "in.tif", bands=Bands(limits=(0, 2047)))
    assert len(clip) == 3 and clip.size == (20, 30) and clip.bit_depth == 32 and clip.channels == 1
    assert clip.frame(1)[0, 2, 3] == pytest.approx(pages[1][2, 3, 0] / 2047)
    with tifffile.TiffWriter(tmp_path / "out.tif") as writer:
        for index in range(3):
            twice = torch.nn.functional.interpolate(clip.frame(index)[None], scale_factor=2)[0]
            source = clip.geo(index)
            assert source is not None
            tiff.write_page(writer, clip.stored(twice), source.scaled(2, 2))
    with Image.open(tmp_path / "out.tif") as image:
        assert image.n_frames == 3 and image.mode == "I;16" and image.size == (60, 40)
        assert image.tag_v2[geo_tags.PIXEL_SCALE][:2] == (1.0, 1.0)
        image.seek(2)
        assert np.array_equal(np.asarray(image)[::2, ::2], pages[2][..., 0])


def test_percentiles_are_stretched_and_inverted_exactly(tmp_path):
    frames = [deep(4, top=11000) for _ in range(3)]
    for number, frame in enumerate(frames):
        write_image(tmp_path / "in" / f"{number}.tif", frame)
    bands = Bands(choice=(3, 2, 1), percentiles=(2, 98))
    clip = FolderClip(tmp_path / "in", bands=bands)
    shown = clip.frame(0)
    chosen = np.stack(frames)[..., [2, 1, 0]]
    low, high = np.percentile(chosen.reshape(-1, 3), (2, 98), axis=0)
    expected = (frames[0][..., [2, 1, 0]] - low) / (high - low)
    assert np.allclose(shown.permute(1, 2, 0), expected, atol=1e-6)
    write_image(tmp_path / "out.tif", clip.stored(shown))
    assert np.array_equal(read_image(tmp_path / "out.tif"), frames[0][..., [2, 1, 0]])


def test_signed_and_float_values_need_a_stretch(tmp_path):
    signed = RANDOM.integers(-3000, 3000, (8, 9), np.int16)
    tifffile.imwrite(tmp_path / "a.tif", signed)
    with pytest.raises(InputError, match="set a stretch"):
        FolderClip([tmp_path / "a.tif"]).array(0)
    clip = FolderClip([tmp_path / "a.tif"], bands=Bands(limits=(-3000, 3000)))
    assert clip.array(0).min() >= 0 and clip.array(0).max() <= 1
    write_image(tmp_path / "out.tif", clip.stored(clip.frame(0)))
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif"), signed)


def test_bands_without_a_choice_are_refused(tmp_path):
    tiff.write(tmp_path / "eight.tif", deep(8))
    tifffile.imwrite(tmp_path / "nir.tif", deep(4), photometric="minisblack", planarconfig="contig")
    for name in ("eight.tif", "nir.tif"):
        with pytest.raises(InputError, match="choose one or three"):
            FolderClip([tmp_path / name]).array(0)
    with pytest.raises(InputError, match="band 9"):
        FolderClip([tmp_path / "eight.tif"], bands=Bands(choice=(9,))).array(0)
    one = FolderClip([tmp_path / "eight.tif"], bands=Bands(choice=(8,)))
    assert one.channels == 1 and one.bit_depth == 16 and one.array(0).dtype == np.uint16


@pytest.mark.parametrize(
    "fields",
    [
        {"choice": (1, 2)},
        {"choice": (0,)},
        {"percentiles": (98, 2)},
        {"limits": (5, 5)},
        {"limits": (0, 1), "percentiles": (2, 98)},
    ],
)
def test_impossible_bands_are_refused(fields):
    with pytest.raises(InputError, match="bands"):
        Bands(**fields)


def test_constant_and_empty_bands_are_kept(tmp_path):
    array = np.stack([np.full((4, 4), 7), np.arange(16).reshape(4, 4), np.full((4, 4), np.nan)], -1).astype(np.float32)
    write_image(tmp_path / "a.tif", array)
    clip = FolderClip([tmp_path / "a.tif"], bands=Bands(percentiles=(0, 100)))
    low, high = clip.band_map.low, clip.band_map.high
    assert low.tolist() == [7, 0, 0] and high.tolist() == [8, 15, 1]
    assert np.array_equal(clip.band_map.invert(clip.array(0))[..., :2], array[..., :2])


@pytest.mark.parametrize("layout", ["planar", "tiled", "big-endian", "bigtiff", "lzw", "white is zero", "overviews"])
def test_kinds_of_tiff(tmp_path, layout):
    array, path = deep(3), tmp_path / "a.tif"
    if layout == "planar":
        tifffile.imwrite(path, np.moveaxis(array, -1, 0), photometric="rgb", planarconfig="separate")
    elif layout == "tiled":
        tifffile.imwrite(path, array, photometric="rgb", tile=(16, 16), compression="zstd")
    elif layout == "big-endian":
        tifffile.imwrite(path, array, photometric="rgb", byteorder=">")
    elif layout == "bigtiff":
        tifffile.imwrite(path, array, photometric="rgb", bigtiff=True)
    elif layout == "lzw":
        tifffile.imwrite(path, array, photometric="rgb", compression="lzw", predictor=True)
    elif layout == "white is zero":
        tifffile.imwrite(path, 65535 - array[..., 0], photometric="miniswhite")
        array = array[..., :1]
    else:
        with tifffile.TiffWriter(path) as writer:
            writer.write(array, photometric="rgb", subfiletype=0)
            writer.write(array[::2, ::2], photometric="rgb", subfiletype=1)
    assert np.array_equal(read_image(path), array)
    assert FolderClip([path]).array(0).dtype == np.uint16


def test_derived_clips_keep_the_georeference(tmp_path):
    tiff.write(tmp_path / "a.tif", deep(1, (22, 33)), geo())
    low = DegradedClip(CroppedClip(FolderClip([tmp_path / "a.tif"]), 4), Degradation(), 4)
    tiff.write(tmp_path / "low.tif", low.stored(low.frame(0)), low.geo(0))
    assert ground(tmp_path / "low.tif", 5, 5) == pytest.approx(ground(tmp_path / "a.tif", 20, 20))
    assert tiff.read(tmp_path / "low.tif").dtype == np.uint16


def stack(path, pages=5):
    with tifffile.TiffWriter(path) as writer:
        for _ in range(pages):
            tiff.write_page(writer, deep())
            writer.write(deep()[::2, ::2, 0], subfiletype=1)  # an overview after each page
    return path


def test_overviews_between_pages_are_not_frames(tmp_path):
    clip = TiffStackClip(stack(tmp_path / "a.tif"))
    assert len(clip) == 5 and all(clip.array(index).shape == (20, 30, 1) for index in range(5))


def test_volumes_of_slices_are_refused(tmp_path):
    """GDAL and others would read the first slice only."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 16, 16), np.uint8), volumetric=True, tile=(1, 16, 16))
    with pytest.raises(InputError, match="volume of 5 slices"):
        TiffStackClip(tmp_path / "a.tif")


def test_broken_page_chain_is_refused(tmp_path, caplog):
    content = stack(tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match=r"cut.tif: .*chain of pages is broken"):
        TiffStackClip(tmp_path / "cut.tif")
    assert not caplog.records  # one line, and nothing else is printed


def test_cyclic_page_chain_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for _ in range(3):
            tiff.write_page(writer, deep())
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0].offset, file.pages[2]
        link = last.offset + 2 + 12 * len(last.tags)
    content = bytearray(path.read_bytes())
    assert content[link : link + 4] == bytes(4)
    content[link : link + 4] = first.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match="cyclic"):
        TiffStackClip(path)


@pytest.mark.parametrize(
    ("axes", "options", "refused"),
    [
        ("TCYX", {"imagej": True}, "4 frames x 2 channels"),
        ("TZYX", {"imagej": True}, "4 frames x 2 slices"),
        ("TCYX", {"ome": True}, "4 frames x 2 channels"),
        ("TCYX", {}, "4 in axis 1 x 2 in axis 2"),
        ("CYX", {"imagej": True}, None),
        ("TYX", {"ome": True}, None),
        ("TYX", {}, None),
    ],
)
def test_stacks_of_two_axes_are_not_taken_for_frames(tmp_path, axes, options, refused):
    path, shape = tmp_path / "in.tif", (4, 2, 5, 6)
    array = np.zeros(shape if len(axes) == 4 else (4, 5, 6), np.uint8)
    tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": axes}, **options)
    if refused:
        with pytest.raises(InputError, match=f"its 8 pages are {refused}"):
            page_numbers(path)
    else:
        assert page_numbers(path) == [0, 1, 2, 3]
