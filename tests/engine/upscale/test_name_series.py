"""Pictures of one folder: one clip, several series by their names, or photographs."""

from __future__ import annotations

import numpy as np
import pytest

from data.clips import FolderClip
from data.media import read_image, write_image
from engine.upscale.members import find_members
from engine.upscale.remarks import cuts_of
from errors import InputError
from tests.engine.small import moving_clip
from tests.engine.upscale.folders import listed, make, photograph, series


@pytest.mark.parametrize("first", [1, 17])
def test_photographs_of_one_size_are_separate_clips(weight, tmp_path, capsys, first):
    for number in range(first, first + 4):
        photograph(tmp_path / "in" / f"IMG_{number:04d}.jpg", seed=number)
    make(tmp_path / "in", tmp_path / "out", weight)
    single = tmp_path / "single.png"
    make(tmp_path / "in" / f"IMG_{first:04d}.jpg", single, weight)
    assert np.array_equal(read_image(single), read_image(tmp_path / "out" / f"IMG_{first:04d}.png"))
    assert "most frames have nothing in common with the next one" in capsys.readouterr().out


def test_photographs_with_words_as_names(weight, tmp_path, capsys):
    for number, name in enumerate(("beach", "dog", "tower")):
        photograph(tmp_path / "in" / f"{name}.png", seed=number)
    make(tmp_path / "in", tmp_path / "out", weight)
    assert "one by one" in capsys.readouterr().out and listed(tmp_path / "out") == ["beach.png", "dog.png", "tower.png"]


def test_unrelated_frames_into_a_video_are_one_clip(weight, tmp_path):
    import av

    for number in range(3):
        photograph(tmp_path / "in" / f"{number}.png", seed=number)
    make(tmp_path / "in", tmp_path / "out.mp4", weight)
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert len(list(file.decode(video=0))) == 3


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        (["a_001", "a_002", "a_003", "b_001", "b_002"], ["a", "b"]),
        (["left001", "left002", "Right001", "Right002"], ["left", "Right"]),
        (["001_vis", "002_vis", "001_nir", "002_nir"], ["vis", "nir"]),
    ],
)
def test_two_series_of_names_are_separate_clips(weight, tmp_path, capsys, names, outputs):
    series(tmp_path / "in", names)
    make(tmp_path / "in", tmp_path / "out", weight)
    text = capsys.readouterr().out
    assert "2 series of frames, each a separate clip" in text
    assert len(list((tmp_path / "out").iterdir())) == 2 and len(listed(tmp_path / "out")) == len(names)
    with pytest.raises(InputError, match="not a single clip"):
        make(tmp_path / "in", tmp_path / "out.mp4", weight)


def test_clip_numbers_in_names_separate_clips(tmp_path):
    series(tmp_path / "in", ["clip1_001", "clip1_002"])
    for number in (1, 2):
        photograph(tmp_path / "in" / f"clip2_{number:03d}.png", seed=5)
    members = find_members(tmp_path / "in", tmp_path / "out", False, ".png", print)
    assert [(member.output, len(member.frames)) for member in members] == [("clip1", 2), ("clip2", 2)]


@pytest.mark.parametrize(
    "stems", [["2020-01-01_12-00-05", "2020-01-01_12-00-35", "2020-01-01_12-01-05"], ["x", "y", "z"]]
)
def test_names_that_are_not_a_series(tmp_path, stems):
    series(tmp_path / "in", stems)
    assert find_members(tmp_path / "in", tmp_path / "out", False, ".png", print) is None


def test_unnumbered_picture_among_frames_is_refused(weight, tmp_path):
    series(tmp_path / "in", ["f_001", "f_002", "f_003", "cover"])
    with pytest.raises(
        InputError, match=r"numbered frames \(f_001.png, \.\.\.\) and other pictures \('cover\.png'\).*--stills"
    ):
        make(tmp_path / "in", tmp_path / "out", weight)


def test_tiles_of_a_mosaic_are_separate_clips(weight, tmp_path, capsys):
    frame = moving_clip(1, 16, 24).array(0)
    for k in range(3):  # equal content: only the georeferences differ
        write_image(tmp_path / "in" / f"tile_{k}.png", frame)
        (tmp_path / "in" / f"tile_{k}.pgw").write_text(f"10\n0\n0\n-10\n{5e5 + 5 + 240 * k}\n4999995\n")
    make(tmp_path / "in", tmp_path / "out", weight)
    assert "they show different places" in capsys.readouterr().out
    assert {f"tile_{k}.pgw" for k in range(3)} < set(listed(tmp_path / "out"))


def test_frames_of_noise_are_not_photographs(tmp_path):
    """Random frames are uncorrelated too, but they have the same histogram."""
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 255, (32, 40, 3), np.uint8)
        write_image(tmp_path / f"{number:04d}.png", noise)
    assert cuts_of(FolderClip(tmp_path)) == ([], False)


def test_a_gap_in_a_series_is_an_error_of_that_series(weight, tmp_path):
    series(tmp_path / "in", ["a_000", "a_001", "a_003", "b_000", "b_001", "b_002"])
    with pytest.raises(InputError, match=r"1 of 2 clips.*'a'.*missing"):
        make(tmp_path / "in", tmp_path / "out", weight)
    assert listed(tmp_path / "out") == ["b/b_000.png", "b/b_001.png", "b/b_002.png"]
