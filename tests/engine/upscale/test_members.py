"""Folders with clips and pictures, photographs, several series, or frames of mixed kinds."""

from __future__ import annotations

import numpy as np
import pytest

from data.media import read_image, write_image
from engine.upscale.members import find_members
from errors import InputError
from tests.engine.upscale.folders import frames, listed, make, photograph, series

SIZES = [(16, 24), (24, 16), (20, 20)]


@pytest.mark.parametrize("kind", ["videos", "folders"])
def test_picture_next_to_clips_does_not_hide_them(weight, tmp_path, capsys, kind):
    frames(tmp_path / "in" / "a", 2)
    if kind == "videos":
        make(tmp_path / "in" / "a", tmp_path / "in" / "b.mp4", weight)
    photograph(tmp_path / "in" / "poster.jpg")
    make(tmp_path / "in", tmp_path / "out", weight)
    assert listed(tmp_path / "out") == ["a/000.png", "a/001.png"] + ["b.mp4"] * (kind == "videos")
    assert "'poster.jpg' (--stills" in capsys.readouterr().out
    make(tmp_path / "in", tmp_path / "all", weight, stills=True)
    assert "poster.png" in listed(tmp_path / "all")


def test_results_inside_the_input_are_not_clips_of_later_runs(weight, tmp_path, capsys):
    frames(tmp_path / "in" / "a", 2)
    frames(tmp_path / "in" / "b", 2)
    for out in ("first", "second", "first"):
        make(tmp_path / "in", tmp_path / "in" / out, weight, overwrite=True)
    for out in ("first", "second"):
        expected = ["a/000.png", "a/001.png", "b/000.png", "b/001.png"]
        assert [name for name in listed(tmp_path / "in" / out) if "/." not in f"/{name}"] == expected
    assert "results of earlier runs: 'second'" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"is a folder of clips \(2\)"):
        make(tmp_path / "in", tmp_path / "in" / "new.mp4", weight)


def test_frames_next_to_clips_are_refused(weight, tmp_path):
    frames(tmp_path / "in" / "a", 2)
    frames(tmp_path / "in", 2)
    with pytest.raises(InputError, match=r"holds frames \(000\.png, \.\.\.\) and also clips \(a, \.\.\.\)"):
        make(tmp_path / "in", tmp_path / "out", weight)


def test_folders_without_frames_are_named(weight, tmp_path, capsys):
    frames(tmp_path / "in" / "a", 2)
    (tmp_path / "in" / "raw" / "deep").mkdir(parents=True)
    make(tmp_path / "in", tmp_path / "out", weight)
    assert "left out, because they hold no frames: 'raw'" in capsys.readouterr().out


def test_photographs_of_different_sizes_are_separate_clips(weight, tmp_path, capsys):
    for number, size in enumerate(SIZES):
        photograph(tmp_path / "in" / f"{'abc'[number]}.jpg", size, number)
    make(tmp_path / "in", tmp_path / "out", weight)
    assert [read_image(tmp_path / "out" / f"{name}.png").shape[:2] for name in "abc"] == [
        (2 * h, 2 * w) for h, w in SIZES
    ]
    assert "one by one: they have 3 sizes" in capsys.readouterr().out


def test_unrelated_pictures_with_gaps_in_numbers_are_separate_clips(weight, tmp_path):
    for number in (3, 17, 18):
        photograph(tmp_path / "in" / f"IMG_{number:04d}.jpg", seed=number)
    make(tmp_path / "in", tmp_path / "out", weight)
    assert listed(tmp_path / "out") == ["IMG_0003.png", "IMG_0017.png", "IMG_0018.png"]


def test_missing_frame_is_refused(weight, tmp_path):
    (frames(tmp_path / "in", 5) / "002.png").unlink()
    with pytest.raises(InputError, match=r"missing between them.*--stills"):
        make(tmp_path / "in", tmp_path / "out", weight)


def test_single_frame_of_another_size_is_refused(weight, tmp_path):
    photograph(frames(tmp_path / "in", 4) / "004.png", (20, 20))
    with pytest.raises(InputError, match=r"004\.png: 20x20 pixels.*--stills"):
        make(tmp_path / "in", tmp_path / "out", weight)


def test_two_files_with_the_same_stem(weight, tmp_path):
    for suffix in (".png", ".jpg"):
        photograph(tmp_path / "in" / f"left{suffix}")
    with pytest.raises(InputError, match=r"a second file for the same frame.*|left"):
        make(tmp_path / "in", tmp_path / "out", weight)
    make(tmp_path / "in", tmp_path / "out", weight, stills=True)
    assert listed(tmp_path / "out") == ["left_jpg.png", "left_png.png"]


@pytest.mark.parametrize("first", ["gray", "colour"])
def test_gray_frame_does_not_make_the_others_gray(weight, tmp_path, first):
    frames(tmp_path / "in", 3)
    name = "000.png" if first == "gray" else "001.png"
    write_image(tmp_path / "in" / name, read_image(tmp_path / "in" / name)[..., :1])
    make(tmp_path / "in", tmp_path / "out", weight)
    assert [read_image(tmp_path / "out" / f"{k:03d}.png").shape[2] for k in range(3)] == [3, 3, 3]
    colours = read_image(tmp_path / "out" / "002.png").reshape(-1, 3).astype(int)
    assert np.abs(colours[:, 0] - colours[:, 1]).max() > 50


def test_frames_of_mixed_depth_are_refused_before_work_starts(weight, tmp_path):
    frames(tmp_path / "in", 3)
    write_image(tmp_path / "in" / "002.png", read_image(tmp_path / "in" / "002.png").astype(np.uint16) * 257)
    with pytest.raises(InputError, match="16 bits per value"):
        make(tmp_path / "in", tmp_path / "out", weight)
    assert not (tmp_path / ".out.upscaling").exists()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".PNG"])
def test_one_picture_into_one_file(weight, tmp_path, suffix):
    source = photograph(tmp_path / "one.png")
    out = tmp_path / f"OUT{suffix}"
    assert make(source, out, weight) == [out]
    assert read_image(out).shape == (32, 48, 3)
    with pytest.raises(InputError, match="--overwrite"):
        make(source, out, weight)


def test_many_frames_into_one_picture_are_refused(weight, tmp_path):
    with pytest.raises(InputError, match=r"has 3 frames, a \.png holds one"):
        make(frames(tmp_path / "in"), tmp_path / "out.png", weight)


def test_unreadable_picture_does_not_stop_the_others(weight, tmp_path):
    for name in "abc":
        photograph(tmp_path / "in" / f"{name}.png", seed=ord(name))
    content = (tmp_path / "in" / "b.png").read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"1 of 3 clips"):
        make(tmp_path / "in", tmp_path / "out", weight, stills=True)
    assert [name for name in listed(tmp_path / "out") if name[0] != "."] == ["a.png", "c.png"]


def test_folder_of_stacks(tmp_path):
    import tifffile

    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    members = find_members(tmp_path / "in", tmp_path / "out", False, ".png", print)
    assert members is not None and [member.output for member in members] == ["a.tif", "b.tif"]


# --- series and photographs ---------------------------------------------------------------------------------------------


# --- folders in folders -------------------------------------------------------------------------------------------------


def test_clips_two_folders_deep_are_upscaled(weight, tmp_path):
    frames(tmp_path / "in" / "a" / "one", 2)
    frames(tmp_path / "in" / "a" / "two", 2)
    frames(tmp_path / "in" / "b", 2)
    make(tmp_path / "in", tmp_path / "out", weight)
    expected = [f"{place}/00{k}.png" for place in ("a/one", "a/two", "b") for k in range(2)]
    assert listed(tmp_path / "out") == expected


def test_ambiguous_folder_does_not_stop_the_others(weight, tmp_path):
    frames(tmp_path / "in" / "good", 2)
    series(tmp_path / "in" / "bad", ["f_001", "f_002", "f_003", "cover"])
    with pytest.raises(InputError, match=r"1 of 2 clips.*'bad'.*cover"):
        make(tmp_path / "in", tmp_path / "out", weight)
    assert listed(tmp_path / "out") == ["good/000.png", "good/001.png"]


def test_photographs_in_folders(weight, tmp_path):
    for place in "ab":
        for number in range(3):
            photograph(tmp_path / "in" / place / f"{number}.png", seed=number + ord(place))
    make(tmp_path / "in", tmp_path / "out", weight)
    assert listed(tmp_path / "out") == [f"{place}/{number}.png" for place in "ab" for number in range(3)]
    make(tmp_path / "in" / "a", tmp_path / "a", weight)
    assert np.array_equal(read_image(tmp_path / "a" / "1.png"), read_image(tmp_path / "out" / "a" / "1.png"))


def test_linked_folder_is_a_clip_and_link_loops_are_skipped(weight, tmp_path):
    frames(tmp_path / "far", 2)
    frames(tmp_path / "in" / "near", 2)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    make(tmp_path / "in", tmp_path / "out", weight)
    assert listed(tmp_path / "out") == [f"{place}/00{k}.png" for place in ("link", "near") for k in range(2)]


def test_files_that_are_not_read_are_named(weight, tmp_path, capsys):
    frames(tmp_path / "in", 2)
    (tmp_path / "in" / "IMG_1.HEIC").write_bytes(b"ftypheic")
    make(tmp_path / "in", tmp_path / "out", weight)
    assert "'IMG_1.HEIC'" in capsys.readouterr().out and listed(tmp_path / "out") == ["000.png", "001.png"]


def test_picture_without_suffix_is_read(weight, tmp_path):
    photograph(tmp_path / "in.png").rename(tmp_path / "in")
    make(tmp_path / "in", tmp_path / "out.png", weight)
    assert read_image(tmp_path / "out.png").shape == (32, 48, 3)
