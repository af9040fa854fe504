import numpy as np
import pytest
import torch

from data.clips import (
    PADDINGS,
    ArrayClip,
    CroppedClip,
    DegradedClip,
    FolderClip,
    RegionClip,
    SubClip,
    frame_numbers,
    neighbours,
)
from data.degrade import Degradation
from data.media import write_image
from data.naming import natural_key
from errors import InputError

RANDOM = np.random.default_rng(0)


def folder(path, names, size=(8, 10), bands=3, dtype=np.uint8):
    for name in names:
        write_image(path / name, RANDOM.integers(0, 255, (*size, bands)).astype(dtype))
    return path


@pytest.mark.parametrize(
    ("padding", "index", "expected"),
    [
        ("reflect", 0, [2, 1, 0, 1, 2]),
        ("reflect", 5, [3, 4, 5, 4, 3]),
        ("circular", 0, [4, 5, 0, 1, 2]),
        ("replicate", 0, [0, 0, 0, 1, 2]),
        ("replicate", 4, [2, 3, 4, 5, 4]),
        ("reflect", 2, [0, 1, 2, 3, 4]),
        ("distinct", 0, [4, 3, 0, 1, 2]),
        ("distinct", 1, [4, 0, 1, 2, 3]),
        ("distinct", 3, [1, 2, 3, 4, 5]),
        ("distinct", 5, [3, 4, 5, 2, 1]),
    ],
)
def test_neighbours(padding, index, expected):
    assert neighbours(index, 5, 6, padding) == expected


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_clips_have_neighbours(padding, length):
    for index in range(length):
        numbers = neighbours(index, 7, length, padding)
        assert len(numbers) == 7 and numbers[3] == index and set(numbers) <= set(range(length))


@pytest.mark.parametrize("spacing", [1, 2, 3, 12])
@pytest.mark.parametrize("length", [5, 6, 9, 40])
def test_distinct_windows_repeat_no_frame(spacing, length):
    for index in range(length):
        numbers = neighbours(index, 5, length, "distinct", spacing)
        assert numbers[2] == index and len(set(numbers)) == 5 and set(numbers) <= set(range(length))
        inside = [index + spacing * step for step in (-2, -1, 0, 1, 2)]
        assert all(a == b for a, b in zip(numbers, inside, strict=True) if 0 <= b < length)


def test_natural_order():
    names = ["frame10.png", "frame2.png", "Frame1.png", "frame02.png"]
    assert sorted(names, key=natural_key) == ["Frame1.png", "frame02.png", "frame2.png", "frame10.png"]


def test_frame_numbers():
    assert frame_numbers(["im1", "im2"]) == [1, 2]
    assert frame_numbers(["00001234", "00001235"]) == [1234, 1235]
    assert frame_numbers(["a_12_left", "a_13_left"]) == [12, 13]
    assert frame_numbers(["a", "b"]) is None and frame_numbers(["a1", "b2"]) is None


@pytest.mark.parametrize(
    "stems",
    [
        [str(round(0.04 * index, 2)) for index in range(12)],  # 0.2 is between 0.16 and 0.24
        ["t_0.125 s", "t_1.0 s", "t_1.25 s", "t_1.5 s", "t_10.75 s"],
        ["0.25", "0.5"],
        ["1.8", "1.9", "1.10", "1.11"],  # scene and frame
        ["2.1", "2.10"],
        ["1.9", "1.11", "1.13"],
    ],
)
def test_frames_named_by_decimals_are_sorted_by_value(tmp_path, stems):
    clip = FolderClip(folder(tmp_path / "series", [f"{stem}.png" for stem in reversed(stems)]))
    assert clip.frame_names == stems
    assert FolderClip([tmp_path / "series" / f"{stem}.png" for stem in reversed(stems)]).frame_names == stems


@pytest.mark.parametrize(
    "names",
    [
        ["S2_20200101_T", "S2_20200131_T", "S2_20200205_T"],
        ["202001012359", "202001020003", "202003010000"],
        ["20230506T101112Z", "20230506T101113Z", "20230506T101210Z"],
        ["cam_20230506_105958", "cam_20230506_105959", "cam_20230506_110003"],
        ["PXL_20230506_101112345", "PXL_20230506_101115345", "PXL_20230506_101155345"],
        ["2023-05-06_10-11-12", "2023-05-06_10-11-13", "2023-05-06_10-11-15"],
        ["2023-05-01", "2023-05-03", "2023-05-08"],
        ["MOD09_2023121", "MOD09_2023129", "MOD09_2023145"],
        ["1683367872", "1683367873", "1683367880"],
        ["1305031102.175304", "1305031102.211214", "1305031102.343227"],
        ["1403636579763555584", "1403636579813555456", "1403636579963555584"],
        ["frame_0.033", "frame_0.067", "frame_0.100"],
        ["ms33", "ms67", "ms100"],
    ],
)
def test_dates_and_times_in_names_have_no_gaps(tmp_path, names):
    clip = FolderClip(folder(tmp_path / "series", [f"{name}.png" for name in reversed(names)]), fps=2)
    assert clip.frame_names == names and clip.times == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["20201301", "20201302", "20201304"], 1),  # there is no month 13
        (["20230506_000001", "20230506_000002", "20230506_000004"], 1),
        (["20230506_0001", "20230506_0002", "20230506_0005"], 2),
        (["IMG_20230506_101112_1", "IMG_20230506_101112_2", "IMG_20230506_101112_4"], 1),
        (["10", "20", "30", "45"], 1),
        (["0000000001", "0000000002", "0000000004"], 1),
    ],
)
def test_numbers_that_are_no_times_have_gaps(tmp_path, names, missing):
    with pytest.raises(InputError, match=f"{names[-1]}.png, {missing} frame"):
        FolderClip(folder(tmp_path / "series", [f"{name}.png" for name in names]))


@pytest.mark.parametrize(
    "names",
    [
        ["000.png", "001.png", "002.png"],
        ["im1.jpg", "im2.jpg"],
        ["9.png", "10.png", "11.png"],
        ["0.png", "5.png", "10.png"],
    ],
)
def test_folder_clips(tmp_path, names):
    clip = FolderClip(folder(tmp_path / "walk", names))
    assert clip.name == "walk" and len(clip) == len(names) and clip.size == (8, 10) and clip.bit_depth == 8
    assert clip.frame_names == [name.split(".")[0] for name in names]
    assert clip.frame(1).shape == (3, 8, 10) and clip.source(1).endswith(names[1])
    assert clip.window(0, 5).shape == (5, 3, 8, 10)
    assert torch.equal(clip.window(0, 3, "replicate")[0], clip.frame(0))


def test_times(tmp_path):
    path = folder(tmp_path / "a", ["10.png", "11.png", "12.png"])
    assert FolderClip(path).times == [10.0, 11.0, 12.0]
    assert FolderClip(path, fps=4).times == [0.0, 0.25, 0.5]
    every_fifth = folder(tmp_path / "b", ["0.png", "5.png", "10.png", "20.png"])
    assert FolderClip(every_fifth, fps=4, allow_gaps=True).times == [0.0, 0.25, 0.5, 1.0]


def test_hidden_and_foreign_files_are_not_frames(tmp_path):
    path = folder(tmp_path / "a", ["1.png", "2.png"])
    for name in (".DS_Store", "._1.png", "Thumbs.db", "readme.txt"):
        (path / name).write_text("x")
    assert len(FolderClip(path)) == 2


def test_gaps_and_duplicates_are_reported(tmp_path):
    gap = folder(tmp_path / "gap", ["001.png", "002.png", "005.png", "006.png"])
    with pytest.raises(InputError, match=r"002.png: the next frame is 005.png, 2 frame"):
        FolderClip(gap)
    assert FolderClip(gap, allow_gaps=True).times == [1, 2, 5, 6]
    double = folder(tmp_path / "double", ["1.png", "2.png", "02.png", "3.png"])
    with pytest.raises(InputError, match="second file"):
        FolderClip(double)


def test_frames_that_differ_are_named(tmp_path):
    sizes = folder(tmp_path / "sizes", ["1.png"])
    folder(sizes, ["2.png"], size=(8, 12))
    with pytest.raises(InputError, match=r"2.png: 12x8 pixels, the clip's first frame has 10x8"):
        FolderClip(sizes).array(1)
    depths = folder(tmp_path / "depths", ["1.png"])
    folder(depths, ["2.png"], dtype=np.uint16)
    with pytest.raises(InputError, match=r"2.png: 16 bits"):
        FolderClip(depths).array(1)


def test_gray_and_alpha_frames_among_colours(tmp_path):
    path = folder(tmp_path / "a", ["1.png"])
    folder(path, ["2.png"], bands=1)
    folder(path, ["3.png"], bands=4)
    clip = FolderClip(path)
    assert clip.window(1, 3).shape == (3, 3, 8, 10)


def test_missing_and_empty(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        FolderClip(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image files"):
        FolderClip(tmp_path / "empty")
    with pytest.raises(InputError, match="is a file"):
        FolderClip(folder(tmp_path / "a", ["1.png"]) / "1.png")
    with pytest.raises(InputError, match="empty"):
        ArrayClip("a", [])


def test_derived_clips():
    frames = RANDOM.integers(0, 255, (6, 11, 14, 3), np.uint8)
    clip = ArrayClip("a", frames, fps=2)
    part = SubClip(clip, [4, 2, -1])
    assert (
        part.times == [2.0, 1.0, 2.5] and np.array_equal(part.array(2), frames[5]) and part.frame_names[0] == "00000004"
    )
    cropped = CroppedClip(clip, 4)
    assert cropped.size == (8, 12) and np.array_equal(cropped.array(1), frames[1, :8, :12])
    low = DegradedClip(cropped, Degradation(), 4)
    assert low.size == low.array(0).shape[:2] == (2, 3) and low.array(0).dtype == np.uint8 and len(low) == 6
    odd = DegradedClip(clip, Degradation(), 2.5)
    assert odd.size == odd.array(0).shape[:2] == (4, 6)
    with pytest.raises(InputError, match="too small"):
        CroppedClip(clip, 12).array(0)
    with pytest.raises(IndexError):
        clip.array(6)


def test_crops_include_opacity_and_holes(monkeypatch):
    frames = RANDOM.integers(0, 255, (2, 11, 14, 3), np.uint8)
    clip, opacity = ArrayClip("a", frames), RANDOM.integers(0, 255, (11, 14, 1), np.uint8)
    monkeypatch.setattr(ArrayClip, "transparent", True)
    monkeypatch.setattr(ArrayClip, "alpha", lambda *_: opacity)
    monkeypatch.setattr(ArrayClip, "holes", lambda self, index: (frames[index], opacity > 9))
    regions = {CroppedClip(clip, 4): np.s_[:8, :12], RegionClip(clip, 3, 2, 7, 11): np.s_[3:7, 2:11]}
    for crop, region in regions.items():
        pairs = zip(
            (crop.array(1), crop.alpha(1), *crop.holes(1)), (frames[1], opacity, frames[1], opacity > 9), strict=True
        )
        for found, full in pairs:
            np.testing.assert_array_equal(found, full[region])
    low = DegradedClip(clip, Degradation(), 2)
    assert not low.transparent and low.alpha(1) is None and low.holes(1) is None


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 16), (np.float32, 32)])
def test_low_resolution_keeps_the_bit_depth(dtype, bits):
    frames = RANDOM.random((2, 8, 8, 1), np.float32)
    stored = frames if dtype == np.float32 else (frames * np.iinfo(dtype).max).astype(dtype)
    low = DegradedClip(ArrayClip("a", stored), Degradation(), 2)
    assert low.bit_depth == bits and low.array(0).dtype == dtype and low.array(0).shape == (4, 4, 1)
    expected = Degradation(bits=0)(torch.from_numpy(frames[1]).permute(2, 0, 1), 2)
    assert torch.allclose(
        low.frame(1)[:1], expected.clamp(0, 1) if bits < 32 else expected, atol=1.5 / 255 if bits == 8 else 4e-5
    )
    assert DegradedClip(ArrayClip("a", stored), Degradation(bits=8), 2).array(0).dtype == np.uint8


def test_noise_depends_on_clip_name_and_frame():
    frames = np.full((3, 16, 16, 3), 100, np.uint8)
    clips = [DegradedClip(ArrayClip(name, frames), Degradation(noise=5), 2) for name in ("a", "a", "b")]
    assert np.array_equal(clips[0].array(1), clips[1].array(1))
    assert not np.array_equal(clips[0].array(1), clips[0].array(2))
    assert not np.array_equal(clips[0].array(1), clips[2].array(1))
