"""What a folder holds: clips beside pictures, photographs, frames of mixed kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.media import read_image, write_image
from engine.checkpoint import save_weights
from engine.upscale.members import find_members
from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from tests.engine.small import moving_clip, small_mtdo

SIZES = [(16, 24), (24, 16), (20, 20)]


@pytest.fixture(scope="module")
def weight(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "m.safetensors"
    save_weights(path, small_mtdo())
    return path


def make(source: Path, out: Path, weight: Path, **more) -> list[Path]:
    return upscale(Request(source, out, weight, precision="fp32", **more))


def frames(folder: Path, count: int = 3, suffix: str = ".png") -> Path:
    for index in range(count):
        write_image(folder / f"{index:03d}{suffix}", moving_clip(count, 16, 24).array(index))
    return folder


def photograph(path: Path, size: tuple[int, int] = (16, 24), seed: int = 0) -> Path:
    coarse = np.random.default_rng(seed).integers(0, 255, (size[0] // 4, size[1] // 4, 3))
    write_image(path, np.kron(coarse, np.ones((4, 4, 1))).astype(np.uint8))
    return path


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["videos", "folders"])
def test_a_picture_beside_clips_does_not_hide_them(weight, tmp_path, capsys, kind):
    frames(tmp_path / "in" / "a", 2)
    if kind == "videos":
        make(tmp_path / "in" / "a", tmp_path / "in" / "b.mp4", weight)
    photograph(tmp_path / "in" / "poster.jpg")
    make(tmp_path / "in", tmp_path / "out", weight)
    assert listed(tmp_path / "out") == ["a/000.png", "a/001.png"] + ["b.mp4"] * (kind == "videos")
    assert "'poster.jpg' (--stills" in capsys.readouterr().out
    make(tmp_path / "in", tmp_path / "all", weight, stills=True)
    assert "poster.png" in listed(tmp_path / "all")


def test_frames_beside_clips_are_asked_about(weight, tmp_path):
    frames(tmp_path / "in" / "a", 2)
    frames(tmp_path / "in", 2)
    with pytest.raises(InputError, match=r"holds frames \(000\.png, \.\.\.\) and also clips \(a, \.\.\.\)"):
        make(tmp_path / "in", tmp_path / "out", weight)


def test_folders_without_frames_are_named(weight, tmp_path, capsys):
    frames(tmp_path / "in" / "a", 2)
    (tmp_path / "in" / "raw" / "deep").mkdir(parents=True)
    make(tmp_path / "in", tmp_path / "out", weight)
    assert "left out, because they hold no frames: 'raw'" in capsys.readouterr().out


def test_photographs_of_different_sizes_are_clips_of_their_own(weight, tmp_path, capsys):
    for number, size in enumerate(SIZES):
        photograph(tmp_path / "in" / f"{'abc'[number]}.jpg", size, number)
    make(tmp_path / "in", tmp_path / "out", weight)
    assert [read_image(tmp_path / "out" / f"{name}.png").shape[:2] for name in "abc"] == [
        (2 * h, 2 * w) for h, w in SIZES
    ]
    assert "one by one: they have 3 sizes" in capsys.readouterr().out


def test_numbers_with_gaps_and_nothing_in_common(weight, tmp_path):
    for number in (3, 17, 18):
        photograph(tmp_path / "in" / f"IMG_{number:04d}.jpg", seed=number)
    make(tmp_path / "in", tmp_path / "out", weight)
    assert listed(tmp_path / "out") == ["IMG_0003.png", "IMG_0017.png", "IMG_0018.png"]


def test_a_missing_frame_is_no_photograph(weight, tmp_path):
    (frames(tmp_path / "in", 5) / "002.png").unlink()
    with pytest.raises(InputError, match=r"missing between them.*--stills"):
        make(tmp_path / "in", tmp_path / "out", weight)


def test_one_frame_of_another_size_is_damage(weight, tmp_path):
    photograph(frames(tmp_path / "in", 4) / "004.png", (20, 20))
    with pytest.raises(InputError, match=r"004\.png: 20x20 pixels.*--stills"):
        make(tmp_path / "in", tmp_path / "out", weight)


def test_two_files_of_one_name(weight, tmp_path):
    for suffix in (".png", ".jpg"):
        photograph(tmp_path / "in" / f"left{suffix}")
    with pytest.raises(InputError, match=r"a second file for the same frame.*|left"):
        make(tmp_path / "in", tmp_path / "out", weight)
    make(tmp_path / "in", tmp_path / "out", weight, stills=True)
    assert listed(tmp_path / "out") == ["left_jpg.png", "left_png.png"]


@pytest.mark.parametrize("first", ["gray", "colour"])
def test_a_gray_frame_does_not_make_the_others_gray(weight, tmp_path, first):
    frames(tmp_path / "in", 3)
    name = "000.png" if first == "gray" else "001.png"
    write_image(tmp_path / "in" / name, read_image(tmp_path / "in" / name)[..., :1])
    make(tmp_path / "in", tmp_path / "out", weight)
    assert [read_image(tmp_path / "out" / f"{k:03d}.png").shape[2] for k in range(3)] == [3, 3, 3]
    colours = read_image(tmp_path / "out" / "002.png").reshape(-1, 3).astype(int)
    assert np.abs(colours[:, 0] - colours[:, 1]).max() > 50


def test_frames_of_mixed_depth_are_refused_before_the_work(weight, tmp_path):
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


def test_one_bad_picture_does_not_keep_the_others(weight, tmp_path):
    for name in "abc":
        photograph(tmp_path / "in" / f"{name}.png", seed=ord(name))
    content = (tmp_path / "in" / "b.png").read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"1 of 3 clips"):
        make(tmp_path / "in", tmp_path / "out", weight, stills=True)
    assert [name for name in listed(tmp_path / "out") if name[0] != "."] == ["a.png", "c.png"]


def test_a_folder_of_stacks(tmp_path):
    import tifffile

    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    members = find_members(tmp_path / "in", tmp_path / "out", False, ".png", print)
    assert members is not None and [member.output for member in members] == ["a.tif", "b.tif"]
